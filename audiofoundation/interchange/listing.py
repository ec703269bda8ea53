"""A folder as a user keeps it: `audio/` and a `metadata.json` that says what each recording is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiofoundation.errors import InvalidRequest

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]
METADATA, AUDIO = "metadata.json", "audio"


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of `metadata.json` that names a file in `audio/`.

    Attributes:
        file: the name as the metadata has it, relative to `audio/`.
        path: the file itself; it lies in `audio/`, also when links are followed.
        text: what describes it; never empty.
        fields: the whole object.
    """

    file: str
    path: Path
    text: str
    fields: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Skipped:
    """What does not become a sample, and why, in a sentence."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds: usable entries in their order, the others, and files that nothing describes."""

    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    unlisted: tuple[str, ...]


def read_listing(folder: Path) -> Listing:
    """Read a folder's metadata and look for the files it names.

    Raises:
        InvalidRequest: there is no `metadata.json` with a list, or no `audio/`.
    """
    audio = folder / AUDIO
    if not audio.is_dir():
        raise InvalidRequest(f"{folder} has no folder {AUDIO!r}: put the recordings there.")
    entries: dict[Path, Entry] = {}
    skipped: list[Skipped] = []
    for number, row in enumerate(_read_rows(folder / METADATA)):
        name = row.get("audio_file") if isinstance(row, dict) else None
        label = name if isinstance(name, str) and name else f"entry {number}"
        try:
            entry = _to_entry(row, audio)
            if entry.path in entries:
                raise InvalidRequest("The file is listed more than once: only its first entry counts.")
        except InvalidRequest as error:
            skipped.append(Skipped(_printable(label), error.message))
        else:
            entries[entry.path] = entry
    return Listing(tuple(entries.values()), tuple(skipped), _unlisted(audio, {skip.file for skip in skipped}, entries))


def _read_rows(path: Path) -> list[JsonValue]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InvalidRequest(f"There is no {path}: list the recordings there.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is not JSON in UTF-8: {error}.") from error
    if not isinstance(rows, list):
        raise InvalidRequest(f"{path} must hold a list of objects, one per recording.")
    return rows


def _to_entry(row: JsonValue, audio: Path) -> Entry:
    """Return the entry. Raises InvalidRequest, whose message is the reason to skip it."""
    if not isinstance(row, dict):
        raise InvalidRequest("The entry is no JSON object.")
    _require_unicode(row)
    name, text = row.get("audio_file"), row.get("text")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("The entry names no 'audio_file'.")
    path = _locate(audio, name)
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest("The entry has no 'text' that describes the recording.")
    return Entry(name, path, text, row)


def _require_unicode(row: Mapping[str, JsonValue]) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # half of a surrogate pair is JSON, but no text
        raise InvalidRequest("The entry holds text that is not Unicode.") from error


def _locate(audio: Path, name: str) -> Path:
    """Return the file that a name means. A name may lead nowhere but into `audio/`."""
    try:
        path = (audio / name).resolve()
        is_inside = path.is_relative_to(audio.resolve())
        is_file = is_inside and path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a circle of links
        raise InvalidRequest("The entry's 'audio_file' is no file name.") from error
    if not is_inside:
        raise InvalidRequest(f"The entry's 'audio_file' leads out of {AUDIO}/.")
    if not is_file:
        raise InvalidRequest(f"There is no such file in {AUDIO}/.")
    return path


def _unlisted(audio: Path, skipped: set[str], entries: Mapping[Path, Entry]) -> tuple[str, ...]:
    found = (path for path in audio.rglob("*") if path.is_file() and not path.name.startswith("."))
    names = {
        _printable(str(path.relative_to(audio)))
        for path in found
        if path.resolve() not in entries and str(path.relative_to(audio)) not in skipped
    }
    return tuple(sorted(names))


def _printable(name: str) -> str:
    """Return the name in Unicode; file systems and JSON allow what is not."""
    return name.encode(errors="backslashreplace").decode()
