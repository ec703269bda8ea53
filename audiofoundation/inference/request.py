"""What a caller may ask of the engine."""

import math
from dataclasses import dataclass

from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import InvalidRequest

MAX_TEMPERATURE = 2.0
DEFAULT_DURATION_S = 5.0
MAX_SEED = 2**63 - 1
MAX_CONTINUATIONS = 8


@dataclass(frozen=True, slots=True)
class ContinuationRequest:
    """Continue a recording.

    Attributes:
        prompt: the recording, any rate and number of channels.
        duration_s: how much to generate; None is until cancelled or `max_generated_s`.
        prompt_start_s: where the part of the recording to continue begins.
        prompt_end_s: where it ends; None is the end of the recording.
        temperature: spread of the sampling in [0, 2]; None is the model's own choice.
        cfg_coef: classifier-free guidance; only 1 until a model is trained with conditions.
        seed: the same seed and prompt always give the same samples.
        include_prompt: whether the answer begins with the prompt.
        model: a model's name; None is the best one at hand.
    """

    prompt: Waveform
    duration_s: float | None = DEFAULT_DURATION_S
    prompt_start_s: float = 0.0
    prompt_end_s: float | None = None
    temperature: float | None = None
    cfg_coef: float = 1.0
    seed: int = 0
    include_prompt: bool = False
    model: str | None = None

    def validate(self, *, max_generated_s: float) -> None:
        """Raise InvalidRequest, naming the field, when a value is out of range."""
        _check_duration(self.duration_s, max_generated_s)
        if self.temperature is not None and not 0 <= self.temperature <= MAX_TEMPERATURE:
            raise InvalidRequest(
                f"temperature must lie between 0 and {MAX_TEMPERATURE:g}, not {self.temperature}",
                param="temperature",
            )
        if self.cfg_coef != 1:
            raise InvalidRequest(
                "cfg_coef must be 1: the models here were trained without conditions, so there is nothing to guide by",
                param="cfg_coef",
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise InvalidRequest(f"seed must lie between 0 and {MAX_SEED}, not {self.seed}", param="seed")

    def selected_range(self) -> range:
        """Return the samples of the recording to continue, at its own rate.

        Raises:
            InvalidRequest: the part named is empty or lies outside the recording.
        """
        rate, length = self.prompt.sample_rate_hz, self.prompt.num_samples
        start_s, end_s = self.prompt_start_s, self.prompt_end_s
        if not (math.isfinite(start_s) and start_s >= 0):
            raise InvalidRequest(f"prompt_start_seconds must be 0 or more, not {start_s}", param="prompt_start_seconds")
        if end_s is not None and not (math.isfinite(end_s) and end_s > start_s):
            raise InvalidRequest(
                f"prompt_end_seconds must lie after prompt_start_seconds ({start_s:g}), not {end_s}",
                param="prompt_end_seconds",
            )
        whole_s = length / rate  # limits first: a number like 1e308 times a rate is none
        start = round(min(start_s, whole_s) * rate)
        end = length if end_s is None else round(min(end_s, whole_s) * rate)
        if start >= end:
            raise InvalidRequest(
                f"the recording is {whole_s:.2f} s long, so nothing of it lies after "
                f"prompt_start_seconds = {start_s:g}",
                param="prompt_start_seconds",
            )
        return range(start, end)


def _check_duration(duration_s: float | None, max_generated_s: float) -> None:
    if duration_s is None:
        return
    if not (math.isfinite(duration_s) and 0 < duration_s <= max_generated_s):
        raise InvalidRequest(
            f"duration must be more than 0 and at most {max_generated_s:g} seconds, not {duration_s}",
            param="duration",
        )
