"""A store behind a bad line, and one whose disk forgets bits: nothing is lost, doubled or read wrong."""

import random
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedRWPair
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from audiofoundation.errors import ObjectCorrupt
from audiofoundation.identifiers import DatasetId, Sha256, sha256_of
from audiofoundation.settings import StorageSettings
from audiofoundation.shards.cache import ShardCache
from audiofoundation.shards.manifest import ShardRecord, load_manifest
from audiofoundation.shards.reader import read_dataset
from audiofoundation.storage import object_store, s3_errors
from audiofoundation.storage.keys import manifest_key, raw_key, shard_key
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import create_data_plane, data_plane_settings, tone
from tests.servers import S3Server

from .lossy_proxy import Faults, LossyProxy

pytestmark = pytest.mark.slow

SEED = 20261121
NUM_FLIPPED = 100


def behind(proxy: LossyProxy, store: ObjectStore) -> ObjectStore:
    return ObjectStore(store.settings.model_copy(update={"endpoint": proxy.address}))


def proxy_of(store: ObjectStore, faults: Faults) -> LossyProxy:
    return LossyProxy(int(store.settings.endpoint.rpartition(":")[2]), faults, SEED)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same retries with shorter pauses."""
    monkeypatch.setattr(s3_errors, "_FIRST_CAP_S", 0.02)
    monkeypatch.setattr(s3_errors, "_LAST_CAP_S", 0.1)


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    "faults",
    [
        Faults(reset=0.05),
        Faults(cut=0.05),
        Faults(busy=0.2),
        Faults(delay=0.05),
        Faults(0.03, 0.03, 0.03, 0.1),
    ],
    ids=["resets", "truncated", "503", "delays", "all"],
)
def test_objects_through_a_bad_line_arrive_as_they_were(faults: Faults, store: ObjectStore, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    bodies = {f"o/{number}": chance.randbytes(chance.choice((0, 10, 5_000, 400_000))) for number in range(40)}
    with proxy_of(store, faults) as proxy:
        bad = behind(proxy, store)
        for key, body in bodies.items():
            bad.put_bytes(key, body)
        for key, body in bodies.items():
            assert bad.get_bytes(key, sha256=sha256_of(body)) == body
            bad.get_to_file(key, tmp_path / "body", sha256=sha256_of(body))
            assert (tmp_path / "body").read_bytes() == body
        assert sum(proxy.struck.values()) > 3, proxy.struck
    assert {key: store.get_bytes(key) for key in store.list("o/")} == bodies


@pytest.mark.usefixtures("quick_retries")
def test_recordings_become_a_dataset_through_a_bad_line(
    sqlite_engine: Engine, store: ObjectStore, tmp_path: Path
) -> None:
    pitches_hz = (300, 400, 500)
    with proxy_of(store, Faults(reset=0.03, cut=0.03, delay=0.03, busy=0.1)) as proxy:
        plane = create_data_plane(sqlite_engine, behind(proxy, store), data_plane_settings(tmp_path / "data"))
        plane.post("/v1/collections", {"name": "clips"})
        for hz in pitches_hz:
            plane.upload("clips", tone(tmp_path / f"{hz}.wav", 2.2, hz=hz).read_bytes())
        plane.run_jobs()
        dataset = plane.post("/v1/datasets", {"collection": "clips", "segment_s": 0.5, "include_waveform": True})
        plane.run_jobs()
        found = plane.get(f"/v1/datasets/{dataset['dataset']}")
        assert (found["state"], found["states"]) == ("ready", {"done": len(pitches_hz)})
        key, sha256 = str(found["manifest_key"]), Sha256(str(found["manifest_sha256"]))
        through = list(read_dataset(plane.store, load_manifest(plane.store, key, sha256)))
        assert sum(proxy.struck.values()) > 0
    straight = list(read_dataset(store, load_manifest(store, key, sha256)))
    assert [sample.key for sample in through] == [sample.key for sample in straight]
    assert len({sample.key for sample in straight}) == found["segments"] == 4 * len(pitches_hz)
    assert all((a.mel_TF == b.mel_TF).all() for a, b in zip(through, straight, strict=True))


@pytest.fixture
def own_disk(tmp_path: Path) -> Iterator[tuple[ObjectStore, Path]]:
    """A store whose disk the test may damage."""
    server = S3Server(tmp_path / "s3")
    server.start()
    store = ObjectStore(server.settings.model_copy(update={"bucket": f"test-{secrets.token_hex(6)}"}))
    store.ensure_bucket()
    yield store, tmp_path / "s3" / store.settings.bucket
    server.stop()


@pytest.mark.usefixtures("quick_retries")
def test_every_flipped_bit_is_noticed_by_whoever_reads(own_disk: tuple[ObjectStore, Path], tmp_path: Path) -> None:
    store, disk = own_disk
    chance = random.Random(SEED)
    num_noticed = 0
    for number in range(NUM_FLIPPED):
        body = chance.randbytes(chance.randrange(1, 20_000))
        digest = sha256_of(body)
        dataset = DatasetId("ds_0")
        key = [raw_key(digest), shard_key(dataset, number, 1, digest), manifest_key(dataset, digest)][number % 3]
        store.put_bytes(key, body)
        flip(disk / key, chance)
        with pytest.raises(ObjectCorrupt):
            read_as_what_it_is(store, key, digest, len(body), tmp_path)
        num_noticed += 1
    assert num_noticed == NUM_FLIPPED
    assert not (tmp_path / "original").exists()
    assert list((tmp_path / "cache").glob("*.tar")) == []


def read_as_what_it_is(store: ObjectStore, key: str, digest: Sha256, size_bytes: int, folder: Path) -> None:
    if key.endswith(".json"):
        load_manifest(store, key, digest)
    elif key.endswith(".tar"):
        record = ShardRecord(index=0, key=key, size_bytes=size_bytes, sha256=digest, num_samples=1, duration_s=1.0)
        ShardCache(store, folder / "cache").open(record)
    else:
        store.get_to_file(key, folder / "original", sha256=digest)


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    bit = chance.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


class SlowServer:
    """Says yes to everything, but takes the body of a PUT only after a while."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s, self.num_puts, self._size_bytes = delay_s, 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream, suppress(OSError):
                while line := stream.readline():
                    self._answer(line, stream)
                    stream.flush()

    def _answer(self, line: bytes, stream: BufferedRWPair) -> None:
        length = 0
        while header := stream.readline().strip():
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        if line.startswith(b"PUT"):
            self.num_puts += 1
            time.sleep(self._delay_s)
            self._size_bytes = len(stream.read(length))
        size = self._size_bytes if line.startswith(b"HEAD") else 0
        lines = [
            "HTTP/1.1 200 OK",
            'ETag: "0"',
            "Last-Modified: Sat, 21 Nov 2026 10:00:00 GMT",
            f"Content-Length: {size}",
        ]
        stream.write("\r\n".join([*lines, "", ""]).encode())


