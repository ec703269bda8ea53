"""What the arguments of `ingest` name: local recordings, and lines of lists."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from audiofoundation.cli.output import CommandError

JsonLine = str | dict[str, str | float]
_T = TypeVar("_T")

LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".jsonl"})
_MEDIA = """
3gp 8svx aac ac3 aif aifc aiff alac amr ape au avi caf dts eac3 flac flv gsm m2ts m4a m4b m4v mka mkv mov mp1 mp2 mp3
mp4 mpc mpeg mpg oga ogg ogv opus ra ram rf64 rm snd sph spx tak ts tta voc w64 wav wave webm wma wmv wv
"""
MEDIA_SUFFIXES = frozenset("." + name for name in _MEDIA.split())
_VIDEO_COLUMNS = ("video_id", "youtube_id")
_SOURCE_COLUMNS = ("source", "url", "link", *_VIDEO_COLUMNS)
_DURATION_COLUMNS = ("duration_s", "duration")
_TEXT_COLUMNS = ("title", "channel", "license")
_MAX_TEXT = 500


@dataclass(frozen=True, slots=True)
class Sources:
    """Arguments sorted by what has to be done with them."""

    files: tuple[Path, ...]
    folders: tuple[Path, ...]
    lists: tuple[Path, ...]
    addresses: tuple[str, ...]

    def recordings(self) -> Iterator[Path]:
        """Yield local files: the ones named, then those in folders, in order of path."""
        yield from self.files
        for folder in self.folders:
            yield from walk(folder)

    def lines(self) -> Iterator[JsonLine]:
        """Yield addresses: the ones named, then those of lists, as the API takes them."""
        yield from self.addresses
        for path in self.lists:
            yield from read_list(path)


def sort_sources(arguments: Iterable[str]) -> Sources:
    """Tell paths, folders, lists and addresses apart. Raises CommandError for what is none of them."""
    files, folders, lists, addresses = list[Path](), list[Path](), list[Path](), list[str]()
    for argument in arguments:
        path = Path(argument)
        if argument.startswith(("http://", "https://", "youtube:")):
            addresses.append(argument)
        elif path.is_dir():
            folders.append(path)
        elif path.is_file():
            (lists if path.suffix.lower() in LIST_SUFFIXES else files).append(path)
        else:
            raise CommandError(f"{argument!r} is no file, folder or http(s) address")
    return Sources(tuple(files), tuple(folders), tuple(lists), tuple(addresses))


def walk(folder: Path) -> Iterator[Path]:
    """Yield the recordings under a folder: known extensions, and files without one; no hidden ones."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from walk(path)
        elif path.is_file() and (not path.suffix or path.suffix.lower() in MEDIA_SUFFIXES):
            yield path


def read_list(path: Path) -> Iterator[JsonLine]:
    """Yield the lines of a txt, csv, tsv or jsonl list; blank lines and, in txt, `#` comments are skipped."""
    suffix = path.suffix.lower()
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        if suffix == ".jsonl":
            yield from _json_lines(file)
        elif suffix in (".csv", ".tsv"):
            yield from _table(file, "\t" if suffix == ".tsv" else ",")
        else:
            stripped = (line.strip() for line in file)
            yield from (line for line in stripped if line and not line.startswith("#"))


def in_batches(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield lists of up to `size` values."""
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch


def _json_lines(file: Iterable[str]) -> Iterator[JsonLine]:
    for line in file:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            yield line.strip()  # the platform says why it is no source
            continue
        yield _from_record(value) if isinstance(value, dict) else str(value)


def _table(file: Iterable[str], delimiter: str) -> Iterator[JsonLine]:
    rows = csv.reader(file, delimiter=delimiter)
    first = next(rows, [])
    names = [name.strip().lower() for name in first]
    if not any(name in _SOURCE_COLUMNS for name in names):  # no header: the first column is the source
        yield from (row[0].strip() for row in (first, *rows) if row and row[0].strip())
        return
    for row in rows:
        if any(cell.strip() for cell in row):
            yield _from_record(dict(zip(names, row, strict=False)))


def _from_record(record: Mapping[str, object]) -> JsonLine:
    lowered = {str(name).strip().lower(): value for name, value in record.items()}
    column = next((name for name in _SOURCE_COLUMNS if lowered.get(name)), "")
    source = str(lowered.get(column, "")).strip()
    line: dict[str, str | float] = {"source": f"youtube:{source}" if column in _VIDEO_COLUMNS else source}
    for name in _TEXT_COLUMNS:
        text = "".join(c for c in str(lowered.get(name) or "") if c.isprintable())
        if text.strip():
            line[name] = text.strip()[:_MAX_TEXT]
    for name in _DURATION_COLUMNS:
        try:
            duration_s = float(str(lowered.get(name) or "nan"))
        except ValueError:
            continue
        if 0 <= duration_s < float("inf"):
            line["duration_s"] = duration_s
            break
    return line
