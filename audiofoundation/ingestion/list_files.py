"""Lists of sources: txt, csv, tsv, jsonl (each also with .gz) and parquet, read a few rows at a time.

Columns, whatever their order: `url` (or `source`, `link`, `video_id`), `title`, `channel`, `license`, `duration`.
"""

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audiofoundation.errors import InvalidRequest
from audiofoundation.ingestion.source import SourceLine

_TEXT_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
_PARQUET = ".parquet"
_VIDEO_COLUMNS = ("video_id", "youtube_id")
_SOURCE_COLUMNS = ("source", "url", "link", *_VIDEO_COLUMNS)
_DURATION_COLUMNS = ("duration_s", "duration")
_TEXT_COLUMNS = ("title", "channel", "license")
_MAX_TEXT = 500
_MAX_CHARACTERS = 1 << 20  # of one line: a file without line breaks is no list
# So many lines may name nothing, some more for each that does: a page of sources never takes longer than seconds.
_MAX_EMPTY_LINES = 1_000_000
_LINES_PER_SOURCE = 1000
_ROWS_AT_ONCE = 4096


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
        max_characters: most that a text may hold once it is unpacked.

    Raises:
        InvalidRequest: the file cannot be read as its suffix says, is too large, or goes on for a million lines
            that name nothing; the message names file and line.
    """
    name = name or str(path)
    suffix = list_suffix(name)
    if suffix == _PARQUET:
        yield from _parquet_rows(path, name)
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
        while text := self.file.readline(_MAX_CHARACTERS + 1):
            number += 1
            num_characters += len(text)
            if len(text) > _MAX_CHARACTERS:
                self._refuse(number, f"a line of more than {_MAX_CHARACTERS} characters")
            if number > _MAX_EMPTY_LINES + _LINES_PER_SOURCE * self.num_listed:
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
        yield ListedLine(number, _from_record(value) if isinstance(value, dict) else SourceLine(str(value)))


def _table(lines: Iterable[tuple[int, str]], name: str, delimiter: str) -> Iterator[ListedLine]:
    rows = csv.reader((text for _, text in lines), delimiter=delimiter)
    names: list[str] | None = None
    try:
        for row in rows:
            if names is None:
                names = [cell.strip().lower() for cell in row]
                if any(cell in _SOURCE_COLUMNS for cell in names):
                    continue
                if not _looks_like_source(row):
                    raise InvalidRequest(
                        f"{name}:{rows.line_num}: the first row names no column `url` (or `source`, `link`, `video_id`)"
                    )
                names = ["source"]  # no header: the first column is the source
            if any(cell.strip() for cell in row):
                yield ListedLine(rows.line_num, _from_record(dict(zip(names, row, strict=False))))
    except csv.Error as error:
        raise InvalidRequest(f"{name}:{rows.line_num}: {error}") from error


def _looks_like_source(row: list[str]) -> bool:
    return not row or not row[0].strip() or ":" in row[0] or len(row) == 1


def _parquet_rows(path: Path, name: str) -> Iterator[ListedLine]:
    try:
        import pyarrow  # in the extra `ingest`; only who reads parquet pays for its import
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidRequest(f"{name}: reading parquet needs pyarrow; install audiofoundation[ingest]") from error
    try:
        with parquet.ParquetFile(path) as file:
            known = (*_SOURCE_COLUMNS, *_TEXT_COLUMNS, *_DURATION_COLUMNS)
            columns = [column for column in file.schema_arrow.names if column.lower() in known]
            if not any(column.lower() in _SOURCE_COLUMNS for column in columns):
                raise InvalidRequest(f"{name}: no column is called `url` (or `source`, `link`, `video_id`)")
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
                for record in batch.to_pylist():
                    number += 1
                    yield ListedLine(number, _from_record(record))
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidRequest(f"{name}: not a parquet file that can be read ({error})") from error


def _from_record(record: Mapping[str, object]) -> SourceLine:
    lowered = {str(name).strip().lower(): value for name, value in record.items()}
    column = next((name for name in _SOURCE_COLUMNS if lowered.get(name)), "")
    source = str(lowered.get(column, "")).strip()
    texts = {name: plain_text(lowered.get(name)) for name in _TEXT_COLUMNS}
    return SourceLine(
        f"youtube:{source}" if column in _VIDEO_COLUMNS else source,
        title=texts["title"],
        channel=texts["channel"],
        license=texts["license"],
        duration_s=next(
            (d for d in (to_seconds(lowered.get(name)) for name in _DURATION_COLUMNS) if d is not None), None
        ),
    )


def plain_text(value: object) -> str | None:
    """Return a value's text without control characters, cut to 500 characters; None for nothing."""
    text = "".join(c for c in ("" if value is None else str(value)) if c.isprintable()).strip()
    return text[:_MAX_TEXT] or None


def to_seconds(value: object) -> float | None:
    """Return a duration given as a number of seconds or as [hours:]minutes:seconds; None for anything else."""
    try:
        parts = [float(part) for part in str(value).strip().split(":")]
    except ValueError:
        return None
    if len(parts) > 3 or not all(part >= 0 for part in parts):
        return None
    total_s = sum(part * 60.0**power for power, part in enumerate(reversed(parts)))
    return total_s if math.isfinite(total_s) else None
