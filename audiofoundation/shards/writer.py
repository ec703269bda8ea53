"""Writing one shard: a WebDataset tar, byte for byte the same for the same samples."""

import hashlib
import tarfile
from dataclasses import dataclass
from functools import lru_cache
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
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 135), slice(148, 154)  # fields of a tar header, without their ends
_Part = bytes | memoryview


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
        parts = _member(f"{sample.key}.{JSON_SUFFIX}", sample.meta.model_dump_json().encode())
        parts += _member(f"{sample.key}.{MEL_SUFFIX}", *_npy_parts(sample.mel_TF))
        if sample.waveform is not None:
            parts += _member(f"{sample.key}.{WAVE_SUFFIX}", *_npy_parts(sample.waveform))
        members = b"".join(parts)
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


def _member(name: str, *content: _Part) -> tuple[_Part, ...]:
    """Return the parts of a tar member.

    Raises:
        ValueError: the name is longer than 100 characters, or not of ASCII.
    """
    num_bytes = sum(len(part) for part in content)
    header = bytearray(_empty_header())
    common = int(header[_CHECKSUM], 8) - sum(header[_NAME]) - sum(header[_SIZE])
    header[_NAME] = name.encode("ascii").ljust(100, b"\0")
    header[_SIZE] = b"%011o" % num_bytes
    header[_CHECKSUM] = b"%06o" % (common + sum(header[_NAME]) + sum(header[_SIZE]))
    if len(header) != _BLOCK_BYTES:
        raise ValueError(f"{name!r} of {num_bytes} bytes does not fit a tar header")
    return bytes(header), *content, bytes(-num_bytes % _BLOCK_BYTES)


@lru_cache(maxsize=1)
def _empty_header() -> bytes:
    """Return a header without name and size: filling them in takes a fifth of what `tarfile` takes for each."""
    header = tarfile.TarInfo()
    header.mode = 0o444
    return header.tobuf(tarfile.USTAR_FORMAT)


def _npy_parts(array: NDArray[np.generic]) -> tuple[bytes, memoryview]:
    """Return header and data of the array in NumPy's own format, version 1.0."""
    array = np.ascontiguousarray(array)
    return _npy_header(array.dtype, array.shape), array.reshape(-1).view(np.uint8).data


@lru_cache(maxsize=64)
def _npy_header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    form = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, form)
    return buffer.getvalue()
