"""`audiofoundation train` and `audiofoundation runs`: training on a running platform."""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption, path_to
from audiofoundation.cli.output import (
    EXIT_FAILURE,
    EXIT_USAGE,
    CommandError,
    JsonOption,
    PlainProgress,
    fail,
    note,
    print_json,
    print_line,
    print_table,
    stderr,
)

_TRAIN_HELP = """Train a recipe on a dataset that `preprocess` made.

Recipes: tiny (continues audio), vocoder-tiny (mel to waveform; needs a dataset with waveforms),
classifier-tiny (speech, music or other; a label is a folder's name or the first word of a file's name).

The run goes through the queue; it survives crashes of anything and goes on from its last checkpoint by
itself. --wait follows it; interrupting --wait leaves it running.

Examples:

  audiofoundation train tiny --dataset ds_0123 --wait

  audiofoundation train tiny --dataset ds_0123 --steps 500 --set learning_rate=5e-4 --set batch=4 --wait

  audiofoundation train tiny --dataset ds_0123 --set init=pretrained --steps 1000 --wait

  audiofoundation train --resume run_0123 --wait
"""
_OVER = frozenset({"done", "failed", "cancelled"})
_POLL_S = 0.7

_Run = Annotated[str, typer.Argument(help="A run's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("train", help=_TRAIN_HELP)(train)
    runs = typer.Typer(
        help="Look at training runs, cancel them, promote their models or take that back.", no_args_is_help=True
    )
    runs.command("list")(list_runs)
    runs.command("show")(show)
    runs.command("cancel")(cancel)
    runs.command("promote")(promote)
    runs.command("demote")(demote)
    app.add_typer(runs, name="runs")


def train(
    recipe: Annotated[str | None, typer.Argument(help="tiny, vocoder-tiny or classifier-tiny.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Id of a dataset, as `preprocess` prints it.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all; default: the recipe's.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end.")] = False,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with this run.")] = None,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    body = _request(recipe, dataset, settings or [], steps, resume)
    with PlatformClient(url, data_dir=data_dir) as client:
        run = client.post("/v1/runs", body=body)
        if wait:
            run = _follow(client, run)
    _print_run(run, as_json=as_json)
    if wait and run["state"] != "done":
        raise typer.Exit(EXIT_FAILURE)


def list_runs(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, the newest first."""
    with PlatformClient(url, data_dir=data_dir) as client:
        runs = client.get("/v1/runs", params={"limit": limit})["data"]
    if as_json:
        print_json({"runs": [_summary(run) for run in runs]})
        return
    rows = [
        (run["run"], run["recipe"], run["state"], f"{run['step']}/{run['num_steps']}", run["model"] or "")
        for run in runs
    ]
    print_table(("run", "recipe", "state", "step", "model"), rows, has_ids=True)


def show(run: _Run, url: UrlOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Show how far a run is."""
    with PlatformClient(url, data_dir=data_dir) as client:
        _print_run(client.get(path_to("runs", run)), as_json=as_json)


def cancel(run: _Run, url: UrlOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Stop a run; it saves first, and `train --resume` goes on with it."""
    with PlatformClient(url, data_dir=data_dir) as client:
        _print_run(client.post(path_to("runs", run, "cancel")), as_json=as_json)


def promote(run: _Run, url: UrlOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Make the model of a done run the default of its task."""
    _mark(run, "promote", "{} is the default of its task now", url, data_dir, as_json=as_json)


def demote(run: _Run, url: UrlOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Take back a promotion: the bundled model is the default of the task again."""
    words = "{} is used only where it is named; the bundled model is the default again"
    _mark(run, "demote", words, url, data_dir, as_json=as_json)


def _mark(run: str, action: str, words: str, url: str | None, data_dir: Path | None, *, as_json: bool) -> None:
    with PlatformClient(url, data_dir=data_dir) as client:
        model = client.post(path_to("runs", run, action))
    if as_json:
        print_json({"run": run, "model": model["model"], "state": model["state"]})
    else:
        print_line(words.format(model["model"]))


def _request(
    recipe: str | None, dataset: str | None, settings: list[str], steps: int | None, resume: str | None
) -> dict[str, Any]:
    """Return the body of the request. The key lets a request that is sent twice start one run."""
    if resume is not None:
        if settings or steps is not None:
            fail("a resumed run keeps its settings: leave out --set and --steps", status=EXIT_USAGE)
        return {"resume": resume}
    if recipe is None or dataset is None:
        fail("name a recipe and a --dataset, or a run to --resume", status=EXIT_USAGE)
    overrides: dict[str, str] = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or not key:
            fail(f"--set takes KEY=VALUE, not {setting!r}", status=EXIT_USAGE)
        overrides[key.strip()] = value.strip()
    body = {"recipe": recipe, "dataset": dataset, "overrides": overrides, "idempotency_key": secrets.token_hex(16)}
    return body if steps is None else {**body, "steps": steps}


def _follow(client: PlatformClient, run: dict[str, Any]) -> dict[str, Any]:
    """Show the run's progress until it is over; Ctrl-C leaves it running."""
    name = run["run"]
    try:
        with _create_progress() as progress:
            task = progress.add_task(run["state"], total=run["num_steps"], completed=run["step"], loss="", speed="")
            speed, plain = _Speed(), PlainProgress()
            while run["state"] not in _OVER:
                _update(progress, task, run, speed)
                plain.say(f"{name}: {run['state']}, step {run['step']} of {run['num_steps']}{_loss_of(run)}")
                time.sleep(_POLL_S)
                run = client.get(path_to("runs", name))
            _update(progress, task, run, speed)
    except KeyboardInterrupt:
        note(f"the run goes on; follow it with `audiofoundation train --resume {name} --wait`")
        raise typer.Exit(EXIT_FAILURE) from None
    if run["state"] == "failed":
        raise CommandError(f"run {name} failed: {run['error']['message'] if run['error'] else 'no reason given'}")
    return run


class _Speed:
    """Steps per second since the run was first seen to move."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._attempt = -1

    def of(self, run: Mapping[str, Any]) -> float | None:
        """Return it, once two different steps of one attempt have been seen."""
        step = int(run["step"])
        if self._first is None or run["attempt"] != self._attempt:
            self._first, self._attempt = ((run["updated_at"], step) if step else None), run["attempt"]
            return None
        seconds, steps = run["updated_at"] - self._first[0], step - self._first[1]
        return steps / seconds if steps > 0 and seconds > 0 else None


def _create_progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=stderr,
        disable=not stderr.is_terminal,
    )


def _update(progress: Progress, task: TaskID, run: Mapping[str, Any], speed: _Speed) -> None:
    loss, rate = run["losses"].get("model/total"), speed.of(run)
    progress.update(
        task,
        description=f"{run['recipe']} {run['state']}",
        completed=run["step"],
        loss="" if loss is None else f"loss {loss:.4f}",
        speed="" if rate is None else f"{rate:.2f} steps/s",
    )


def _loss_of(run: Mapping[str, Any]) -> str:
    loss = run["losses"].get("model/total")
    return "" if loss is None else f", loss {loss:.4f}"


def _summary(run: Mapping[str, Any]) -> dict[str, Any]:
    names = ("run", "state", "step", "num_steps", "losses", "checkpoint", "model", "recipe", "dataset", "error")
    return {name: run[name] for name in names}


def _print_run(run: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(_summary(run))
        return
    print_line(
        f"{run['run']}  {run['recipe']} on {run['dataset']}: {run['state']}, step {run['step']} of {run['num_steps']}"
    )
    for name, value in sorted(run["losses"].items()):
        if value is not None:
            print_line(f"  {name}: {value:.4f}")
    if run["error"]:
        print_line(f"  error: {run['error']['message']}")
    if run["model"]:
        print_line(f"  model: {run['model']}")
