"""What commands print: results on stdout, everything else on stderr."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, NoReturn

import typer
from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]

_WIDEST = 1 << 16

EXIT_FAILURE = 1
EXIT_USAGE = 2

stderr = Console(stderr=True, highlight=False)


class CommandError(Exception):
    """A command cannot do what was asked; its message is the one sentence that the user sees."""


def print_json(value: Mapping[str, JsonValue]) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, has_ids: bool = False) -> None:
    """Print a table on stdout; nothing is cut off.

    Args:
        columns: their names.
        rows: a cell for each column.
        has_ids: the first column holds ids, which stay in one piece, to be copied, unless they fill half the window.
    """
    widest_id = max((len(str(row[0])) for row in rows), default=0)
    is_roomy = 2 * widest_id <= Console().width
    table = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=has_ids and is_roomy and number == 0)
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    print_renderable(table)


def print_renderable(renderable: RenderableType) -> None:
    """Print anything that rich can render on stdout."""
    console = Console(highlight=False)
    if not sys.stdout.isatty():  # nobody's window: as wide as it is
        wanted = console.measure(renderable, options=console.options.update(width=_WIDEST)).maximum
        console.width = max(console.width, wanted)
    console.print(renderable)


def print_line(text: str) -> None:
    """Print one line on stdout, for people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_more(next_cursor: str | None) -> None:
    """After a page of a list, say how to get the next one, if there is one."""
    if next_cursor:
        print_line(f"more with --cursor {next_cursor}")


def readable_time(seconds: float) -> str:
    """Return a time since the epoch as day and minute, UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def note(text: str) -> None:
    """Print one line on stderr."""
    stderr.print(text, markup=False, soft_wrap=True)


def fail(message: str, *, status: int = EXIT_FAILURE) -> NoReturn:
    """End the command with one sentence on stderr."""
    note(f"error: {message}")
    raise typer.Exit(status)


def create_progress() -> Progress:
    """Return a progress display on stderr; it is silent when stderr is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
        transient=True,
    )


class PlainProgress:
    """Where stderr is no terminal and bars are silent: a line now and then, so that long work is seen to go on."""

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._next_s = time.monotonic() + interval_s  # short work says nothing

    def say(self, text: str) -> None:
        """Print the line, unless one was printed lately or a bar is shown."""
        if not stderr.is_terminal and time.monotonic() >= self._next_s:
            note(text)
            self._next_s = time.monotonic() + self._interval_s
