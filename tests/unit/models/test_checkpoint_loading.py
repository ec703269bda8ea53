"""What the loader of models refuses, and that refusing takes no memory."""

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from audiofoundation.errors import CheckpointInvalid
from audiofoundation.models import checkpoint
from audiofoundation.models.checkpoint import load_model
from audiofoundation.settings import ModelSettings

Config = dict[str, object]
Tensors = dict[str, torch.Tensor]
BUNDLED = ModelSettings().pretrained_dir / "tiny" / "model.safetensors"


def changed(path: Path, change: Callable[[Config, Tensors], object]) -> Path:
    """Write the bundled model with a change to its settings or its weights."""
    with safe_open(BUNDLED, "pt") as file:
        header = json.loads(file.metadata()["audiofoundation"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(header["config"], tensors)
    save_file(tensors, path, metadata={"audiofoundation": json.dumps(header)})
    return path


@pytest.mark.parametrize(
    "values",
    [
        {"width": 1 << 40},
        {"hidden": 16384, "width": 16384},
        {"num_layers": 10**9},
        {"num_layers": 7},
        {"head_blocks": 10**9},
        {"num_layers": "many"},
        {"width": -1},
        {"depth": 3},
    ],
)
def test_settings_that_are_not_the_weights_are_refused_before_memory_is_taken(
    values: dict[str, object], tmp_path: Path
) -> None:
    path = changed(tmp_path / "model.safetensors", lambda config, _: config.update(values))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(CheckpointInvalid):
        load_model(path)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 256 << 10


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(checkpoint._MAX_BYTES + 1)  # sparse: it takes no disk

    with pytest.raises(CheckpointInvalid, match="larger than"):
        load_model(path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path = changed(tmp_path / "model.safetensors", lambda _, tensors: tensors.pop("mean_F"))

    with pytest.raises(CheckpointInvalid, match="mean_F"):
        load_model(path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = changed(
        tmp_path / "model.safetensors", lambda _, tensors: tensors.update(std_F=torch.full((100,), torch.nan))
    )

    with pytest.raises(CheckpointInvalid, match="finite"):
        load_model(path)
