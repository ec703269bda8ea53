"""`audiofoundation bench`: our figures and the peers', measured in one run by the checkout's benchmarks."""

import signal
import subprocess
import sys
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from audiofoundation.cli.output import CommandError, JsonOption

CHECKOUT = Path(__file__).resolve().parents[2]

_HELP = """Measure us beside the peers, in one run and with one thread each; a ratio above 1 means that ours is better.

preprocess: file to mel, beside librosa. vocoder: mel to sound, beside vocos. continue: steps of the model, beside
transformers' generate. Takes some minutes; the figures hold for a machine that does nothing else. Needs a checkout
of the repository with its development extra (`make setup`).

Examples:

  audiofoundation bench vocoder

  audiofoundation bench preprocess --json | jq .ratios
"""


class Benchmark(StrEnum):
    """What can be measured."""

    PREPROCESS = "preprocess"
    VOCODER = "vocoder"
    CONTINUE = "continue"


# What each needs beyond the base installation, the peer last.
NEEDED = {
    Benchmark.PREPROCESS: ("librosa",),
    Benchmark.VOCODER: ("torch", "torchaudio", "vocos"),
    Benchmark.CONTINUE: ("torch", "transformers"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", help=_HELP)(bench)


def bench(
    benchmark: Annotated[Benchmark, typer.Argument(help="What to measure.")],
    is_json: JsonOption = False,
) -> None:
    _check(benchmark)
    # Whoever ends this command ends the measurement: subprocess.run kills it on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    argv = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{benchmark}", *(["--json"] if is_json else [])]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise CommandError(
            f"the benchmark {benchmark} failed: {last} (`python -m benchmarks.{benchmark}` in {CHECKOUT} tells more)"
        )
    sys.stdout.write(done.stdout)


def _check(benchmark: Benchmark) -> None:
    """Raises CommandError where the benchmark or what it needs is missing."""
    if not (CHECKOUT / "benchmarks" / f"{benchmark}.py").is_file():
        raise CommandError(
            f"the benchmarks are no part of the package and {CHECKOUT} has none: clone the repository, run "
            "`make setup` in it and use its .venv/bin/audiofoundation"
        )
    missing = [name for name in NEEDED[benchmark] if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed, which the benchmark "
            f"{benchmark} needs: run `make setup` in {CHECKOUT}, or `pip install -e '.[all,dev]'`"
        )
