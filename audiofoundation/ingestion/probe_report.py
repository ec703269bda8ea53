"""A collection's probes as histograms and counts: what would be kept at the thresholds and labels of today."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from audiofoundation.catalog.tables import Item, Probe
from audiofoundation.settings import ProbeSettings

_NUM_BINS = 40
_ROWS_AT_ONCE = 5000
# Measure, unit, the threshold that judges it, and the least range that is shown; what lies outside counts in the
# outermost bins, as does "none", which is -140 dB.
_MEASURES = (
    ("centroid_hz", "Hz", "min_centroid_hz", (0.0, 1000.0)),
    ("cutoff_hz", "Hz", "min_cutoff_hz", (0.0, 8000.0)),
    ("hum_to_signal_db", "dB", "max_hum_to_signal_db", (-60.0, 0.0)),
    ("clipped_ratio", "", "max_clipped_ratio", (0.0, 0.1)),
    ("silence_ratio", "", "max_silence_ratio", (0.0, 1.0)),
    ("noise_floor_dbfs", "dBFS", "max_noise_floor_dbfs", (-100.0, 0.0)),
    ("rms_dbfs", "dBFS", None, (-60.0, 0.0)),
    ("sample_rate_hz", "Hz", None, (0.0, 48_000.0)),
)


@dataclass(frozen=True, slots=True)
class MeasureHistogram:
    """How one measure is spread over a collection.

    Attributes:
        name: of the measure.
        unit: its unit; empty for a share.
        edges: of the bins; one more than counts.
        counts: recordings per bin.
        threshold_name: the setting that judges it; None when none does.
        threshold: its value.
        num_kept: recordings that this threshold alone keeps.
    """

    name: str
    unit: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    threshold_name: str | None
    threshold: float | None
    num_kept: int


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """What the recordings of a collection sound like.

    Attributes:
        counts: recordings per label, the commonest first.
        num_unlabelled: recordings without one: silent, or probed where there was no classifier.
        allowed: labels that pass; every one when empty.
        num_kept: recordings that this alone keeps, those without a label included.
    """

    counts: Mapping[str, int]
    num_unlabelled: int
    allowed: tuple[str, ...]
    num_kept: int


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What the probes of a collection found.

    Attributes:
        num_probed: recordings that were judged.
        decisions: how many were kept and refused, at the thresholds of their time.
        stages: how many were judged by ranges and as a whole.
        num_kept_now: how many all thresholds and labels of today would keep.
        num_bytes: fetched for the probes by ranges.
        measures: one histogram each.
        labels: what the recordings sound like.
    """

    num_probed: int
    decisions: Mapping[str, int]
    stages: Mapping[str, int]
    num_kept_now: int
    num_bytes: int
    measures: tuple[MeasureHistogram, ...]
    labels: LabelCounts


def probe_report(session: Session, collection_id: str, settings: ProbeSettings) -> ProbeReport:
    """Read every probe of a collection once."""
    values: list[list[float]] = []
    labels: list[str | None] = []
    decisions: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    num_bytes = 0
    rows = session.execute(
        select(Probe.measurements, Probe.decision, Probe.stage, Probe.num_bytes)
        .join(Item, Item.id == Probe.item_id)
        .where(Item.collection_id == collection_id)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    for measurements, decision, stage, size in rows:
        values.append([float(measurements[name]) for name, *_ in _MEASURES])
        labels.append(measurements.get("label"))
        decisions[decision] += 1
        stages[stage] += 1
        num_bytes += size if stage == "ranges" else 0
    table = np.array(values, dtype=np.float64).reshape(-1, len(_MEASURES))
    kept = np.ones(table.shape, dtype=bool)
    for column, (_, _, threshold, _) in enumerate(_MEASURES):
        kept[:, column] = _is_kept(table[:, column], threshold, settings)
    measures = tuple(
        _histogram(table[:, column], kept[:, column], column, settings) for column in range(table.shape[1])
    )
    is_allowed = np.array([_is_allowed(label, settings) for label in labels], dtype=bool)
    num_kept_now = int((kept.all(axis=1) & is_allowed).sum())
    counted = _counted(labels, int(is_allowed.sum()), settings)
    return ProbeReport(len(table), decisions, stages, num_kept_now, num_bytes, measures, counted)


def _is_allowed(label: str | None, settings: ProbeSettings) -> bool:
    return label is None or not settings.allowed_labels or label in settings.allowed_labels


def _counted(labels: Sequence[str | None], num_kept: int, settings: ProbeSettings) -> LabelCounts:
    counts = Counter(label for label in labels if label is not None)
    ordered = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
    return LabelCounts(ordered, labels.count(None), settings.allowed_labels, num_kept)


def _is_kept(values: NDArray[np.float64], threshold: str | None, settings: ProbeSettings) -> NDArray[np.bool_]:
    if threshold is None:
        return np.ones(len(values), dtype=bool)
    bound = float(getattr(settings, threshold))
    return values >= bound if threshold.startswith("min_") else values <= bound


def _histogram(
    values: NDArray[np.float64], kept: NDArray[np.bool_], column: int, settings: ProbeSettings
) -> MeasureHistogram:
    name, unit, threshold, (low, high) = _MEASURES[column]
    if not unit.startswith("dB"):
        high = max(high, float(values.max(initial=high)))
    counts, edges = np.histogram(np.clip(values, low, high), bins=_NUM_BINS, range=(low, high))
    return MeasureHistogram(
        name=name,
        unit=unit,
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
        threshold_name=threshold,
        threshold=None if threshold is None else float(getattr(settings, threshold)),
        num_kept=int(kept.sum()),
    )
