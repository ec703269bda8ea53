"""Judging a recording by a few excerpts of it, before its bytes are paid for where that can be done.

Where single ranges do not decode (an MP4 whose index stands at its end, a server without ranges, a file that
is hardly longer than the ranges), the whole file is judged once it is here. The stored decision says which.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from audiofoundation.audio.decode import DecodeLimits, decode_blocks
from audiofoundation.audio.fidelity import Fidelity, measure_fidelity
from audiofoundation.audio.magic import HEAD_BYTES, recognise
from audiofoundation.audio.waveform import Waveform
from audiofoundation.catalog.tables import Item, Probe
from audiofoundation.errors import AudioTooLong, DecodeFailed, Overloaded
from audiofoundation.ingestion.probe_labels import Labeller, SoundLabel
from audiofoundation.ingestion.states import ItemRefused, ItemState, RefusalClass
from audiofoundation.settings import ProbeSettings

# Decoders of these find the next frame by themselves, and what describes the sound stands in their first bytes.
_RESUMABLE = frozenset({"wav", "flac", "mp3", "ogg", "aac"})
# Of the file, put before each later range. A multiple of every PCM frame up to 8 channels of 24 or 32 bits, as
# are the ranges' offsets: samples then stay whole.
_HEAD_BYTES = 24_576
_EXCERPT_S = 15.0
_LIMITS = DecodeLimits(max_duration_s=4 * 3600.0, max_bytes=64 << 20, wall_s=60.0, cpu_s=30.0)

RangeReader = Callable[[int, int], tuple[bytes, int | None]]


class Stage(StrEnum):
    """What was judged."""

    RANGES = "ranges"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found.

    Attributes:
        stage: what was judged.
        num_bytes: how much was fetched for it.
        measures: of the excerpts.
        label: what they sound like; None when nobody listened.
        refusals: thresholds that the recording fails, each with its sentence; none when it is kept.
    """

    stage: Stage
    num_bytes: int
    measures: Fidelity
    label: SoundLabel | None
    refusals: Mapping[RefusalClass, str]

    def check(self) -> None:
        """Raise ItemRefused unless the recording is kept."""
        for refusal, sentence in self.refusals.items():
            raise ItemRefused(refusal, sentence)


def probe_ranges(read: RangeReader, settings: ProbeSettings, labeller: Labeller | None = None) -> Verdict | None:
    """Judge a remote file by a few short ranges; None where they do not tell.

    Args:
        read: returns up to `n` bytes from an offset, and the file's size; no bytes or no size where it cannot.
        settings: how much to read, and the thresholds.
        labeller: says what it sounds like; nobody does when None.
    """
    head, size = read(0, max(settings.range_bytes, HEAD_BYTES))
    if not head or size is None or size < 2 * settings.num_ranges * settings.range_bytes:
        return None
    try:
        is_resumable = recognise(head[:HEAD_BYTES]).demuxer in _RESUMABLE
    except DecodeFailed:
        return None  # the whole file will say so better
    parts = [head]
    if is_resumable:
        for index in range(1, settings.num_ranges):
            offset = size * index // settings.num_ranges // _HEAD_BYTES * _HEAD_BYTES
            part, _ = read(offset, settings.range_bytes)
            if part:
                parts.append(head[:_HEAD_BYTES] + part)
    excerpts = [excerpt for part in parts if (excerpt := _decoded(part)) is not None]
    excerpts = [excerpt for excerpt in excerpts if _form(excerpt) == _form(excerpts[0])]
    num_bytes = sum(len(part) for part in parts) - _HEAD_BYTES * (len(parts) - 1)
    if not excerpts:
        return None
    return judge(excerpts, settings, stage=Stage.RANGES, num_bytes=num_bytes, labeller=labeller)


def judge(
    excerpts: Sequence[Waveform],
    settings: ProbeSettings,
    *,
    stage: Stage,
    num_bytes: int,
    labeller: Labeller | None = None,
) -> Verdict:
    """Measure excerpts and compare them with the thresholds. Silence gets no label.

    Raises:
        ValueError: there is no sample, or the excerpts differ in form.
    """
    measures = measure_fidelity(excerpts)
    is_silent = measures.silence_ratio > settings.max_silence_ratio
    label = None if labeller is None or is_silent else labeller(excerpts)
    return Verdict(stage, num_bytes, measures, label, _refusals(measures, label, settings))


