"""TensorBoard event files, read back with TensorBoard's own reader."""

import io
import wave
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from audiofoundation.training.event_log import EventLog


def read(folder: Path) -> list[Event]:
    (path,) = folder.iterdir()
    return [Event.FromString(data) for data in RawEventFileLoader(str(path)).Load()]


def test_scalars_and_audio_are_what_was_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events", first_step=7)
    log.add_scalars(8, {"model/total": 0.5})
    samples = np.sin(np.arange(2400, dtype=np.float32) / 10).astype(np.float32) * np.float32(1.2)
    log.add_audio(8, "continuation", samples, 24000)
    log.close()
    _, start, scalar, audio = read(tmp_path / "events")
    assert (start.step, start.session_log.status) == (7, SessionLog.START)
    assert (scalar.step, scalar.summary.value[0].tag, scalar.summary.value[0].simple_value) == (8, "model/total", 0.5)
    clip = audio.summary.value[0].audio
    with wave.open(io.BytesIO(clip.encoded_audio_string)) as file:
        assert (file.getframerate(), file.getnframes()) == (24000, 2400)
        decoded = np.frombuffer(file.readframes(2400), "<i2").astype(np.float32) / 32767
    np.testing.assert_allclose(decoded, np.clip(samples, -1.0001, 1), atol=1e-4)


def test_nothing_is_written_where_nothing_was_logged(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events", first_step=0)
    log.add_scalars(1, {})
    log.close()
    assert not (tmp_path / "events").exists()
