"""`MelClassifier` in NumPy, for what must not carry torch: the ingest worker.

It reads the same file and gives the same scores: `tests/numerics/test_classifier_numpy.py` compares the two, so that
one cannot change without the other.

Shape letters: T frames, F bands, H × W frames and bands in a block, D and E channels in and out, C classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from audiofoundation.errors import CheckpointInvalid
from audiofoundation.features.mel import Float32, MelConfig, get_preset
from audiofoundation.identifiers import sha256_of_stream

_MAX_BYTES = 64 << 20
_MEL_FLOOR = np.float32(-11.512925)  # MEL_FLOOR of the transformer
_NORM_EPSILON = 1e-5  # torch's BatchNorm2d


class _Sizes(BaseModel):
    """The fields of MelClassifierConfig; one more or less is another architecture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[str, ...] = Field(min_length=1)
    preset: str
    num_bands: int = Field(ge=16)
    width: int = Field(ge=1)
    window_frames: int = Field(ge=16, le=2000)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the file."""
        widths = [1, self.width, 2 * self.width, 4 * self.width, 4 * self.width]
        shapes: dict[str, tuple[int, ...]] = {"mean_F": (self.num_bands,), "std_F": (self.num_bands,)}
        for index, (num_in, num_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            shapes[f"blocks.{index}.conv.weight"] = (num_out, num_in, 3, 3)
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"blocks.{index}.norm.{name}"] = (num_out,)
            shapes[f"blocks.{index}.norm.num_batches_tracked"] = ()
        return {**shapes, "out.weight": (len(self.labels), 2 * widths[-1]), "out.bias": (len(self.labels),)}


class _Header(BaseModel):
    """What the file says of itself, as far as it matters here."""

    name: str
    kind: Literal["mel_classifier"]
    mel_fingerprint: str
    config: _Sizes


@dataclass(frozen=True, slots=True)
class NumpyClassifier:
    """A loaded classifier; safe to share between threads and forks.

    Attributes:
        version: `name@` and eight digits of the file's SHA-256, as everywhere.
        labels: in the order of the scores.
        mel_config: the preset it hears.
        window_frames: frames seen at once.
        tensors: the weights by their name in the file; each block's normalisation is folded into its convolution.
    """

    version: str
    labels: tuple[str, ...]
    mel_config: MelConfig
    window_frames: int
    tensors: dict[str, Float32]

    def logits(self, mel_TF: Float32) -> Float32:
        """Map raw log-mels [T, F] (T ≥ 16) to class scores before the softmax, [C]."""
        x_TF = (np.maximum(mel_TF, _MEL_FLOOR) - self.tensors["mean_F"]) / self.tensors["std_F"]
        x_HWD = (x_TF - x_TF.mean())[:, :, None]
        for index in range(4):
            x_HWD = _block(x_HWD, self.tensors[f"blocks.{index}.weight"], self.tensors[f"blocks.{index}.bias"])
        pooled = np.concatenate([x_HWD.mean(axis=(0, 1)), x_HWD.max(axis=(0, 1))])
        logits: Float32 = self.tensors["out.weight"] @ pooled + self.tensors["out.bias"]
        return logits

    def probabilities(self, mel_TF: Float32) -> Float32:
        """As `logits`, after the softmax: they sum to one."""
        logits = self.logits(mel_TF)
        exponents = np.exp(logits - logits.max())
        probabilities: Float32 = exponents / exponents.sum()
        return probabilities


def load_classifier(path: Path) -> NumpyClassifier:
    """Load a classifier that `save_model` wrote; nothing in the file is executed.

    Raises:
        CheckpointInvalid: it is missing or too large, or its header or weights are not those of this architecture.
        MelMismatch: it was made for a mel preset that has changed since.
    """
    try:
        with path.open("rb") as stream:
            if path.stat().st_size > _MAX_BYTES:
                raise CheckpointInvalid(f"{path} is larger than a classifier can be ({_MAX_BYTES >> 20} MiB)")
            sha256 = sha256_of_stream(stream)
        with safe_open(path, "np") as file:
            header = _Header.model_validate_json((file.metadata() or {})["audiofoundation"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error.strerror}") from error
    except (SafetensorError, KeyError, TypeError, ValidationError) as error:
        raise CheckpointInvalid(f"{path} is not a classifier of Audio Foundation: {error}") from error
    sizes, mel_config = header.config, get_preset(header.config.preset)
    mel_config.require(header.mel_fingerprint, what=f"model {header.name}")
    if sizes.num_bands != mel_config.num_bands or {key: t.shape for key, t in tensors.items()} != sizes.shapes:
        raise CheckpointInvalid(f"the weights of {path} do not fit its configuration")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise CheckpointInvalid(f"{path} holds weights that are not finite")
    version = f"{header.name}@{sha256[:8]}"
    return NumpyClassifier(version, sizes.labels, mel_config, sizes.window_frames, _folded(tensors))


def _folded(tensors: dict[str, Float32]) -> dict[str, Float32]:
    """Return what `logits` needs, in float32: per block one matrix [9 D, E] and one bias [E]."""
    found = {key: tensors[key].astype(np.float32) for key in ("mean_F", "std_F", "out.weight", "out.bias")}
    for index in range(4):
        norm = {
            name: tensors[f"blocks.{index}.norm.{name}"].astype(np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        }
        scale_E = norm["weight"] / np.sqrt(norm["running_var"] + _NORM_EPSILON)
        weight_EDHW = tensors[f"blocks.{index}.conv.weight"] * scale_E[:, None, None, None]
        found[f"blocks.{index}.weight"] = weight_EDHW.reshape(len(scale_E), -1).T.astype(np.float32)
        found[f"blocks.{index}.bias"] = (norm["bias"] - norm["running_mean"] * scale_E).astype(np.float32)
    return found


def _block(x_HWD: Float32, weight_KE: Float32, bias_E: Float32) -> Float32:
    """A 3 × 3 convolution, rectified, of which the largest value of every 2 × 2 is kept: [H / 2, W / 2, E]."""
    height, width, _ = x_HWD.shape
    patches_HWDyx = sliding_window_view(np.pad(x_HWD, ((1, 1), (1, 1), (0, 0))), (3, 3), axis=(0, 1))
    out = (patches_HWDyx.reshape(height * width, -1) @ weight_KE + bias_E).reshape(height, width, -1)
    even = out[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, -1)
    pooled: Float32 = np.maximum(even.max(axis=(1, 3)), 0)
    return pooled
