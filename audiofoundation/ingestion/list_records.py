"""What the columns of a list are called, and the line that a row of them becomes."""

import math
from collections.abc import Mapping

from audiofoundation.ingestion.source import SourceLine

_VIDEO_COLUMNS = ("video_id", "youtube_id")
SOURCE_COLUMNS = ("source", "url", "link", *_VIDEO_COLUMNS)
_DURATION_COLUMNS = ("duration_s", "duration")
_TEXT_COLUMNS = ("title", "channel", "license")
KNOWN_COLUMNS = (*SOURCE_COLUMNS, *_TEXT_COLUMNS, *_DURATION_COLUMNS)
_MAX_TEXT = 500
MAX_CHARACTERS = 1 << 20  # of one line or cell: what holds more is no list
# So many lines may name nothing, some more for each that does: a page of sources never takes longer than seconds.
_MAX_EMPTY_LINES = 1_000_000
_LINES_PER_SOURCE = 1000


def is_mostly_empty(num_lines: int, num_listed: int) -> bool:
    """Tell whether a list goes on for too long without naming anything."""
    return num_lines > _MAX_EMPTY_LINES + _LINES_PER_SOURCE * num_listed


def to_line(record: Mapping[str, object]) -> SourceLine:
    """Return the line that a row becomes, whatever the case of its columns' names."""
    lowered = {str(name).strip().lower(): value for name, value in record.items()}
    column = next((name for name in SOURCE_COLUMNS if lowered.get(name)), "")
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
    text = "" if value is None else str(value)
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable())
    return text.strip()[:_MAX_TEXT] or None


def to_seconds(value: object) -> float | None:
    """Return a duration given as a number of seconds or as [hours:]minutes:seconds; None for anything else."""
    if value is None:
        return None
    try:
        parts = [float(part) for part in str(value).strip().split(":")]
    except ValueError:
        return None
    if len(parts) > 3 or not all(part >= 0 for part in parts):
        return None
    total_s = sum(part * 60.0**power for power, part in enumerate(reversed(parts)))
    return total_s if math.isfinite(total_s) else None
