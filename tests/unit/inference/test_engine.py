"""The engine: exact lengths for any prompt, repeatable, never silent about what it cannot do."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import Cancelled, InvalidRequest
from audiofoundation.features.griffin_lim import GriffinLimVocoder
from audiofoundation.features.mel import Float32, get_preset, log_mel
from audiofoundation.features.vocoder_protocol import Vocoder, VocoderStream
from audiofoundation.inference.engine import Continuation, ContinuationModel, collect
from audiofoundation.inference.request import ContinuationRequest
from audiofoundation.inference.vocoders import OfflineGriffinLim
from audiofoundation.models.generation import MelContinuation, SamplingOptions
from tests.tiny_models import create_transformer

RATE = 24000
CONFIG = get_preset("vocos24")


def tones(seconds: float, *, rate_hz: int = RATE, num_channels: int = 1, gain: float = 0.2) -> Waveform:
    """A sound that moves: two tones under a slow envelope."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    sound = (np.sin(2 * np.pi * 220 * t) + 0.5 * np.sin(2 * np.pi * 1330 * t)) * (0.6 + 0.4 * np.sin(5 * t))
    return Waveform(np.tile((gain * sound).astype(np.float32), (num_channels, 1)), rate_hz)


@pytest.fixture(scope="module")
def model() -> ContinuationModel:
    return create_model(GriffinLimVocoder(CONFIG))


def create_model(vocoder: Vocoder) -> ContinuationModel:
    transformer = create_transformer()

    def create_generator(seed: int, temperature: float | None) -> MelContinuation:
        return MelContinuation(transformer, seed=seed, options=SamplingOptions(temperature=temperature or 1.0))

    return ContinuationModel("tiny@00000000", CONFIG, 4, -23.0, vocoder, create_generator)


def run(request: ContinuationRequest, model: ContinuationModel) -> Float32:
    return collect(Continuation(request, model, max_generated_s=30).blocks())


@pytest.mark.parametrize("duration_s", [1 / RATE, 0.01, 0.05, 0.1, 0.128, 0.2567, 0.5, 1.0, 2.003])
def test_lasts_exactly_as_long_as_asked(model: ContinuationModel, duration_s: float) -> None:
    samples = run(ContinuationRequest(tones(1.0), duration_s=duration_s), model)

    assert samples.size == round(duration_s * RATE)
    assert samples.dtype == np.float32


@pytest.mark.parametrize("num_samples", [1, 2, 255, 1023, 1025, 12000, 30001, 15 * RATE])
def test_continues_a_prompt_of_any_length(model: ContinuationModel, num_samples: int) -> None:
    prompt = Waveform(tones(20.0).samples[:, :num_samples], RATE)

    samples = run(ContinuationRequest(prompt, duration_s=0.3), model)

    assert samples.size == 7200
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= 1


@pytest.mark.parametrize(("rate_hz", "num_channels"), [(8000, 1), (44100, 2), (48000, 6), (96000, 1)])
def test_converts_any_rate_and_layout(model: ContinuationModel, rate_hz: int, num_channels: int) -> None:
    prompt = tones(1.0, rate_hz=rate_hz, num_channels=num_channels)

    assert run(ContinuationRequest(prompt, duration_s=0.25), model).size == 6000


def test_a_silent_prompt_gives_finite_samples(model: ContinuationModel) -> None:
    prompt = Waveform(np.zeros((1, RATE), np.float32), RATE)

    assert np.isfinite(run(ContinuationRequest(prompt, duration_s=0.5), model)).all()


def test_the_same_seed_gives_the_same_samples_and_another_does_not(model: ContinuationModel) -> None:
    first, again, other = (run(ContinuationRequest(tones(1.0), duration_s=0.4, seed=seed), model) for seed in (3, 3, 4))

    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_a_longer_continuation_begins_with_the_shorter_one(model: ContinuationModel) -> None:
    short, long = (run(ContinuationRequest(tones(1.0), duration_s=s), model) for s in (0.4, 1.0))

    assert np.array_equal(short, long[: short.size])


def test_is_as_loud_for_a_quiet_copy_as_that_copy_is_quieter(model: ContinuationModel) -> None:
    loud, quiet = (run(ContinuationRequest(tones(2.0, gain=gain), duration_s=1.0), model) for gain in (0.1, 0.001))

    ratio_db = 20 * np.log10(np.std(loud) / np.std(quiet))
    assert abs(ratio_db - 40) < 3  # the mel's floor changes what the model sees a little


def test_include_prompt_begins_with_the_prompt(model: ContinuationModel) -> None:
    prompt = tones(12.0)

    samples = run(ContinuationRequest(prompt, duration_s=0.5, include_prompt=True), model)

    assert samples.size == prompt.num_samples + 12000
    untouched = prompt.num_samples - CONFIG.hop_length
    assert np.array_equal(samples[:untouched], prompt.samples[0, :untouched])


