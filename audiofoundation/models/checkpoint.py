"""Model files: safetensors with the configuration as JSON in the header. Nothing in them is executed."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from audiofoundation.errors import CheckpointInvalid
from audiofoundation.features.mel import get_preset
from audiofoundation.identifiers import Sha256, sha256_of_stream
from audiofoundation.models.layers import pack_for_decoding
from audiofoundation.models.registry import KINDS, ModelKind, create_model, kind_of

_MAX_BYTES = 8 << 30
_MAX_SETTING = 1 << 14  # no width or length comes near it
_REPEATS = frozenset({"num_layers", "head_blocks"})  # each has tensors of its own


class ModelHeader(BaseModel):
    """What a model file says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: ModelKind
    task: str
    preset: str
    mel_fingerprint: str
    config: dict[str, object]
    step: int = 0
    run_id: str | None = None
    dataset_version: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode with its header and the hash of its file."""

    module: nn.Module
    header: ModelHeader
    sha256: Sha256

    @property
    def version(self) -> str:
        """`name@` and eight digits of the file's hash: never the same for different weights."""
        return f"{self.header.name}@{self.sha256[:8]}"


def save_model(
    path: Path,
    module: nn.Module,
    *,
    name: str,
    step: int = 0,
    run_id: str | None = None,
    dataset_version: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> ModelHeader:
    """Write a model so that `path` is either the old file or the whole new one; return its header.

    Args:
        path: ends in `.safetensors`.
        module: a registered kind, with its `config`.
        name: the model's name.
        step: training steps behind the weights.
        run_id: the run that made it.
        dataset_version: hash of the data set's manifest.
        dtype: of the stored floating-point weights.
    """
    kind, config = kind_of(module)
    preset = get_preset(config.preset)
    header = ModelHeader(
        name=name,
        kind=kind,
        task=KINDS[kind].task,
        preset=preset.name,
        mel_fingerprint=preset.fingerprint,
        config=json.loads(json.dumps(asdict(config))),
        step=step,
        run_id=run_id,
        dataset_version=dataset_version,
    )
    tensors = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for key, value in module.state_dict().items()
    }
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"audiofoundation": header.model_dump_json()})
    partial.replace(path)
    return header


def read_header(path: Path) -> ModelHeader:
    """Return a model file's header without reading the weights.

    Raises:
        CheckpointInvalid: the file is not one of our model files.
    """
    try:
        with safe_open(path, "pt") as file:
            return ModelHeader.model_validate_json((file.metadata() or {})["audiofoundation"])
    except (SafetensorError, OSError, KeyError, ValidationError) as error:
        raise CheckpointInvalid(f"{path.name} is not an Audio Foundation model file: {error}") from error


def load_model(path: Path, *, sha256: Sha256 | None = None) -> LoadedModel:
    """Load a model file on the CPU in float32, ready to serve.

    Args:
        path: a safetensors file written by `save_model`.
        sha256: the hash the file must have, verified before it is opened.

    Raises:
        CheckpointInvalid: the file's size, its hash, its header or its weights do not fit.
        MelMismatch: it was made for a mel preset that has changed since.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointInvalid(f"{path.name} is larger than a model file may be ({_MAX_BYTES >> 30} GiB)")
    with path.open("rb") as stream:
        actual = sha256_of_stream(stream)
    if sha256 is not None and actual != sha256:
        raise CheckpointInvalid(f"{path.name} has SHA-256 {actual[:16]}…, not {sha256[:16]}… as recorded")
    header = read_header(path)
    get_preset(header.preset).require(header.mel_fingerprint, what=f"model {header.name}")
    try:
        with safe_open(path, "pt") as file:
            _check_shapes({key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}, header)  # noqa: SIM118
            module = create_model(header.kind, header.config)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        module.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointInvalid(f"the weights of {path.name} do not fit its configuration: {error}") from error
    if not all(torch.isfinite(value).all() for value in module.state_dict().values()):
        raise CheckpointInvalid(f"{path.name} holds weights that are not finite")
    pack_for_decoding(module)
    return LoadedModel(module.eval().requires_grad_(False), header, actual)


def _check_shapes(stored: dict[str, tuple[int, ...]], header: ModelHeader) -> None:
    """Compare the file's tensors with the configuration's before any memory is taken for either.

    Raises:
        CheckpointInvalid: they differ, or a setting is beyond reason.
    """
    for name, value in header.config.items():
        if isinstance(value, int) and value > (len(stored) if name in _REPEATS else _MAX_SETTING):
            raise CheckpointInvalid(f"the weights of {header.name} do not fit its configuration: see {name}")
    with torch.device("meta"):
        skeleton = create_model(header.kind, header.config)
    wanted = {key: tuple(value.shape) for key, value in skeleton.state_dict().items()}
    if wanted != stored:
        names = sorted(name for name in wanted.keys() | stored.keys() if wanted.get(name) != stored.get(name))
        raise CheckpointInvalid(f"the weights of {header.name} do not fit its configuration: see {names[0]}")
