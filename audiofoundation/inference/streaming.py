"""From the engine's blocking generator to an asynchronous stream: one thread per running continuation."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from audiofoundation.errors import Cancelled, DeadlineExceeded
from audiofoundation.features.mel import Float32
from audiofoundation.inference import metrics
from audiofoundation.inference.admission import Admission, Ticket
from audiofoundation.inference.engine import Continuation, ContinuationModel
from audiofoundation.inference.request import ContinuationRequest

_BUFFERED_SAMPLES = 30 * 24000
_STALL_S = 10.0


class ContinuationModels(Protocol):
    """Where models come from."""

    def continuation_model(self, name: str | None) -> ContinuationModel:
        """Return the model of that name, loaded; None is the best one at hand."""
        ...


class BlockChannel:
    """A bounded queue of blocks from one thread to one coroutine.

    A producer that finds it full waits; a consumer that takes nothing for 10 s loses the stream.
    """

    def __init__(self, *, max_samples: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._changed = threading.Condition()
        self._blocks: deque[Float32] = deque()
        self._num_samples, self._max_samples = 0, max_samples
        self._is_abandoned, self._is_finished = False, False
        self._error: BaseException | None = None

    def put(self, block: Float32) -> None:
        """Add a block, once there is room for it.

        Raises:
            Cancelled: nobody takes blocks any more.
            DeadlineExceeded: nobody took one for too long.
        """
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: self._is_abandoned or self._num_samples < self._max_samples, _STALL_S
            )
            if self._is_abandoned:
                raise Cancelled("the caller left")
            if not has_room:
                raise DeadlineExceeded(f"nothing was read for {_STALL_S:g} s")
            self._blocks.append(block)
            self._num_samples += block.size
        self._loop.call_soon_threadsafe(self._arrived.set)

    def finish(self, error: BaseException | None) -> None:
        """Say that no block follows, and why."""
        with self._changed:
            self._is_finished, self._error = True, error
            is_heard = not self._is_abandoned
        if is_heard:
            self._loop.call_soon_threadsafe(self._arrived.set)

    def abandon(self) -> None:
        """Say that no block is wanted any more. Call it in the event loop; a waiting `get` raises Cancelled."""
        with self._changed:
            self._is_abandoned = True
            self._blocks.clear()
            self._changed.notify_all()
        self._arrived.set()

    async def get(self) -> Float32 | None:
        """Return the next block; None after the last.

        Raises:
            AudioFoundationError: what ended the stream.
        """
        while True:
            with self._changed:
                if self._is_abandoned:
                    raise Cancelled("the continuation was cancelled")
                if self._blocks:
                    block = self._blocks.popleft()
                    self._num_samples -= block.size
                    self._changed.notify_all()
                    return block
                if self._is_finished:
                    if self._error is not None:
                        raise self._error
                    return None
                self._arrived.clear()
            await self._arrived.wait()


class RunningContinuation:
    """A continuation that computes in its own thread.

    Attributes:
        model_version, sample_rate_hz, num_samples, seam_score: known once the first block arrived.
    """

    def __init__(self, ticket: Ticket, channel: BlockChannel) -> None:
        self._ticket, self._channel = ticket, channel
        self._continuation: Continuation | None = None

    @property
    def model_version(self) -> str:
        return self._known().model_version

    @property
    def sample_rate_hz(self) -> int:
        return self._known().sample_rate_hz

    @property
    def num_samples(self) -> int:
        return self._known().num_samples

    @property
    def seam_score(self) -> float | None:
        return self._continuation.seam_score if self._continuation else None

    async def next_block(self) -> Float32 | None:
        """Return the next block [n]; None after the last. Raises what ended the stream."""
        return await self._channel.get()

    async def blocks(self) -> AsyncIterator[Float32]:
        """Yield the blocks that are left; leaving early cancels the stream."""
        try:
            while (block := await self.next_block()) is not None:
                yield block
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Stop at the next step and free the place. Harmless when it is over."""
        self._ticket.cancel()
        self._channel.abandon()

    def compute(self, request: ContinuationRequest, models: ContinuationModels, max_generated_s: float) -> None:
        """Run to the end in this thread, giving blocks to the channel."""
        started = time.perf_counter()
        with self._ticket:
            self._ticket.wait()
            metrics.QUEUE_SECONDS.observe(time.perf_counter() - started)
            model = models.continuation_model(request.model)
            self._continuation = Continuation(request, model, max_generated_s=max_generated_s)
            timer = metrics.StreamTimer(started)
            for block in self._continuation.blocks(self._ticket.check):
                timer.note(block.size / self._continuation.sample_rate_hz)
                self._channel.put(block)
            timer.finish()

    def _known(self) -> Continuation:
        assert self._continuation is not None, "ask after the first block"
        return self._continuation


class ContinuationRunner:
    """Starts continuations; the one door to the engine that servers use."""

    def __init__(self, models: ContinuationModels, admission: Admission, *, max_generated_s: float) -> None:
        self._models, self.admission = models, admission
        self.max_generated_s = max_generated_s
        num_threads = admission.max_running + admission.max_waiting
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="continuation")

    def start(self, request: ContinuationRequest, *, timeout_s: float | None = None) -> RunningContinuation:
        """Queue a continuation and return at once. Call it in the event loop that reads the blocks.

        Raises:
            InvalidRequest: a field is out of range.
            Overloaded: there is no room.
        """
        request.validate(max_generated_s=self.max_generated_s)
        request.selected_range()
        with metrics.counted_rejections():
            ticket = self.admission.enter(timeout_s=timeout_s)
        channel = BlockChannel(max_samples=_BUFFERED_SAMPLES)
        running = RunningContinuation(ticket, channel)
        metrics.observe_queue(self.admission.num_running, self.admission.num_waiting)
        future = self._threads.submit(running.compute, request, self._models, self.max_generated_s)
        future.add_done_callback(lambda done: self._end(done, channel))
        return running

    def close(self, *, drain_s: float) -> None:
        """Admit nobody, let those inside finish for `drain_s`, then cancel them. Blocks."""
        self.admission.drain()
        if not self.admission.wait_until_idle(timeout_s=drain_s):
            self.admission.cancel_all()
        self._threads.shutdown(wait=True)  # what still waits finds its ticket cancelled and ends at once

    def _end(self, done: "Future[None]", channel: BlockChannel) -> None:
        metrics.observe_queue(self.admission.num_running, self.admission.num_waiting)
        error = done.exception()
        if isinstance(error, Cancelled):
            metrics.CANCELLED.inc()
        channel.finish(error)
