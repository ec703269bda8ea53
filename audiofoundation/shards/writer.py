"""Writing one shard: a WebDataset tar, byte for byte the same for the same samples."""

import hashlib
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from audiofoundation.identifiers import Sha256, sha256_of
from audiofoundation.shards.places import SamplePlace, ShardIndex
from audiofoundation.shards.sample import Sample

JSON_SUFFIX, MEL_SUFFIX, WAVE_SUFFIX = "json", "mel.npy", "wave.npy"
_BLOCK_BYTES = 512
_RECORD_BYTES = 20 * _BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What was written. Samples at their rate, not seconds, so that sums are exact."""

    size_bytes: int
    sha256: Sha256
    num_samples: int
    num_audio_samples: int


class ShardWriter:
    """Appends samples to a tar file; `finish` closes it and says what it holds.

    Members of a sample lie together, in the order json, mel, waveform. Times and owners are zero. The hash
    is taken while writing, so that the file is not read again.
    """

    def __init__(self, path: Path) -> None:
        self._places: dict[str, SamplePlace] = {}
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._num_samples = 0
        self._num_audio_samples = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, sample: Sample) -> None:
        """Append one sample."""
        members = _member(f"{sample.key}.{JSON_SUFFIX}", sample.meta.model_dump_json().encode())
        members += _member(f"{sample.key}.{MEL_SUFFIX}", to_npy(sample.mel_TF))
        if sample.waveform is not None:
            members += _member(f"{sample.key}.{WAVE_SUFFIX}", to_npy(sample.waveform))
        self._places[sample.key] = SamplePlace(offset=self._size_bytes, size=len(members), sha256=sha256_of(members))
        self._write(members)
        self._num_samples += 1
        self._num_audio_samples += sample.meta.num_samples

    def finish(self) -> ShardSummary:
        """Close the archive and return its summary."""
        self._write(bytes(2 * _BLOCK_BYTES))
        self._write(bytes(-self._size_bytes % _RECORD_BYTES))
        self._file.close()
        digest = Sha256(self._digest.hexdigest())
        return ShardSummary(self._size_bytes, digest, self._num_samples, self._num_audio_samples)

    def index(self) -> ShardIndex:
        """Return where each sample lies. Call it when `finish` has been called."""
        return ShardIndex(shard_sha256=Sha256(self._digest.hexdigest()), samples=self._places)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size_bytes += len(data)


def _member(name: str, data: bytes) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    header.mode = 0o444
    return b"".join((header.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % _BLOCK_BYTES)))


def to_npy(array: NDArray[np.generic]) -> bytes:
    """Return the array in NumPy's own format, version 1.0."""
    buffer = BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()
