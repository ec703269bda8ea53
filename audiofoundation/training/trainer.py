"""The training loop. Objectives compute losses; the trainer alone steps, averages, saves and resumes.

A step depends on the parameters, the optimizers and `(seed, step)` alone: data windows, dropout and noise
are drawn from generators seeded with these two. So a resumed run equals an uninterrupted one bitwise on a CPU.
"""

import contextlib
import copy
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from audiofoundation.errors import AudioFoundationError, CheckpointInvalid

MAX_BAD_STEPS = 3


class NumericFailure(AudioFoundationError):
    """Gradients stayed non-finite; the last checkpoint is the last good one."""


class Objective(Protocol):
    """A thing to train.

    Attributes:
        model: what is averaged, evaluated and served.
        parts: trainable modules by phase name; every phase has an optimizer of its own.
    """

    model: nn.Module
    parts: Mapping[str, nn.Module]

    def phases(self, step: int) -> Sequence[str]:
        """Return the phases of this step, in order."""
        ...

    def losses(self, phase: str, step: int) -> dict[str, Tensor]:
        """Return named scalar losses of a phase; `total` is the one to descend."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return metrics on held-out data."""
        ...


@dataclass(frozen=True, slots=True)
class TrainerConfig:
    """How to train.

    Attributes:
        num_steps: steps in all.
        learning_rate: after warm-up; it falls linearly to zero over the last `decay` of the steps.
        warmup_steps: linear warm-up.
        decay: share of the steps over which the rate falls (warm-up, stable, decay).
        betas: of AdamW.
        weight_decay: on matrices only.
        clip_norm: gradient norm limit.
        ema: decay of the average of the weights, ramped up from the start.
        seed: of everything random.
        precision: `fp32` or `bf16` (autocast).
        device: torch device.
        evaluate_every: steps between evaluations; 0 never.
        save_every_s: seconds between checkpoints.
    """

    num_steps: int
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    decay: float = 0.25
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: str = "bf16"
    device: str = "cpu"
    evaluate_every: int = 500
    save_every_s: float = 120.0

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step: warm-up, stable, linear decay to zero."""
        rising = (step + 1) / max(1, self.warmup_steps)
        falling = (self.num_steps - step) / max(1.0, self.decay * self.num_steps)
        return self.learning_rate * min(1.0, rising, falling)


@dataclass(slots=True)
class TrainState:
    """Everything a resumed run needs."""

    objective: Objective
    ema: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    step: int = 0
    num_skipped: int = 0
    losses: dict[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, object]:
        return {
            "step": self.step,
            "num_skipped": self.num_skipped,
            "losses": dict(self.losses),
            "ema": self.ema.state_dict(),
            "parts": {name: part.state_dict() for name, part in self.objective.parts.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        try:
            self._load(state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointInvalid(f"the checkpoint does not fit this recipe: {error}") from error

    def _load(self, state: dict[str, object]) -> None:
        self.step, self.num_skipped = int(state["step"]), int(state["num_skipped"])  # type: ignore[call-overload]
        self.losses = dict(state["losses"])  # type: ignore[call-overload]
        self.ema.load_state_dict(state["ema"])  # type: ignore[arg-type]
        for name, part in self.objective.parts.items():
            part.load_state_dict(state["parts"][name])  # type: ignore[index]
            self.optimizers[name].load_state_dict(state["optimizers"][name])  # type: ignore[index]


@dataclass(frozen=True, slots=True)
class Progress:
    """What is told after every step."""

    step: int
    num_steps: int
    losses: Mapping[str, float]
    metrics: Mapping[str, float]
    seconds_per_step: float


def create_state(objective: Objective, config: TrainerConfig) -> TrainState:
    """Return the state of a run that has not begun."""
    for part in objective.parts.values():
        part.to(config.device)
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.AdamW(_decay_groups(part, config.weight_decay), config.learning_rate, config.betas)
        for name, part in objective.parts.items()
    }
    ema = copy.deepcopy(objective.model).eval().requires_grad_(False)
    return TrainState(objective, ema, optimizers)


def _decay_groups(part: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    parameters = [p for p in part.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def fit(
    state: TrainState,
    config: TrainerConfig,
    *,
    save: Callable[[TrainState], None],
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train until `num_steps`, saving on the way, or until `should_stop` says so (then it saves and returns).

    Raises:
        NumericFailure: gradients were non-finite four steps running; nothing bad was saved.
    """
    saved_at, bad_steps = time.monotonic(), 0
    while state.step < config.num_steps and not should_stop():
        started = time.monotonic()
        is_good = train_step(state, config)
        bad_steps = 0 if is_good else bad_steps + 1
        if bad_steps > MAX_BAD_STEPS:
            raise NumericFailure(f"gradients were not finite for {bad_steps} steps up to step {state.step}")
        metrics: dict[str, float] = {}
        is_last = state.step == config.num_steps
        if config.evaluate_every and (state.step % config.evaluate_every == 0 or is_last):
            metrics = state.objective.evaluate(state.ema)
        report(Progress(state.step, config.num_steps, state.losses, metrics, time.monotonic() - started))
        if time.monotonic() - saved_at > config.save_every_s and not is_last and not bad_steps:
            save(state)
            saved_at = time.monotonic()
    save(state)


def train_step(state: TrainState, config: TrainerConfig) -> bool:
    """Do one step of every phase; return whether all gradients were finite (others are skipped)."""
    is_good = True
    state.objective.model.train()
    torch.manual_seed(_step_seed(config.seed, state.step))
    for phase in state.objective.phases(state.step):
        optimizer, part = state.optimizers[phase], state.objective.parts[phase]
        with _precision(config):
            losses = state.objective.losses(phase, state.step)
        optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = nn.utils.clip_grad_norm_(part.parameters(), config.clip_norm)
        if not torch.isfinite(norm):
            is_good = False
            continue
        for group in optimizer.param_groups:
            group["lr"] = config.rate_at(state.step)
        optimizer.step()
        state.losses |= {f"{phase}/{name}": float(value.detach()) for name, value in losses.items()}
        state.losses[f"{phase}/gradient_norm"] = float(norm)
    state.step += 1
    state.num_skipped += not is_good
    if is_good:
        _average(state, min(config.ema, (1 + state.step) / (10 + state.step)))
    return is_good


def _step_seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:7], "big")


def _precision(config: TrainerConfig) -> contextlib.AbstractContextManager[object]:
    device_type = config.device.split(":")[0]
    return torch.autocast(device_type, torch.bfloat16, enabled=config.precision == "bf16")


@torch.no_grad()
def _average(state: TrainState, decay: float) -> None:
    values = state.objective.model.state_dict()
    trained = {name for name, _ in state.objective.model.named_parameters()}
    for name, mean in state.ema.state_dict().items():
        if name in trained:
            mean.lerp_(values[name], 1 - decay)
        else:
            mean.copy_(values[name])