def write_verdict(session: Session, item_id: str, verdict: Verdict, settings: ProbeSettings) -> None:
    """Keep what an item's probe found; a later probe of the item replaces it. Of one taken down nothing is kept."""
    if session.scalars(select(Item.state).where(Item.id == item_id).with_for_update()).one() == ItemState.TOMBSTONED:
        return
    values = {
        "stage": verdict.stage.value,
        "decision": "refused" if verdict.refusals else "kept",
        "reason": "; ".join(verdict.refusals.values()),
        "num_bytes": verdict.num_bytes,
        "measurements": {**asdict(verdict.measures), **(verdict.label.measurements() if verdict.label else {})},
        "thresholds": thresholds(settings),
        "probed_at": time.time(),
    }
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    inserting = dialect.insert(Probe).values(item_id=item_id, **values)
    session.execute(inserting.on_conflict_do_update(index_elements=[Probe.item_id], set_=values))


def thresholds(settings: ProbeSettings) -> dict[str, object]:
    """Return the bounds and the labels that pass by the setting's name."""
    bounds = {name: float(value) for name, value in settings.model_dump().items() if name.startswith(("min_", "max_"))}
    return {**bounds, "allowed_labels": list(settings.allowed_labels)}


def _refusals(found: Fidelity, label: SoundLabel | None, settings: ProbeSettings) -> dict[RefusalClass, str]:
    """The thresholds that are failed. Silence comes first: nothing else is to be said of it."""
    refusals: dict[RefusalClass, str] = {}
    if found.silence_ratio > settings.max_silence_ratio:
        refusals[RefusalClass.SILENT] = (
            f"{found.silence_ratio:.0%} of it is silent, more than {settings.max_silence_ratio:.0%}"
        )
        return refusals
    if found.centroid_hz < settings.min_centroid_hz:
        refusals[RefusalClass.LOW_CENTROID] = (
            f"its average frequency is {found.centroid_hz:.2f} Hz, under {settings.min_centroid_hz:g} Hz"
        )
    if found.cutoff_hz < settings.min_cutoff_hz:
        refusals[RefusalClass.LOW_CUTOFF] = (
            f"its sound ends at {found.cutoff_hz:.2f} Hz, under {settings.min_cutoff_hz:g} Hz"
        )
    if found.hum_to_signal_db > settings.max_hum_to_signal_db:
        refusals[RefusalClass.HUM] = (
            f"mains hum of {found.hum_hz:g} Hz lies {found.hum_to_signal_db:.1f} dB over the signal, "
            f"more than {settings.max_hum_to_signal_db:g} dB"
        )
    if found.clipped_ratio > settings.max_clipped_ratio:
        refusals[RefusalClass.CLIPPED] = (
            f"{found.clipped_ratio:.1%} of its samples are clipped, more than {settings.max_clipped_ratio:.1%}"
        )
    if found.noise_floor_dbfs > settings.max_noise_floor_dbfs:
        refusals[RefusalClass.NOISY] = (
            f"its noise floor is {found.noise_floor_dbfs:.0f} dBFS, over {settings.max_noise_floor_dbfs:g} dBFS"
        )
    if label is not None and settings.allowed_labels and label.name not in settings.allowed_labels:
        refusals[RefusalClass.WRONG_LABEL] = (
            f"it sounds like {label.name} ({label.probabilities[label.name]:.0%}), "
            f"and AF_PROBE__ALLOWED_LABELS takes only {' or '.join(settings.allowed_labels)}"
        )
    return refusals


def _form(excerpt: Waveform) -> tuple[int, int]:
    return excerpt.sample_rate_hz, excerpt.num_channels


def _decoded(part: bytes) -> Waveform | None:
    """Return the first seconds of a piece of a file; None when nothing in it decodes."""
    try:
        with decode_blocks(part, limits=_LIMITS, block_s=_EXCERPT_S) as blocks:
            return next(blocks, None)
    except (DecodeFailed, AudioTooLong, Overloaded):
        return None
