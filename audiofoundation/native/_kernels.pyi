from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]
INTERFACE: int
NUM_LANES: int

def band_energies(
    samples: _Array,
    hop: int,
    window: _Array,
    tables: _Array,
    first: _Array,
    count: _Array,
    weights: _Array,
    power: int,
    epsilon: float,
    out: _Array,
    /,
) -> None: ...
def describe(
    samples: _Array,
    hop: int,
    window: _Array,
    tables: _Array,
    first: _Array,
    count: _Array,
    weights: _Array,
    rolloff_share: float,
    shapes: _Array,
    bands: _Array,
    power: _Array,
    /,
) -> None: ...
def step_energies(
    samples: _Array, step: int, warm_up: int, numerator: _Array, denominator: _Array, out: _Array, /
) -> None: ...
def mix(out: _Array, start: int, count: int, planes: tuple[object, ...], loudest: float, /) -> int: ...
def use_lanes(wanted: int, /) -> int: ...
