"""Lists of sources: txt, csv, tsv, jsonl (each also with .gz) and parquet, read a few rows at a time.

Columns, whatever their order: `url` (or `source`, `link`, `video_id`), `title`, `channel`, `license`, `duration`.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audiofoundation.errors import InvalidRequest
from audiofoundation.ingestion.list_records import MAX_CHARACTERS, SOURCE_COLUMNS, is_mostly_empty, to_line
from audiofoundation.ingestion.parquet_list import parquet_lines
from audiofoundation.ingestion.source import SourceLine

_TEXT_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
_PARQUET = ".parquet"


@dataclass(frozen=True, slots=True)
class ListedLine:
    """One line of a list and where it stands (lines and rows count from 1, a header included)."""

    number: int
    line: SourceLine


def list_suffix(name: str) -> str | None:
    """Return how a file of this name is read (`.csv`, `.parquet` …), or None when it is no list."""
    lowered = name.lower()
    stem, dot, ending = lowered.removesuffix(".gz").rpartition(".")
    suffix = dot + ending if stem else ""
    is_known = suffix in _TEXT_SUFFIXES or (suffix == _PARQUET and not lowered.endswith(".gz"))
    return suffix if is_known else None


def read_list(path: Path, *, name: str | None = None, max_characters: int | None = None) -> Iterator[ListedLine]:
    """Yield a list's lines; blank ones and, in txt, `#` comments are skipped.

    Args:
        path: the file.
        name: what the user calls it, in errors and for its suffix; the path itself by default.
        max_characters: most that it may hold once it is unpacked.

    Raises:
        InvalidRequest: the file cannot be read as its suffix says, is too large, or goes on for a million lines
            that name nothing; the message names file and line.
    """
    name = name or str(path)
    suffix = list_suffix(name)
    if suffix == _PARQUET:
        try:
            yield from (ListedLine(*row) for row in parquet_lines(path, max_characters=max_characters))
        except InvalidRequest as error:
            raise InvalidRequest(f"{name}: {error.message}") from error
        return
    with _opened(path, name) as file:
        lines = _Lines(file, name, max_characters)
        for listed in _listed(lines, name, suffix):
            lines.num_listed += 1
            yield listed


@contextmanager
def _opened(path: Path, name: str) -> Iterator[io.TextIOBase]:
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            binary = gzip.GzipFile(fileobj=raw) if is_gzip else raw
            yield io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidRequest(f"{name}: the compressed list is damaged or cut short ({error})") from error


@dataclass(slots=True)
class _Lines:
    """The numbered lines of a text that somebody else wrote: a small file may unpack to endless nothing.

    Attributes:
        num_listed: how many of them named something so far; the reader counts.
    """

    file: io.TextIOBase
    name: str
    max_characters: int | None
    num_listed: int = 0

    def __iter__(self) -> Iterator[tuple[int, str]]:
        number = num_characters = 0
        while text := self.file.readline(MAX_CHARACTERS + 1):
            number += 1
            num_characters += len(text)
            if len(text) > MAX_CHARACTERS:
                self._refuse(number, f"a line of more than {MAX_CHARACTERS} characters")
            if is_mostly_empty(number, self.num_listed):
                self._refuse(number, f"all but {self.num_listed} of its lines name nothing")
            if self.max_characters is not None and num_characters > self.max_characters:
                self._refuse(number, f"more than {self.max_characters} characters when it is unpacked")
            yield number, text

    def _refuse(self, number: int, why: str) -> None:
        raise InvalidRequest(f"{self.name}:{number}: {why}; is it a list?")


def _listed(lines: Iterable[tuple[int, str]], name: str, suffix: str | None) -> Iterator[ListedLine]:
    if suffix == ".jsonl":
        yield from _json_lines(lines)
    elif suffix in (".csv", ".tsv"):
        yield from _table(lines, name, "\t" if suffix == ".tsv" else ",")
    else:
        stripped = ((number, text.strip()) for number, text in lines)
        yield from (
            ListedLine(number, SourceLine(text)) for number, text in stripped if text and not text.startswith("#")
        )


def _json_lines(lines: Iterable[tuple[int, str]]) -> Iterator[ListedLine]:
    for number, text in lines:
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text.strip()  # counted as a line that names nothing: one bad line does not stop a million good ones
        yield ListedLine(number, to_line(value) if isinstance(value, dict) else SourceLine(str(value)))


def _table(lines: Iterable[tuple[int, str]], name: str, delimiter: str) -> Iterator[ListedLine]:
    rows = csv.reader((text for _, text in lines), delimiter=delimiter)
    names: list[str] | None = None
    try:
        for row in rows:
            if names is None:
                names = [cell.strip().lower() for cell in row]
                if any(cell in SOURCE_COLUMNS for cell in names):
                    continue
                if not _looks_like_source(row):
                    raise InvalidRequest(
                        f"{name}:{rows.line_num}: the first row names no column `url` (or `source`, `link`, `video_id`)"
                    )
                names = ["source"]  # no header: the first column is the source
            if any(cell.strip() for cell in row):
                yield ListedLine(rows.line_num, to_line(dict(zip(names, row, strict=False))))
    except csv.Error as error:
        raise InvalidRequest(f"{name}:{rows.line_num}: {error}") from error


def _looks_like_source(row: list[str]) -> bool:
    return not row or not row[0].strip() or ":" in row[0] or len(row) == 1
