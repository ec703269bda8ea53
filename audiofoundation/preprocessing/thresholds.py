"""What a segment must be like to stay in a dataset."""

from dataclasses import asdict, dataclass

from audiofoundation.audio.quality import QualityMeasures
from audiofoundation.errors import InvalidRequest

_LOWEST_DBFS = -120.0  # `audio.quality` measures no less


@dataclass(frozen=True, slots=True)
class QualityThresholds:
    """Bounds on what `audio.quality` measures of a segment as it is stored, levelled, and of its clipping before.

    None judges nothing.

    Attributes:
        max_silence_ratio: share of 20 ms frames under -60 dBFS, 0 to 1.
        max_clipped_ratio: share of clipped samples in the original's channels (`audio.clipping`), 0 to 1.
        min_rms_dbfs: level, -120 to 0 dBFS.
        min_centroid_hz: average frequency, the spectrum's centre of gravity.
        min_bandwidth_hz: highest frequency within 60 dB of the spectrum's peak.

    Raises:
        InvalidRequest: a threshold is out of range.
    """

    max_silence_ratio: float | None = None
    max_clipped_ratio: float | None = None
    min_rms_dbfs: float | None = None
    min_centroid_hz: float | None = None
    min_bandwidth_hz: float | None = None

    def __post_init__(self) -> None:
        _require("max_silence_ratio", self.max_silence_ratio, 0.0, 1.0)
        _require("max_clipped_ratio", self.max_clipped_ratio, 0.0, 1.0)
        _require("min_rms_dbfs", self.min_rms_dbfs, _LOWEST_DBFS, 0.0)

    def require_audible(self, sample_rate_hz: int) -> None:
        """Raise InvalidRequest where a frequency is none that sound at this rate can have."""
        _require("min_centroid_hz", self.min_centroid_hz, 0.0, sample_rate_hz / 2)
        _require("min_bandwidth_hz", self.min_bandwidth_hz, 0.0, sample_rate_hz / 2)

    def first_missed(self, quality: QualityMeasures) -> str | None:
        """Return the name of the first threshold, in the order above, that a segment misses; None: it stays."""
        if self.max_silence_ratio is not None and quality.silence_ratio > self.max_silence_ratio:
            return "max_silence_ratio"
        if self.max_clipped_ratio is not None and quality.clipped_ratio > self.max_clipped_ratio:
            return "max_clipped_ratio"
        if self.min_rms_dbfs is not None and quality.rms_db < self.min_rms_dbfs:
            return "min_rms_dbfs"
        if self.min_centroid_hz is not None and quality.centroid_hz < self.min_centroid_hz:
            return "min_centroid_hz"
        if self.min_bandwidth_hz is not None and quality.bandwidth_hz < self.min_bandwidth_hz:
            return "min_bandwidth_hz"
        return None

    def to_config(self) -> dict[str, float]:
        """Return the thresholds that judge, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _require(name: str, value: float | None, lowest: float, highest: float) -> None:
    if value is not None and not lowest <= value <= highest:  # NaN lies nowhere
        raise InvalidRequest(f"{name} is {value:g}, it must lie between {lowest:g} and {highest:g}", param=name)
