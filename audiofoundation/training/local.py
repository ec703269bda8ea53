"""Train a recipe on a corpus folder with no platform: how the bundled weights were made.

    python -m audiofoundation.training.local tiny CORPUS OUT [--set weights=speech:0.55,music:0.45] [--steps N]

Run it again to continue. It writes `OUT/state.safetensors` and `OUT/log.jsonl`, and `OUT/model.safetensors` (fp16)
at the end.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from audiofoundation.errors import InvalidRequest
from audiofoundation.models.checkpoint import LoadedModel, load_model, save_model
from audiofoundation.models.registry import bundled_models
from audiofoundation.settings import Settings
from audiofoundation.training.assembly import create_objective
from audiofoundation.training.corpus import Corpus
from audiofoundation.training.recipes import Recipe, resolve_recipe
from audiofoundation.training.state_file import read_state, write_state
from audiofoundation.training.trainer import Progress, TrainState, create_state, fit

_LOG_EVERY = 50


class JsonLog:
    """Appends one line per fifty steps, with mean losses, and one per evaluation."""

    def __init__(self, path: Path) -> None:
        self._path, self._totals, self._started = path, [0.0, 0.0], time.monotonic()

    def __call__(self, progress: Progress) -> None:
        self._totals = [self._totals[0] + progress.losses.get("model/total", 0.0), self._totals[1] + 1]
        if progress.step % _LOG_EVERY and not progress.metrics:
            return
        row = {
            "step": progress.step,
            "seconds": round(time.monotonic() - self._started),
            "loss": self._totals[0] / self._totals[1],
            **progress.metrics,
        }
        with self._path.open("a") as log:
            log.write(json.dumps(row) + "\n")
        self._totals = [0.0, 0.0]


def main(
    recipe: str,
    corpus: Path,
    out: Path,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value, repeatable")] = None,
    steps: int | None = None,
    name: str | None = None,
) -> None:
    """Train RECIPE on the corpus folder CORPUS, into OUT."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    values = dict(pair.split("=", 1) for pair in overrides or [])
    chosen = resolve_recipe(recipe, values, num_steps=steps)
    config = replace(chosen.trainer, save_every_s=300.0)
    state = create_state(create_objective(chosen, Corpus.load(corpus), init=_load_init(chosen)), config)
    path, partial = out / "state.safetensors", out / "state.partial"
    if path.exists():
        read_state(state, path, recipe=recipe)

    def save(state: TrainState) -> None:
        write_state(state, partial, recipe=recipe)
        partial.replace(path)

    fit(state, config, save=save, report=JsonLog(out / "log.jsonl"), should_stop=(out / "stop").exists)
    save_model(out / "model.safetensors", state.ema, name=name or recipe, step=state.step, dtype=torch.float16)


def _load_init(recipe: Recipe) -> LoadedModel | None:
    if recipe.init_name is None:
        return None
    bundled = bundled_models(Settings().models.pretrained_dir)
    if recipe.init_name not in bundled:
        raise InvalidRequest(f"init: no bundled model is called {recipe.init_name!r}; there are {', '.join(bundled)}")
    return load_model(bundled[recipe.init_name])


if __name__ == "__main__":
    typer.run(main)
