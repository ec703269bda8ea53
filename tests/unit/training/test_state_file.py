"""Training states on disk."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audiofoundation.errors import CheckpointInvalid
from audiofoundation.training.state_file import read_state, write_state
from audiofoundation.training.trainer import NumericFailure, TrainerConfig, TrainState, create_state, train_step

CONFIG = TrainerConfig(num_steps=10, precision="fp32")


class LineObjective:
    """Fits a line: small enough to look at."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Linear(3, 1)
        self.parts: Mapping[str, nn.Module] = {"model": self.model}

    def phases(self, step: int) -> tuple[str, ...]:  # noqa: ARG002
        return ("model",)

    def losses(self, phase: str, step: int) -> dict[str, Tensor]:  # noqa: ARG002
        x = torch.randn(8, 3)
        return {"total": (self.model(x) - x.sum(1, keepdim=True)).square().mean()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:  # noqa: ARG002
        return {}


def trained(num_steps: int) -> TrainState:
    state = create_state(LineObjective(), CONFIG)
    for _ in range(num_steps):
        train_step(state, CONFIG)
    return state


def test_everything_comes_back(tmp_path: Path) -> None:
    state, path = trained(3), tmp_path / "s.safetensors"
    write_state(state, path, recipe="r")
    loaded = trained(0)
    read_state(loaded, path, recipe="r")
    assert loaded.step == 3
    assert loaded.losses == state.losses
    train_step(state, CONFIG)
    train_step(loaded, CONFIG)
    assert all(
        torch.equal(a, b)
        for a, b in zip(state.objective.model.parameters(), loaded.objective.model.parameters(), strict=True)
    )


@pytest.mark.parametrize("damage", ["cut", "flipped header", "empty", "text"])
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    write_state(trained(1), path, recipe="r")
    data = path.read_bytes()
    changed = {"cut": data[:-7], "flipped header": b"\xff" * 16 + data[16:], "empty": b"", "text": b"hello"}[damage]
    path.write_bytes(changed)
    with pytest.raises(CheckpointInvalid):
        read_state(trained(0), path, recipe="r")


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    write_state(trained(1), path, recipe="r")
    with pytest.raises(CheckpointInvalid, match="another recipe"):
        read_state(trained(0), path, recipe="other")


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    state, path = trained(1), tmp_path / "s.safetensors"
    with torch.no_grad():
        next(state.objective.model.parameters())[0, 0] = torch.nan
    with pytest.raises(NumericFailure):
        write_state(state, path, recipe="r")
    assert not path.exists()
