"""Training states as safetensors: tensors by path, everything else as JSON in the header. No code is run."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from audiofoundation.errors import CheckpointInvalid
from audiofoundation.training.trainer import NumericFailure, TrainState

_METADATA = "audiofoundation_state"
_FORMAT = 1


def write_state(state: TrainState, path: Path, *, recipe: str) -> None:
    """Write everything that a resumed run needs; the file is on disk when this returns.

    Args:
        state: the state.
        path: a new file.
        recipe: identity of what is trained on what; a reader with another one is refused.

    Raises:
        NumericFailure: a weight is not finite; nothing was written.
    """
    tensors: dict[str, Tensor] = {}
    tree = _pack(state.state_dict(), "", tensors)
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise NumericFailure(f"{name} is not finite at step {state.step}; the last checkpoint is the last good one")
    header = json.dumps({"format": _FORMAT, "recipe": recipe, "tree": tree})
    save_file(tensors, path, metadata={_METADATA: header})
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_state(state: TrainState, path: Path, *, recipe: str) -> None:
    """Load what `write_state` wrote.

    Raises:
        CheckpointInvalid: the file is damaged or of another recipe.
    """
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})[_METADATA])
            found = header.get("recipe")
            if header.get("format") != _FORMAT or found != recipe:
                raise CheckpointInvalid(f"{path.name} is of another recipe, dataset or version ({found})")
            tree = _unpack(header["tree"], file.get_tensor)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointInvalid(f"{path.name} is not a whole checkpoint: {error}") from error
    state.load_state_dict(tree)


def _pack(value: object, path: str, tensors: dict[str, Tensor]) -> list[Any]:
    """Return a JSON description of nested dicts and lists; tensors go into `tensors` under their path."""
    if isinstance(value, Tensor):
        # A copy, since safetensors refuses tensors that share memory.
        tensors[path] = value.detach().to("cpu", copy=True).contiguous()
        return ["tensor", path]
    if isinstance(value, dict):
        return ["dict", [[key, _pack(item, f"{path}/{key}", tensors)] for key, item in value.items()]]
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, [_pack(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]]
    if value is None or isinstance(value, bool | int | float | str):
        return ["plain", value]
    raise TypeError(f"{path} is a {type(value).__name__}, which a checkpoint cannot hold")


def _unpack(packed: list[Any], tensor: Callable[[str], Tensor]) -> Any:
    kind, content = packed
    if kind == "tensor":
        return tensor(content)
    if kind == "dict":
        return {key: _unpack(item, tensor) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_unpack(item, tensor) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content
