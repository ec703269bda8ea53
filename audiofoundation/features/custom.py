"""Features that a user's own functions measure: numbers, or rows of numbers of a fixed length."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from audiofoundation.errors import FeatureFailed, InvalidRequest
from audiofoundation.features.mel import Float32

FeatureValue = float | list[float]
_Number = float | np.generic
FeatureFunction = Callable[[Float32, int], _Number | Sequence[_Number] | NDArray[np.generic]]

_NUMBERS = "biuf"  # NumPy's kinds of real numbers
_MAX_MESSAGE = 300
_MAX_NUMBERS = 4096


def load_function(feature: str, module: str, function: str) -> FeatureFunction:
    """Import a feature's function by name; the module's code runs.

    Raises:
        InvalidRequest: the module cannot be imported, or has no such function.
    """
    try:
        found: FeatureFunction = getattr(import_module(module), function)
    except BaseException as error:  # whatever somebody else's module raises
        if _is_not_theirs(error):
            raise
        reason = _in_one_line(error)
        raise InvalidRequest(f"the feature {feature!r} cannot be loaded from {module}:{function}: {reason}") from error
    if not callable(found):
        raise InvalidRequest(f"the feature {feature!r} cannot be loaded: {module}:{function} is no function")
    return found


def measure_custom(
    samples: Float32, sample_rate_hz: int, functions: Mapping[str, FeatureFunction]
) -> dict[str, FeatureValue]:
    """Return what each function says of a mono recording [N].

    Raises:
        FeatureFailed: as `measure_feature`, of the first that fails.
    """
    return {name: measure_feature(name, function, samples, sample_rate_hz) for name, function in functions.items()}


def measure_feature(name: str, function: FeatureFunction, samples: Float32, sample_rate_hz: int) -> FeatureValue:
    """Return what a function says of a mono recording [N], of which it gets a copy.

    Raises:
        FeatureFailed: the function raised, be it SystemExit, or gave something else than a finite number or a flat
            sequence of such. Who is himself told to leave by SystemExit looks whether it was that.
    """
    try:
        given = function(samples.copy(), sample_rate_hz)
        values = np.asarray(given)
    except BaseException as error:  # whatever somebody else's function raises
        if _is_not_theirs(error):
            raise
        raise FeatureFailed(name, f"failed: {_in_one_line(error)}") from error
    if values.size > _MAX_NUMBERS:
        raise FeatureFailed(name, f"gave {values.size} numbers: {_MAX_NUMBERS} are the most")
    if values.dtype.kind not in _NUMBERS or values.ndim > 1 or not values.size:
        kind = f"an array of shape {values.shape}" if values.ndim > 1 or not values.size else type(given).__name__
        raise FeatureFailed(name, f"gave {kind}: it must be a number or a flat sequence of numbers")
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        place = "" if numbers.ndim == 0 else f" at place {np.flatnonzero(~np.isfinite(numbers))[0]}"
        raise FeatureFailed(name, f"gave {numbers[~np.isfinite(numbers)][0]}{place}: numbers must be finite")
    found: FeatureValue = numbers.tolist()
    return found


@dataclass(frozen=True, slots=True)
class FeatureLengths:
    """How many numbers each feature has: as many as when it was first admitted."""

    _first: dict[str, int | None] = field(default_factory=dict)  # None: one number by itself

    def admit(self, values: Mapping[str, FeatureValue]) -> None:
        """Check values by their names, and remember the lengths of names that are new.

        Raises:
            FeatureFailed: one is not as long as before; nothing is remembered then.
        """
        lengths = {name: len(value) if isinstance(value, list) else None for name, value in values.items()}
        for name, length in lengths.items():
            first = self._first.get(name, length)
            if length != first:
                raise FeatureFailed(name, f"gave {_describe(length)}, but {_describe(first)} the first time")
        self._first.update(lengths)


def _is_not_theirs(error: BaseException) -> bool:
    """Tell what is no fault of somebody's function: want of memory, of which another attempt may have enough, and
    Ctrl-C, where it reaches this process (Celery's children ignore it)."""
    is_deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return isinstance(error, MemoryError) or (isinstance(error, KeyboardInterrupt) and not is_deaf)


def _in_one_line(error: BaseException) -> str:
    try:
        words = " ".join(str(error).split())[:_MAX_MESSAGE]
    except BaseException as fault:  # the words are somebody else's code too
        if _is_not_theirs(fault):
            raise
        words = f"(its message cannot be told: {type(fault).__name__})"
    return f"{type(error).__name__}: {words}".encode(errors="backslashreplace").decode()


def _describe(length: int | None) -> str:
    return "a number by itself" if length is None else f"a sequence of length {length}"
