"""Delivery: whole files in chunks that clients accept; who leaves while waiting leaves nothing behind."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from audiofoundation.audio.encode import AudioFormat, encode
from audiofoundation.audio.waveform import Waveform
from audiofoundation.inference.admission import Admission
from audiofoundation.inference.delivery import Delivery
from audiofoundation.inference.request import ContinuationRequest
from audiofoundation.inference.streaming import ContinuationRunner
from tests.unit.inference.test_engine import RATE, run, tones
from tests.unit.inference.test_streaming import Models

_WEBSOCKET_LIMIT_BYTES = 1 << 20


@pytest.fixture
def runner() -> Iterator[ContinuationRunner]:
    runner = ContinuationRunner(Models(), Admission(max_running=1, max_waiting=1), max_generated_s=10)
    yield runner
    runner.close(drain_s=0)


def test_a_long_prompt_that_is_included_comes_in_small_chunks(runner: ContinuationRunner) -> None:
    request = ContinuationRequest(tones(40.0), duration_s=0.1, include_prompt=True)

    async def scenario() -> list[bytes]:
        delivery = Delivery(runner.start(request), AudioFormat.WAV)
        await delivery.begin()
        return [chunk async for chunk in delivery.chunks()]

    chunks = asyncio.run(scenario())

    whole = run(request, Models().continuation_model(None))
    assert b"".join(chunks) == encode(Waveform(whole[np.newaxis], RATE), AudioFormat.WAV)
    assert max(map(len, chunks)) < _WEBSOCKET_LIMIT_BYTES / 2


def test_whoever_is_cancelled_while_waiting_for_the_first_block_frees_the_place(runner: ContinuationRunner) -> None:
    async def scenario() -> int:
        with runner.admission.enter():  # it waits behind this one
            delivery = Delivery(runner.start(ContinuationRequest(tones(1.0), duration_s=5.0)), AudioFormat.PCM)
            beginning = asyncio.create_task(delivery.begin())
            await asyncio.sleep(0)
            beginning.cancel()
            await asyncio.wait([beginning])
            async with asyncio.timeout(5):
                while runner.admission.num_waiting:
                    await asyncio.sleep(0.01)
        return runner.admission.num_running

    assert asyncio.run(scenario()) == 0
