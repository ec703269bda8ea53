"""The loop: what it does with gradients that are not finite."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from audiofoundation.training.trainer import NumericFailure, TrainerConfig, TrainState, create_state, fit

CONFIG = TrainerConfig(num_steps=12, precision="fp32", save_every_s=0.0)


class PoisonedObjective:
    """Gives losses that are not finite at some steps."""

    def __init__(self, poisoned: set[int]) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Linear(2, 1)
        self.parts: Mapping[str, nn.Module] = {"model": self.model}
        self.poisoned = poisoned

    def phases(self, step: int) -> tuple[str, ...]:  # noqa: ARG002
        return ("model",)

    def losses(self, phase: str, step: int) -> dict[str, Tensor]:  # noqa: ARG002
        loss = self.model(torch.randn(4, 2)).square().mean()
        return {"total": loss * torch.nan if step in self.poisoned else loss}

    def evaluate(self, model: nn.Module) -> dict[str, float]:  # noqa: ARG002
        return {}


def is_finite(state: TrainState) -> bool:
    modules = (state.objective.model, state.ema)
    return all(torch.isfinite(value).all() for module in modules for value in module.state_dict().values())


def test_a_poisoned_step_changes_nothing_and_is_counted() -> None:
    state, saved = create_state(PoisonedObjective({4, 5}), CONFIG), list[bool]()
    fit(state, CONFIG, save=lambda s: saved.append(is_finite(s)), report=lambda _: None)
    assert state.step == 12
    assert state.num_skipped == 2
    assert saved
    assert all(saved)


def test_poison_that_stays_ends_the_run_before_anything_is_saved() -> None:
    state, saved = create_state(PoisonedObjective(set(range(3, 99))), CONFIG), list[int]()
    with pytest.raises(NumericFailure):
        fit(state, CONFIG, save=lambda s: saved.append(s.step), report=lambda _: None)
    assert is_finite(state)
    assert max(saved) <= 3
