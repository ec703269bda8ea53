"""TensorBoard event files: scalars, text and audio, written with TensorBoard's own writer (no TensorFlow)."""

import io
import time
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class EventLog:
    """Appends to a new event file in a folder. The library is imported when the first event is written."""

    def __init__(self, folder: Path, *, first_step: int) -> None:
        self._folder, self._first_step = folder, first_step
        self._writer: Any = None

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers by tag."""
        if values:
            from tensorboard.compat.proto.summary_pb2 import Summary

            found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            self._write(step, summary=Summary(value=found))

    def add_audio(self, step: int, tag: str, samples: NDArray[np.float32], sample_rate_hz: int) -> None:
        """Write a mono clip, float32 [N] in [-1, 1]."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        audio = Summary.Audio(
            sample_rate=sample_rate_hz,
            num_channels=1,
            length_frames=len(samples),
            encoded_audio_string=_to_wav(samples, sample_rate_hz),
            content_type="audio/wav",
        )
        self._write(step, summary=Summary(value=[Summary.Value(tag=tag, audio=audio)]))

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, step: int, **content: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        if self._writer is None:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventFileWriter(str(self._folder), flush_secs=10)
            # Tells TensorBoard to forget what a killed attempt wrote beyond the step where this one goes on.
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=self._first_step, session_log=start))
        self._writer.add_event(Event(wall_time=time.time(), step=step, **content))


def _to_wav(samples: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    scaled = np.clip(np.rint(samples * 32767.0), -32768, 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(scaled.tobytes())
    return buffer.getvalue()
