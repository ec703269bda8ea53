"""The command line. Each module here adds its commands; heavy imports wait until a command runs."""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer
from pydantic import ValidationError

from audiofoundation.cli.finite import require_finite
from audiofoundation.cli.output import EXIT_FAILURE, EXIT_USAGE, CommandError, note
from audiofoundation.errors import AudioFoundationError
from audiofoundation.settings import no_setting

_MODULES = (
    "up",
    "ingest",
    "listings",
    "probe_report",
    "preprocess",
    "train",
    "lineage",
    "takedown",
    "gc",
    "generate",
    "dataset",
    "doctor",
    "bench",
    "demo",
)
_HELP = """Ingest recordings, preprocess them, train models and continue audio, on one machine or many.

A first tour:

  audiofoundation doctor

  audiofoundation up

  audiofoundation ingest recordings/ --collection mine --wait

  audiofoundation continue prompt.wav -o continuation.wav
"""


def create_cli() -> typer.Typer:
    """Return the application with every command."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
    )
    app.callback()(_root)
    for name in _MODULES:
        import_module(f"{__name__}.{name}").register(app)
    require_finite(app)
    return app


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"audiofoundation {version('audiofoundation')}")
        raise typer.Exit


def _root(
    _is_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Keeps `up` a word of its own even where it is the only command installed."""


def main() -> None:
    """Run a command; 0 is success, 2 wrong usage, 1 a failure told in one sentence on stderr."""
    try:
        create_cli()()
    except (AudioFoundationError, CommandError) as error:
        note(f"error: {error}")
        sys.exit(EXIT_FAILURE)
    except ValidationError as error:
        note(f"error: {_first_setting(error)}")
        sys.exit(EXIT_USAGE)
    except OSError as error:
        note(f"error: {_in_words(error)}")
        sys.exit(EXIT_FAILURE)


def _in_words(error: OSError) -> str:
    """What the system refused and for which file, without its number."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def _first_setting(error: ValidationError) -> str:
    first = error.errors()[0]
    name = "AF_" + "__".join(str(part).upper() for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{no_setting(name)}; correct it or leave it out"
    return f"the setting {name} cannot be used: {first['msg'].removeprefix('Value error, ')}"
