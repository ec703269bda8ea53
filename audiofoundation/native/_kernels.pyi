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
    zero: float,
    shapes: _Array,
    bands: _Array,
    power: _Array,
    /,
) -> tuple[int, float]: ...
def survey(samples: _Array, frame: int, energies: _Array, /) -> tuple[float, float, float]: ...
def halve(values: _Array, out: _Array, /) -> int: ...
def step_energies(
    samples: _Array, step: int, warm_up: int, numerator: _Array, denominator: _Array, out: _Array, /
) -> None: ...
def griffin_lim(hop: int, num_iterations: int, momentum: float, /, *arrays: _Array) -> None: ...
def project(x: _Array, weights: _Array, bias: _Array, out: _Array, /) -> None: ...
def decode_block(
    length: int, num_heads: int, num_kv_heads: int, hidden: int, epsilon: float, /, *arrays: _Array
) -> int: ...
def convnext_block(hidden: int, epsilon: float, /, *arrays: _Array) -> None: ...
def libav_load(paths: tuple[bytes, bytes, bytes], majors: tuple[int, int, int], /) -> None: ...
def libav_warm_up(decoder: str, /) -> None: ...
def libav_open(
    fd: int, demuxer: str, options: tuple[tuple[str, str], ...], /
) -> tuple[object, bool, str, str | None, float, float, int]: ...
def libav_start(recording: object, /) -> tuple[int, int, tuple[str, ...]] | None: ...
def libav_read(
    recording: object, block: _Array, is_mixed: bool, loudest: float, clipped: _Array, /
) -> tuple[int, int, int, str]: ...
def use_lanes(wanted: int, /) -> int: ...
