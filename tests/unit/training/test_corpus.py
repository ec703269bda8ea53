"""What a corpus says of itself."""

import numpy as np
import pytest

from audiofoundation.errors import InvalidRequest
from audiofoundation.training.corpus import Corpus, Recording, WindowSampler

NUM_BANDS = 5


def test_statistics_are_those_of_every_seventh_frame_with_silence_clamped() -> None:
    rng = np.random.default_rng(0)
    mel = rng.normal(np.arange(-14, -4, 2), 3, (300, NUM_BANDS)).astype(np.float16)
    rows = [
        Recording("x", "train", str(start), True, start, count) for start, count in ((0, 100), (150, 90), (240, 60))
    ]
    corpus = Corpus(mel, None, tuple(rows), "vocos24", 256)

    mean, std = corpus.statistics()

    picked = np.concatenate([mel[0:100:7], mel[150:240:7], mel[240:300:7]]).astype(np.float64)
    clamped = np.maximum(picked, np.log(1e-5))
    np.testing.assert_allclose(mean, clamped.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, clamped.std(0) + 1e-3, rtol=1e-5)
    assert mean.dtype == std.dtype == np.float32


@pytest.mark.parametrize("weights", [{"speech": 1.0}, {"music": 0.0}])
def test_weights_that_name_no_label_are_refused(weights: dict[str, float]) -> None:
    recordings = [Recording("music", "train", str(n), True, 20 * n, 20) for n in range(3)]
    with pytest.raises(InvalidRequest, match="they have: music"):
        WindowSampler(recordings, 10, weights=weights)
    WindowSampler(recordings, 10, weights={"music": 1.0})


def test_statistics_of_a_band_that_never_changes_are_finite() -> None:
    mel = np.full((70, NUM_BANDS), -11.4, np.float16)

    mean, std = Corpus(mel, None, (Recording("x", "train", "g", True, 0, 70),), "vocos24", 256).statistics()

    np.testing.assert_allclose(mean, mel[0].astype(np.float32))
    np.testing.assert_allclose(std, 1e-3, rtol=1e-3)
