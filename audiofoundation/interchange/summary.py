"""What a dataset holds, counted, and how it was made."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from audiofoundation.interchange.listing import JsonValue

_PACKAGES = ("audiofoundation", "numpy", "scipy", "av", "pyarrow", "datasets", "transformers", "torch")
_COUNTED = ("style", "emotion", "instruments")


@dataclass(slots=True)
class DatasetSummary:
    """Counts that grow with each sample."""

    num_samples: int = 0
    duration_s: float = 0.0
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in _COUNTED})
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, fields: Mapping[str, JsonValue], scalars: Mapping[str, float]) -> None:
        """Count one sample; `scalars` are its descriptors, `duration` among them."""
        self.num_samples += 1
        self.duration_s += scalars["duration"]
        for name in _COUNTED:
            self.counts[name].update(_labels(fields.get(name)))
        for name, value in scalars.items():
            self.values.setdefault(name, []).append(value)

    def to_json(self, *, num_validation: int, num_skipped: int) -> dict[str, JsonValue]:
        """Return `dataset_summary.json`."""
        distributions: dict[str, JsonValue] = {
            f"{name}_distribution": dict(self.counts[name].most_common()) for name in _COUNTED
        }
        return {
            "samples": self.num_samples,
            "train": self.num_samples - num_validation,
            "validation": num_validation,
            "skipped": num_skipped,
            "total_duration_s": self.duration_s,
            **distributions,
            "audio_features": {name: _statistics(found) for name, found in self.values.items()},
        }


def package_versions() -> dict[str, JsonValue]:
    """Return the versions of what took part, of what is installed."""
    found: dict[str, JsonValue] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _labels(value: JsonValue) -> list[str]:
    if value is None:
        return ["unknown"]
    return [str(label) for label in value] if isinstance(value, list) else [str(value)]


def _statistics(values: Sequence[float]) -> dict[str, JsonValue]:
    found = np.asarray(values)
    return {
        "mean": float(found.mean()),
        "std": float(found.std()),
        "min": float(found.min()),
        "max": float(found.max()),
    }