def test_continues_the_part_that_was_selected(model: ContinuationModel) -> None:
    whole = tones(3.0)
    part = Waveform(whole.samples[:, 12000:36000], RATE)

    selected = ContinuationRequest(whole, duration_s=0.3, prompt_start_s=0.5, prompt_end_s=1.5)

    assert np.array_equal(run(selected, model), run(ContinuationRequest(part, duration_s=0.3), model))


def test_an_end_far_beyond_the_recording_is_its_end() -> None:
    request = ContinuationRequest(tones(1.0), prompt_start_s=0.25, prompt_end_s=1e308)

    assert request.selected_range() == range(6000, 24000)


def test_the_first_block_comes_early_and_knows_the_seam(model: ContinuationModel) -> None:
    continuation = Continuation(ContinuationRequest(tones(2.0), duration_s=4.0), model, max_generated_s=30)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1

    first = next(continuation.blocks(check))

    assert checks <= 8  # of about 94 patches
    assert first.size < 0.3 * RATE
    assert continuation.seam_score is not None
    assert 0 <= continuation.seam_score <= 1


def test_stops_at_the_next_patch_when_told(model: ContinuationModel) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise Cancelled("enough")

    continuation = Continuation(ContinuationRequest(tones(1.0), duration_s=20.0), model, max_generated_s=30)
    with pytest.raises(Cancelled):
        collect(continuation.blocks(check))
    assert calls == 10


def test_without_a_duration_it_ends_at_the_limit(model: ContinuationModel) -> None:
    continuation = Continuation(ContinuationRequest(tones(1.0), duration_s=None), model, max_generated_s=0.7)

    assert collect(continuation.blocks()).size == round(0.7 * RATE)


def test_a_vocoder_that_gives_all_at_the_end_works_too() -> None:
    model = create_model(OfflineGriffinLim(CONFIG))

    assert run(ContinuationRequest(tones(1.0), duration_s=0.25), model).size == 6000


class _Unprimed:
    """Streaming Griffin-Lim that can only start from frames."""

    name, mel_config = "unprimed", CONFIG

    def create_stream(self, *, seed: int = 0) -> VocoderStream:
        stream = GriffinLimVocoder(CONFIG).create_stream(seed=seed)
        return _OnlyFrames(stream.push, stream.finish)


@dataclass(frozen=True, slots=True)
class _OnlyFrames:
    push: Callable[[Float32], Float32]
    finish: Callable[[], Float32]


def test_starting_the_vocoder_from_sound_keeps_the_phase_across_the_seam() -> None:
    """With true frames in place of a model's, the first 10 ms should follow the recording."""
    errors = {}
    for vocoder in (GriffinLimVocoder(CONFIG), _Unprimed()):
        sound = tones(3.0)
        past, future = sound.samples[0, :49152], sound.samples[0, 49152:]
        truth = _Truth(sound.samples[0], len(past))
        model = replace(create_model(vocoder), create_generator=partial(_same, truth))

        made = run(ContinuationRequest(Waveform(past[None], RATE), duration_s=0.1), model)

        errors[vocoder.name] = np.sum((future[:240] - made[:240]) ** 2) / np.sum(future[:240] ** 2)
    assert errors["griffinlim-streaming"] < 0.3
    assert errors["unprimed"] > 2 * errors["griffinlim-streaming"]


def _same(truth: "_Truth", seed: int, temperature: float | None) -> "_Truth":  # noqa: ARG001
    return truth


class _Truth:
    """Gives the frames of the recording itself, at the level that the prompt was brought to."""

    def __init__(self, samples: Float32, seam: int) -> None:
        self._mel, self._next = log_mel(samples, CONFIG), seam // CONFIG.hop_length
        self._level: np.float32 = np.float32(0)

    def prefill(self, mel: Float32) -> None:
        self._level = np.float32(np.median(mel - self._mel[self._next - len(mel) : self._next]))

    def next_patch(self) -> Float32:
        self._next += 4
        patch: Float32 = self._mel[self._next - 4 : self._next] + self._level
        return patch


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("duration_s", 0.0, "duration"),
        ("duration_s", -1.0, "duration"),
        ("duration_s", 31.0, "duration"),
        ("duration_s", float("nan"), "duration"),
        ("temperature", 2.5, "temperature"),
        ("cfg_coef", 3.0, "cfg_coef"),
        ("seed", -1, "seed"),
        ("prompt_start_s", 1.5, "prompt_start_seconds"),
        ("prompt_start_s", -0.5, "prompt_start_seconds"),
        ("prompt_start_s", 1e308, "prompt_start_seconds"),
        ("prompt_end_s", 0.0, "prompt_end_seconds"),
    ],
)
def test_refuses_what_makes_no_sense_and_names_the_field(
    model: ContinuationModel, field: str, value: float, param: str
) -> None:
    fields: dict[str, float] = {field: value}
    request = ContinuationRequest(tones(1.0), **fields)  # type: ignore[arg-type]

    with pytest.raises(InvalidRequest) as caught:
        run(request, model)
    assert caught.value.param == param
