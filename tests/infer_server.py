"""The infer service as its users meet it: a real uvicorn and a real gRPC server over tiny models."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from pydantic import SecretStr

from audiofoundation.settings import ModelSettings, ServingSettings, Settings
from services.infer.main import create_app
from services.infer.wiring import InferContainer

KEY = "test-key-0123456789"
RECORDINGS = Path(__file__).parent / "data" / "recordings"
ORIGINALS = Path(__file__).parent / "data" / "originals"
SPEECH = ORIGINALS / "speech_24bit_48k.flac"
_START_S = 30.0


@dataclass(frozen=True, slots=True)
class InferServer:
    """A running service."""

    url: str
    grpc: str
    container: InferContainer

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {KEY}"}

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/v1/audio/continuations/stream"


def create_settings(pretrained: Path, cache: Path, **serving: int) -> Settings:
    """Return settings for a service that has no catalog and listens where it can."""
    return Settings(
        serving=ServingSettings(port=0, grpc_port=0, api_keys=(SecretStr(KEY),), drain_s=1.0, **serving),
        models=ModelSettings(pretrained_dir=pretrained, cache_dir=cache),
    )


@contextmanager
def infer_server(settings: Settings) -> Iterator[InferServer]:
    """Serve in a thread while the block runs."""
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        container: InferContainer = app.state.infer
        deadline = time.monotonic() + _START_S
        while not (server.started and container.not_ready is None):
            assert thread.is_alive()
            assert time.monotonic() < deadline, container.not_ready
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield InferServer(f"http://127.0.0.1:{port}", f"127.0.0.1:{app.state.grpc_port}", container)
    finally:
        server.should_exit = True
        thread.join(_START_S)
