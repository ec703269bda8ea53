"""The runner: blocks reach the event loop, leaving frees the place, errors arrive where the blocks would."""

import asyncio
import time
from collections.abc import Iterator

import numpy as np
import pytest

from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import Cancelled, InvalidRequest, ModelNotFound
from audiofoundation.features.griffin_lim import GriffinLimVocoder
from audiofoundation.features.mel import Float32
from audiofoundation.inference.admission import Admission
from audiofoundation.inference.engine import ContinuationModel
from audiofoundation.inference.request import ContinuationRequest
from audiofoundation.inference.streaming import ContinuationRunner
from tests.unit.inference.test_engine import CONFIG, RATE, create_model, run, tones


class Models:
    """One model under every name but `missing`."""

    def __init__(self) -> None:
        self._model = create_model(GriffinLimVocoder(CONFIG))

    def continuation_model(self, name: str | None) -> ContinuationModel:
        if name == "missing":
            raise ModelNotFound("no model is named missing", param="model")
        return self._model


@pytest.fixture
def runner() -> Iterator[ContinuationRunner]:
    runner = ContinuationRunner(Models(), Admission(max_running=1, max_waiting=2), max_generated_s=60)
    yield runner
    runner.close(drain_s=0)


async def drain(runner: ContinuationRunner, request: ContinuationRequest) -> Float32:
    return np.concatenate([block async for block in runner.start(request).blocks()])


def test_gives_what_the_engine_gives(runner: ContinuationRunner) -> None:
    request = ContinuationRequest(tones(1.0), duration_s=0.6, seed=5)

    samples = asyncio.run(drain(runner, request))

    assert np.array_equal(samples, run(request, Models().continuation_model(None)))


def test_streams_that_run_after_each_other_do_not_disturb_each_other(runner: ContinuationRunner) -> None:
    requests = [ContinuationRequest(tones(1.0), duration_s=0.4, seed=seed) for seed in (1, 2, 1)]

    async def all_at_once() -> list[Float32]:
        return await asyncio.gather(*(drain(runner, request) for request in requests))

    first, other, again = asyncio.run(all_at_once())

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_leaving_frees_the_place_within_half_a_second(runner: ContinuationRunner) -> None:
    async def leave_early() -> float:
        running = runner.start(ContinuationRequest(tones(1.0), duration_s=60.0))
        assert await running.next_block() is not None
        running.cancel()
        started = time.monotonic()
        await asyncio.to_thread(runner.admission.wait_until_idle, timeout_s=5)
        return time.monotonic() - started

    assert asyncio.run(leave_early()) < 0.5
    assert runner.admission.num_running == 0


def test_a_consumer_that_waits_learns_of_the_cancellation(runner: ContinuationRunner) -> None:
    async def cancel_while_waiting() -> None:
        running = runner.start(ContinuationRequest(tones(1.0), duration_s=60.0))
        asyncio.get_running_loop().call_later(0.2, running.cancel)
        while await running.next_block() is not None:
            pass

    with pytest.raises(Cancelled):
        asyncio.run(cancel_while_waiting())


def test_an_unknown_model_is_told_in_place_of_the_first_block(runner: ContinuationRunner) -> None:
    with pytest.raises(ModelNotFound):
        asyncio.run(drain(runner, ContinuationRequest(tones(1.0), model="missing")))
    assert runner.admission.num_running == 0


def test_a_request_out_of_range_takes_no_place(runner: ContinuationRunner) -> None:
    silence = Waveform(np.zeros((1, RATE), np.float32), RATE)

    with pytest.raises(InvalidRequest):
        asyncio.run(drain(runner, ContinuationRequest(silence, duration_s=61.0)))
    with runner.admission.enter(), pytest.raises(InvalidRequest):  # told at once, not after the wait
        asyncio.run(asyncio.wait_for(drain(runner, ContinuationRequest(silence, prompt_start_s=2.0)), 5))
    assert runner.admission.num_running == 0
