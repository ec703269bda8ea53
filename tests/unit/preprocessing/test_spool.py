"""Whatever the blocks and wherever they lie, a range comes back as it was put in."""

from pathlib import Path

import numpy as np
import pytest

from audiofoundation.preprocessing.spool import SampleSpool

NUM_SAMPLES = 1000


@pytest.mark.parametrize("max_in_memory", [10 * NUM_SAMPLES, 0], ids=["memory", "file"])
@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_any_range_is_read_back(num_channels: int, max_in_memory: int, seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal((num_channels, NUM_SAMPLES)).astype(np.float32)
    borders = np.sort(rng.integers(0, NUM_SAMPLES + 1, 9))
    with SampleSpool(tmp_path, max_in_memory=max_in_memory) as spool:
        for block in np.split(samples, borders, axis=1):  # some are empty
            spool.append(block)

        for start, stop in [
            (0, NUM_SAMPLES),
            (0, 0),
            (NUM_SAMPLES, NUM_SAMPLES),
            *np.sort(rng.integers(0, 1001, (99, 2))),
        ]:
            np.testing.assert_array_equal(spool.read(int(start), int(stop)), samples[:, start:stop])


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 6)])
def test_a_range_outside_is_refused(start: int, stop: int, tmp_path: Path) -> None:
    with SampleSpool(tmp_path) as spool:
        spool.append(np.zeros((1, 5), np.float32))

        with pytest.raises(ValueError, match="does not lie within 5 samples"):
            spool.read(start, stop)


def test_a_cleared_spool_is_empty(tmp_path: Path) -> None:
    with SampleSpool(tmp_path) as spool:
        spool.append(np.zeros((1, 5), np.float32))
        spool.clear()
        spool.append(np.ones((1, 3), np.float32))

        np.testing.assert_array_equal(spool.read(0, 3), np.ones((1, 3), np.float32))
