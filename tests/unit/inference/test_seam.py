"""The seam score: a recording continued by itself is smooth, a break is not."""

import numpy as np
import pytest

from audiofoundation.features.mel import Float32, get_preset
from audiofoundation.inference.seam import seam_score

CONFIG = get_preset("vocos24")
RATE = 24000


def lively(num_samples: int, seed: int = 0) -> Float32:
    """Noise whose colour and level wander, as recordings' do."""
    rng = np.random.default_rng(seed)
    low = np.convolve(rng.standard_normal(num_samples), np.hanning(48), "same")
    high = rng.standard_normal(num_samples)
    t = np.arange(num_samples) / RATE
    return (0.02 * low * (1.2 + np.sin(7 * t)) + 0.03 * high * (1.2 + np.sin(11 * t + 1))).astype(np.float32)


def score(prompt: Float32, continuation: Float32) -> float:
    found = seam_score(prompt, continuation, CONFIG)
    assert found is not None
    return found


@pytest.mark.parametrize("cut_s", [2.0, 2.3, 2.71, 3.1])
def test_a_recording_continued_by_itself_is_smooth(cut_s: float) -> None:
    sound, cut = lively(4 * RATE), round(cut_s * RATE)

    assert score(sound[:cut], sound[cut:]) > 0.7


def test_the_harder_the_break_the_lower_the_score() -> None:
    sound, cut = lively(4 * RATE), 2 * RATE

    scores = [score(sound[:cut], gain * sound[cut:]) for gain in (1.0, 2.0, 8.0, 60.0)]

    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.1


def test_another_colour_at_the_same_level_is_heard() -> None:
    sound, cut = lively(4 * RATE), 2 * RATE
    tone = (0.1 * np.sin(np.arange(RATE) * 0.3)).astype(np.float32)

    assert score(sound[:cut], tone) < 0.2


def test_too_little_to_judge_is_no_score() -> None:
    sound = lively(RATE)

    assert seam_score(sound[:4800], sound[4800:9600], CONFIG) is None
    assert seam_score(sound, sound[:512], CONFIG) is None


def test_digital_silence_continued_by_inaudible_noise_is_smooth() -> None:
    hiss = (3e-5 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)

    assert score(np.zeros(2 * RATE, np.float32), hiss) > 0.9
