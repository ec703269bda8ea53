"""What is done before the API says that it is ready."""

import asyncio
import os
from pathlib import Path

import pytest

from audiofoundation.audio.sandbox import launcher
from audiofoundation.audio.sandbox.launcher import sandbox_cpu_s, stop_zygote
from services.infer.wiring import InferContainer
from tests.infer_server import create_settings
from tests.tiny_models import save_pretrained


@pytest.fixture
def container(tmp_path: Path) -> InferContainer:
    stop_zygote()
    return InferContainer.create(create_settings(save_pretrained(tmp_path / "pretrained"), tmp_path))


def test_the_first_recording_finds_the_decoder_started(container: InferContainer) -> None:
    assert sandbox_cpu_s() == 0

    asyncio.run(container.warm_up())

    assert container.not_ready is None
    assert sandbox_cpu_s() > 0


def test_a_decoder_that_does_not_start_now_may_start_later(
    container: InferContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, os.strerror(11))

    monkeypatch.setattr("subprocess.Popen", refuse)
    asyncio.run(container.warm_up())
    monkeypatch.undo()

    assert (container.not_ready, container.is_loading) == (None, False)
    assert sandbox_cpu_s() == 0
    launcher.confinement()
    assert sandbox_cpu_s() > 0