def test_a_server_that_takes_a_body_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending has the read timeout: the connect timeout is long over when this server takes the body."""
    monkeypatch.setattr(object_store, "_CONNECT_TIMEOUT_S", 0.3)
    server = SlowServer(delay_s=1.5)
    settings = StorageSettings(endpoint=server.address, access_key=SecretStr("a"), secret_key=SecretStr("b" * 8))
    body = bytes(32 << 20)  # more than the sockets' buffers hold
    assert ObjectStore(settings).put_bytes("slow", body).size_bytes == len(body)
    assert server.num_puts == 1
    server.close()


def test_an_answer_that_is_cut_within_its_headers_is_no_empty_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_errors, "_FIRST_CAP_S", 0.02)
    whole = b"HTTP/1.1 200 OK\r\nLast-Modified: Sat, 21 Nov 2026 10:00:00 GMT\r\nContent-Length: 5\r\n\r\n"
    cuts = [whole[:-length] for length in (25, 18, 5)]  # in the date, before the length is named, before it is said
    answers = [*cuts, whole, *cuts, whole + b"hello"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answer_with, args=(listener, answers), daemon=True)
        server.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        store = ObjectStore(StorageSettings(endpoint=address, access_key=SecretStr("a"), secret_key=SecretStr("b" * 8)))
        assert store.stat("o").size_bytes == 5
        assert store.get_bytes("o") == b"hello"
        server.join()


def answer_with(listener: socket.socket, answers: list[bytes]) -> None:
    """Give each connection the next answer and end it."""
    for answer in answers:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(answer)
