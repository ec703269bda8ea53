"""What the arguments of `ingest` name: local recordings, and lines of lists."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import typer

from audiofoundation.cli.output import CommandError
from audiofoundation.ingestion.list_files import list_suffix, read_list
from audiofoundation.ingestion.source import SourceLine

JsonLine = str | Mapping[str, str | float]
_T = TypeVar("_T")

_MEDIA = """
3gp 8svx aac ac3 aif aifc aiff alac amr ape au avi caf dts eac3 flac flv gsm m2ts m4a m4b m4v mka mkv mov mp1 mp2 mp3
mp4 mpc mpeg mpg oga ogg ogv opus ra ram rf64 rm snd sph spx tak ts tta voc w64 wav wave webm wma wmv wv
"""
MEDIA_SUFFIXES = frozenset("." + name for name in _MEDIA.split())
_ADDRESSES = ("http://", "https://", "youtube:", "ytsearch", "feed:", "list:", "yandex:")


@dataclass(frozen=True, slots=True)
class PlacedLine:
    """A line as the API takes it, and the file and line where it stands ("" for an argument)."""

    value: JsonLine
    place: str


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A recording on this machine, and its name: with the folders below the one that was named."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Sources:
    """Arguments sorted by what has to be done with them."""

    files: tuple[Path, ...]
    folders: tuple[Path, ...]
    lists: tuple[Path, ...]
    addresses: tuple[str, ...]

    def recordings(self, passed_over: list[Path]) -> Iterator[LocalFile]:
        """Yield local files: the ones named, then those in folders, in order of path.

        Args:
            passed_over: takes the files in folders that are no recordings.
        """
        yield from (LocalFile(path, path.name) for path in self.files)
        for folder in self.folders:
            for path in walk(folder):
                if is_recording(path):
                    yield LocalFile(path, path.relative_to(folder).as_posix())
                else:
                    passed_over.append(path)

    def lines(self) -> Iterator[PlacedLine]:
        """Yield addresses: the ones named, then those of lists. Raises InvalidRequest for a list it cannot read."""
        yield from (PlacedLine(address, "") for address in self.addresses)
        for path in self.lists:
            for listed in read_list(path):
                yield PlacedLine(_to_json(listed.line), f"{path}:{listed.number}: ")


def sort_sources(arguments: Iterable[str]) -> Sources:
    """Tell paths, folders, lists and addresses apart. Raises CommandError for what is none of them."""
    files, folders, lists, addresses = list[Path](), list[Path](), list[Path](), list[str]()
    for argument in arguments:
        path = Path(argument)
        if not argument.strip():
            raise typer.BadParameter("a source is empty; is a variable not set?")
        if argument.startswith(_ADDRESSES):
            addresses.append(argument)
        elif path.is_dir():
            folders.append(path)
        elif path.is_file():
            (lists if list_suffix(path.name) else files).append(path)
        else:
            raise CommandError(f"{argument!r} is no file, folder, http(s) address or search (ytsearch5:rain)")
    return Sources(tuple(files), tuple(folders), tuple(lists), tuple(addresses))


def walk(folder: Path, *, entered: set[Path] | None = None) -> Iterator[Path]:
    """Yield what lies under a folder, sorted, without hidden files; links may lead to a folder again, but not twice.

    Args:
        folder: where to begin.
        entered: the folders that were read, by their real paths.
    """
    entered = set() if entered is None else entered
    if folder.resolve() in entered:
        return
    entered.add(folder.resolve())
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from walk(path, entered=entered)
        else:
            yield path


def is_recording(path: Path) -> bool:
    """Tell whether a file has a recording's extension, or none."""
    return path.is_file() and (not path.suffix or path.suffix.lower() in MEDIA_SUFFIXES)


def in_batches(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield lists of up to `size` values."""
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch


def licensed(line: JsonLine, license_text: str | None) -> JsonLine:
    """Return the line with that licence, unless it states its own."""
    if license_text is None:
        return line
    said = {"source": line} if isinstance(line, str) else line
    return {"license": license_text, **said}


def _to_json(line: SourceLine) -> JsonLine:
    """The line as the API takes it."""
    known = {"title": line.title, "channel": line.channel, "license": line.license, "duration_s": line.duration_s}
    said = {name: value for name, value in known.items() if value is not None}
    return {"source": line.text, **said} if said else line.text
