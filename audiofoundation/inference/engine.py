"""Continue a recording: the streaming generator that every door drains.

Prompt at the model's level → log-mel → model, patch by patch → streaming vocoder, primed with the end of
the prompt → the prompt's own level → limiter → blocks. Nothing here knows HTTP, threads or queues.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from audiofoundation.errors import InternalError
from audiofoundation.features.mel import Float32, MelConfig
from audiofoundation.features.vocoder_protocol import Vocoder, VocoderStream
from audiofoundation.inference.limiter import StreamingLimiter
from audiofoundation.inference.prompt import PreparedPrompt, prepare_prompt
from audiofoundation.inference.request import ContinuationRequest
from audiofoundation.inference.seam import MEASURED_SAMPLES, seam_score

_UNIT_PATCHES = 6
_PRIMING_FRAMES = 24
_SLACK_PATCHES = 6  # more than vocoder and limiter hold back; what is not needed is never made
_LOUDEST = np.float32(8.0)  # ln of the loudest band a full-scale signal gives; an explosion stops here

Check = Callable[[], None]


class MelGenerator(Protocol):
    """An autoregressive model with its state: one stream."""

    def prefill(self, mel: Float32) -> None:
        """Take the prompt's log-mel frames [T, F]."""
        ...

    def next_patch(self) -> Float32:
        """Return the next log-mel frames [P, F]."""
        ...


@runtime_checkable
class PrimableStream(Protocol):
    """A vocoder stream that can start from sound instead of silence."""

    def prime(self, samples: Float32) -> None:
        """Take the samples [N] just before the stream; the next frame is centred one hop before their end."""
        ...


@dataclass(frozen=True, slots=True)
class ContinuationModel:
    """A loaded model, ready to make streams; safe to share between threads.

    Attributes:
        version: `name@` and eight digits of the weights' SHA-256.
        mel_config: the preset it speaks.
        patch_frames: frames per step P.
        loudness_lufs: the level of what it was trained on.
        vocoder: turns its frames into samples.
        create_generator: makes the state of one stream from a seed and a temperature (None: its own).
    """

    version: str
    mel_config: MelConfig
    patch_frames: int
    loudness_lufs: float
    vocoder: Vocoder
    create_generator: Callable[[int, float | None], MelGenerator]

    @property
    def patch_samples(self) -> int:
        return self.patch_frames * self.mel_config.hop_length


def never_stop() -> None:
    """The check of a caller that waits to the end."""


