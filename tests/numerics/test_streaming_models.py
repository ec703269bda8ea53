"""Streaming equals offline for the transformer and the vocoder; generation is reproducible and bounded."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from audiofoundation.features.mel import get_preset, log_mel
from audiofoundation.models.generation import MelContinuation, SamplingOptions
from audiofoundation.models.mel_transformer import MelTransformer, MelTransformerConfig
from audiofoundation.models.vocoder import CausalVocos, CausalVocosConfig, CausalVocosVocoder
from tests.numerics.test_mel_presets import speech_like

SMALL = MelTransformerConfig(
    width=64, num_layers=3, num_heads=4, hidden=96, context_patches=16, head_width=48, head_blocks=2, noise_width=8
)
Positions = Literal["rope", "sinusoidal", "learned"]


def small_model(config: MelTransformerConfig = SMALL) -> MelTransformer:
    torch.manual_seed(0)
    model = MelTransformer(config).eval()
    model.mean_F.fill_(-3.0)
    model.std_F.fill_(2.0)
    return model


@pytest.mark.parametrize("positions", ["rope", "sinusoidal", "learned"])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_cached_decoding_equals_the_whole(positions: Positions, chunk: int) -> None:
    """Also past the context, where the window slides and the cache forgets."""
    model = small_model(replace(SMALL, positions=positions))
    patches = torch.randn(2, 40, 4, 100)
    with torch.inference_mode():
        whole = model(patches)
        state = model.create_state(batch=2)
        pieces = [model(patches[:, i : i + chunk], state=state) for i in range(0, 40, chunk)]
    # A multi-patch step on a full cache drops what its first queries could still see, so compare before that.
    stop = 40 if chunk == 1 else 16 - chunk
    torch.testing.assert_close(torch.cat(pieces, dim=1)[:, :stop], whole[:, :stop], atol=2e-5, rtol=1e-4)


def test_the_future_does_not_leak() -> None:
    model = small_model()
    patches = torch.randn(1, 12, 4, 100)
    changed = patches.clone()
    changed[:, 7:] += 1
    with torch.inference_mode():
        before, after = model(patches), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


@pytest.mark.parametrize("chunk", [1, 2, 4, 6, 24])
@pytest.mark.parametrize("ahead", [0, 2, 4])
def test_vocoder_chunks_equal_the_whole(chunk: int, ahead: int) -> None:
    torch.manual_seed(0)
    model = CausalVocos(CausalVocosConfig(width=32, hidden=64, num_layers=3, look_ahead_frames=ahead)).eval()
    mel = log_mel(speech_like(0.7, 24000), get_preset("vocos24"))
    with torch.inference_mode():
        whole = model(torch.from_numpy(mel)[None])[0].numpy()
    stream = CausalVocosVocoder(model, "small").create_stream()
    pieces = [stream.push(mel[i : i + chunk]) for i in range(0, len(mel), chunk)]
    streamed = np.concatenate([*pieces, stream.finish()])
    assert len(streamed) == len(mel) * 256
    np.testing.assert_allclose(streamed, whole, atol=1e-5 * max(1.0, float(np.abs(whole).max())))


def continuation(seed: int, *, temperature: float = 1.0) -> np.ndarray:
    stream = MelContinuation(small_model(), seed=seed, options=SamplingOptions(temperature))
    stream.prefill(log_mel(speech_like(1, 24000), get_preset("vocos24")))
    return np.concatenate([stream.next_patch() for _ in range(30)])


def test_equal_seeds_give_equal_frames_and_other_seeds_others() -> None:
    np.testing.assert_array_equal(continuation(1), continuation(1))
    assert not np.allclose(continuation(1), continuation(2))


def test_a_stream_runs_past_its_context_and_stays_finite() -> None:
    frames = continuation(1, temperature=1.5)
    assert frames.shape == (120, 100)
    assert np.isfinite(frames).all()


@pytest.mark.parametrize("num_frames", [1, 3, 4, 5, 500])
def test_prompts_of_any_length_are_read(num_frames: int) -> None:
    stream = MelContinuation(small_model())
    stream.prefill(np.full((num_frames, 100), -4.0, np.float32))
    assert np.isfinite(stream.next_patch()).all()


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        MelContinuation(small_model()).prefill(np.zeros((0, 100), np.float32))
