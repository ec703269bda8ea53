"""The operator's own features: loaded once by the worker, measured on every segment of the datasets that name them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import structlog
from billiard.common import terminate_handler_fired
from billiard.exceptions import SoftTimeLimitExceeded

from audiofoundation.errors import FeatureFailed, InvalidRequest, ModelNotReady
from audiofoundation.features.custom import (
    FeatureFunction,
    FeatureLengths,
    FeatureValue,
    load_function,
    measure_feature,
)
from audiofoundation.features.descriptors import Descriptors
from audiofoundation.features.mel import Float32
from audiofoundation.identifiers import ItemId
from audiofoundation.settings import CustomFeature

_STANDARD = frozenset(each.name for each in fields(Descriptors))

_log = structlog.get_logger(__name__)


def load_functions(features: Sequence[CustomFeature]) -> dict[str, FeatureFunction]:
    """Import the functions that the settings name.

    Raises:
        InvalidRequest: one cannot be imported, or has the name of a descriptor that every segment has.
    """
    for feature in features:
        if feature.name in _STANDARD:
            raise InvalidRequest(
                f"AF_PREPROCESS__CUSTOM_FEATURES names a feature {feature.name!r}, which every segment has already: "
                "give it another name"
            )
    return {feature.name: load_function(feature.name, feature.module, feature.function) for feature in features}


def functions_for(names: Sequence[str], known: Mapping[str, FeatureFunction]) -> dict[str, FeatureFunction]:
    """Return the functions that a dataset was asked for with.

    Raises:
        ModelNotReady: this worker has not all of them; another may, or it itself once it was started again.
    """
    missing = sorted(set(names) - set(known))
    if missing:
        raise ModelNotReady(
            f"this worker has no function for the dataset's custom features {', '.join(missing)}: name them in "
            "AF_PREPROCESS__CUSTOM_FEATURES of every preprocess worker, start these again and ask for the dataset again"
        )
    return {name: known[name] for name in names}


@dataclass(frozen=True, slots=True)
class RecordingFeatures:
    """Measures the segments of one recording. Where a function fails, the segment is without that feature.

    Attributes:
        item_id: the recording, for the log.
        functions: by the features' names.
    """

    item_id: ItemId
    functions: Mapping[str, FeatureFunction]
    _lengths: FeatureLengths = field(default_factory=FeatureLengths)
    _reasons: dict[str, str] = field(default_factory=dict)  # of each feature's first failure
    _failures: Counter[str] = field(default_factory=Counter)

    def measure(self, samples: Float32, sample_rate_hz: int) -> dict[str, FeatureValue]:
        """Return what the functions say of a mono segment [N]."""
        found: dict[str, FeatureValue] = {}
        for name, function in self.functions.items():
            try:
                value = measure_feature(name, function, samples, sample_rate_hz)
                self._lengths.admit({name: value})
            except FeatureFailed as error:
                if (over := _time_limit_of(error)) is not None:
                    raise over from None  # it is the job's time that is over
                if terminate_handler_fired():
                    raise SystemExit from error  # it is this worker that was told to leave, in the midst of a function
                self._reasons.setdefault(name, error.message)
                self._failures[name] += 1
            else:
                found[name] = value
        return found

    def log_failures(self) -> None:
        """Write one warning for each feature that failed, with the number of segments that are without it."""
        for name, reason in self._reasons.items():
            _log.warning(
                "custom_feature_failed",
                feature=name,
                item_id=self.item_id,
                num_segments=self._failures[name],
                error=reason,
            )


def _time_limit_of(error: BaseException | None) -> SoftTimeLimitExceeded | None:
    """Return the end of the job's time, also where the function has wrapped it into another error."""
    seen = set[int]()  # what a function raises may name itself as its cause
    while error is not None and not isinstance(error, SoftTimeLimitExceeded):
        if id(error) in seen:
            return None
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return error