class Continuation:
    """One continuation under way. Iterate `blocks` once.

    Attributes:
        model_version: which weights answer.
        sample_rate_hz: of the blocks.
        num_samples: in all blocks together, set before the first block is given.
        seam_score: in (0, 1], set before the first block is given; None when the prompt is too short to judge.
    """

    def __init__(self, request: ContinuationRequest, model: ContinuationModel, *, max_generated_s: float) -> None:
        request.validate(max_generated_s=max_generated_s)
        request.selected_range()
        self.model_version = model.version
        self.sample_rate_hz = model.mel_config.sample_rate_hz
        self.seam_score: float | None = None
        self.num_samples = 0
        self._request, self._model = request, model
        duration_s = max_generated_s if request.duration_s is None else request.duration_s
        self._num_generated = max(1, round(duration_s * self.sample_rate_hz))

    def blocks(self, check: Check = never_stop) -> Iterator[Float32]:
        """Yield float32 blocks [n] in [-1, 1], mono; in all exactly the samples asked for.

        The first block comes after eight patches at most, each later one after six (0.256 s).

        Args:
            check: called before every step; what it raises ends the stream.
        """
        prompt = prepare_prompt(
            self._request,
            self._model.mel_config,
            patch_frames=self._model.patch_frames,
            loudness_lufs=self._model.loudness_lufs,
        )
        check()
        fade = self._model.mel_config.hop_length
        stream = _limited(self._from_seam(prompt, check), prompt.gain)
        blocks = _grouped(
            _cut(stream, fade + self._num_generated), fade + MEASURED_SAMPLES, _UNIT_PATCHES * self._model.patch_samples
        )
        first = next(blocks)
        tail, opening = first[:fade], first[fade:]
        self.seam_score = self._judge(prompt, opening)
        self.num_samples = self._num_generated + (prompt.samples.size if self._request.include_prompt else 0)
        if self._request.include_prompt:
            yield _joined(prompt.samples, tail)
        yield opening
        yield from blocks

    def _from_seam(self, prompt: PreparedPrompt, check: Check) -> Iterator[Float32]:
        """Yield the vocoder's samples from one hop before the seam on."""
        stream = self._model.vocoder.create_stream(seed=self._request.seed)
        num_primed = 1 if isinstance(stream, PrimableStream) else min(_PRIMING_FRAMES, len(prompt.mel))
        skipped = (num_primed - 1) * self._model.mel_config.hop_length
        return _after(self._vocoded(stream, prompt, check), skipped)

    def _vocoded(self, stream: VocoderStream, prompt: PreparedPrompt, check: Check) -> Iterator[Float32]:
        """Yield the vocoder's samples, the primed ones first, for as long as may be needed."""
        generator = self._model.create_generator(self._request.seed, self._request.temperature)
        generator.prefill(prompt.mel)
        yield _prime(stream, prompt)
        num_patches = math.ceil(self._num_generated / self._model.patch_samples) + _SLACK_PATCHES
        for _ in range(num_patches):
            check()
            patch = generator.next_patch()
            if not np.isfinite(patch).all():
                raise InternalError("the model gave values that are not finite; choose another model")
            yield stream.push(np.minimum(patch, _LOUDEST))
        yield stream.finish()

    def _judge(self, prompt: PreparedPrompt, opening: Float32) -> float | None:
        heard = prompt.samples[-len(prompt.context) :]
        return seam_score(heard - heard.mean(), opening, self._model.mel_config)


def _prime(stream: VocoderStream, prompt: PreparedPrompt) -> Float32:
    """Start the vocoder inside the prompt; return what it already gives."""
    if isinstance(stream, PrimableStream):
        stream.prime(prompt.context)
        return stream.push(prompt.mel[-1:])
    return stream.push(prompt.mel[-_PRIMING_FRAMES:])


def _after(blocks: Iterator[Float32], num_samples: int) -> Iterator[Float32]:
    """Yield the blocks without their first `num_samples` samples."""
    for block in blocks:
        yield block[num_samples:]
        num_samples -= min(num_samples, block.size)


def _limited(blocks: Iterator[Float32], gain: float) -> Iterator[Float32]:
    """Bring blocks back to the prompt's level, without clipping."""
    limiter, level = StreamingLimiter(), np.float32(1 / gain)
    for block in blocks:
        yield limiter.push(block * level)
    yield limiter.finish()


def _cut(blocks: Iterator[Float32], num_samples: int) -> Iterator[Float32]:
    """Yield exactly `num_samples` of the blocks' samples."""
    left = num_samples
    for block in blocks:
        yield block[:left]
        left -= min(left, block.size)
        if not left:
            return
    raise AssertionError(f"the vocoder held back {left} samples")


def _grouped(blocks: Iterator[Float32], first: int, later: int) -> Iterator[Float32]:
    """Regroup: one block of at least `first` samples, then blocks of at least `later`; the last has the rest."""
    wanted, waiting = first, []
    for block in blocks:
        waiting.append(block)
        if sum(part.size for part in waiting) >= wanted:
            yield np.concatenate(waiting)
            waiting, wanted = [], later
    rest = np.concatenate([np.zeros(0, np.float32), *waiting])
    if rest.size:
        yield rest


def _joined(prompt: Float32, tail: Float32) -> Float32:
    """Return the prompt with its last samples faded into the vocoder's copy of them."""
    size = min(prompt.size, tail.size)
    if size == 0:
        return prompt
    ramp = np.linspace(0, 1, size + 2, dtype=np.float32)[1:-1]
    out = prompt.copy()
    out[-size:] = (1 - ramp) * prompt[-size:] + ramp * tail[-size:]
    return out


def collect(blocks: Iterator[Float32]) -> Float32:
    """Return all blocks as one array [n]."""
    return np.concatenate(list(itertools.chain([np.zeros(0, np.float32)], blocks)))
