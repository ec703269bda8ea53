"""What every encoder does, and the 16-bit rounding that several share."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from audiofoundation.audio.waveform import Samples


class StreamEncoder(Protocol):
    """Turns blocks of samples into bytes of one file; what it returns in all is the file."""

    def push(self, samples: Samples) -> bytes:
        """Take float32 [channels, n] (n may be 0) and return the bytes that are ready."""
        ...

    def finish(self) -> bytes:
        """Return the rest of the file. Nothing may be pushed afterwards."""
        ...


def to_int16(samples: Samples) -> NDArray[np.int16]:
    """Round to 16 bits: full scale 1.0 is 32768, values beyond the range are clipped, NaN is silence.

    The inverse of division by 32768, so that 16-bit audio survives a round trip unchanged.
    """
    scaled = np.nan_to_num(samples * np.float32(32768), nan=0.0, posinf=32767.0, neginf=-32768.0)
    rounded: NDArray[np.int16] = np.clip(np.rint(scaled), -32768, 32767).astype(np.int16)
    return rounded
