"""The contract of the object store, held against a real S3 server."""

import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from audiofoundation.errors import InvalidRequest, ObjectCorrupt, ObjectNotFound, StorageUnavailable
from audiofoundation.identifiers import Sha256, sha256_of
from audiofoundation.settings import StorageSettings
from audiofoundation.storage import s3_errors
from audiofoundation.storage.object_store import ObjectStore
from tests.servers import S3Server, free_port

pytestmark = pytest.mark.slow

WRONG = Sha256("0" * 64)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[S3Server]:
    """A server that the test may kill."""
    server = S3Server(tmp_path / "s3")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(3 << 20)], ids=["empty", "one byte", "3 MiB"])
def test_bytes_come_back_as_they_went(store: ObjectStore, data: bytes) -> None:
    info = store.put_bytes("a/b.bin", data, content_type="audio/flac")
    assert info.size_bytes == len(data)
    assert store.get_bytes("a/b.bin", sha256=sha256_of(data)) == data


def test_file_of_several_parts_comes_back_as_it_went(store: ObjectStore, tmp_path: Path) -> None:
    path, copy = tmp_path / "original", tmp_path / "new folder" / "copy"
    path.write_bytes(os.urandom(1 << 20) * 70)
    store.put_file("big", path)
    store.get_to_file("big", copy, sha256=sha256_of(path.read_bytes()))
    assert copy.read_bytes() == path.read_bytes()
    assert list(copy.parent.iterdir()) == [copy]


def test_wrong_checksum_is_corrupt_and_leaves_no_file(store: ObjectStore, tmp_path: Path) -> None:
    store.put_bytes("key", b"data")
    with pytest.raises(ObjectCorrupt, match="key"):
        store.get_bytes("key", sha256=WRONG)
    with pytest.raises(ObjectCorrupt, match="key"):
        store.get_to_file("key", tmp_path / "copy", sha256=WRONG)
    assert list(tmp_path.iterdir()) == []


def test_bit_that_flips_on_the_server_is_noticed(own_server: S3Server, tmp_path: Path) -> None:
    store = ObjectStore(own_server.settings)
    store.ensure_bucket()
    data = os.urandom(1000)
    store.put_bytes("key", data)
    (stored,) = (path for path in (tmp_path / "s3").rglob("key") if path.is_file())
    stored.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    with pytest.raises(ObjectCorrupt):
        store.get_bytes("key", sha256=sha256_of(data))


def test_range_is_part_of_the_object(store: ObjectStore) -> None:
    store.put_bytes("key", b"0123456789")
    assert store.get_range("key", 3, 4) == b"3456"
    assert store.get_range("key", 8, 100) == b"89"
    with pytest.raises(InvalidRequest, match="after the end"):
        store.get_range("key", 100, 1)


def test_what_is_not_there_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    assert not store.exists("nothing")
    with pytest.raises(ObjectNotFound, match="nothing"):
        store.get_bytes("nothing")
    with pytest.raises(ObjectNotFound, match="nothing"):
        store.stat("nothing")
    with pytest.raises(ObjectNotFound, match="nothing"):
        store.get_to_file("nothing", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_deleting_twice_is_no_error(store: ObjectStore) -> None:
    store.put_bytes("key", b"data")
    store.delete("key")
    store.delete("key")
    assert not store.exists("key")


def test_list_gives_the_keys_under_a_prefix(store: ObjectStore) -> None:
    for key in ("a/1", "a/b/2", "c/3"):
        store.put_bytes(key, b"x")
    assert sorted(store.list("a/")) == ["a/1", "a/b/2"]
    assert sorted(store.list("")) == ["a/1", "a/b/2", "c/3"]


def test_bucket_may_be_ensured_twice(store: ObjectStore) -> None:
    store.put_bytes("kept", b"data")

    store.ensure_bucket()

    assert store.get_bytes("kept") == b"data"


def test_wrong_secret_is_refused_at_once_and_in_words(s3_settings: StorageSettings) -> None:
    settings = s3_settings.model_copy(update={"secret_key": SecretStr("wrong-" + secrets.token_hex(8))})
    started = time.monotonic()
    with pytest.raises(StorageUnavailable, match="AF_STORAGE__"):
        ObjectStore(settings).put_bytes("key", b"data")
    assert time.monotonic() - started < 10.0


def test_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_errors, "_PATIENCE_S", 0.2)
    store = ObjectStore(StorageSettings(endpoint=f"127.0.0.1:{free_port()}"))
    with pytest.raises(StorageUnavailable, match="did not answer"):
        store.get_bytes("key")


def test_store_bears_a_fork(store: ObjectStore) -> None:
    store.put_bytes("before", b"parent")
    pid = os.fork()
    if pid == 0:
        is_right = store.get_bytes("before") == b"parent"
        store.put_bytes("child", b"child")
        os._exit(0 if is_right else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.get_bytes("child") == b"child"


def test_every_acknowledged_put_survives_kill_nine_of_the_server(own_server: S3Server) -> None:
    """Five kills while four writers put: what returned is there, whole; writers never see an error."""
    ObjectStore(own_server.settings).ensure_bucket()
    acknowledged: dict[str, bytes] = {}
    failures: list[BaseException] = []
    stop = threading.Event()

    def write(writer: int) -> None:
        store = ObjectStore(own_server.settings)
        number = 0
        try:
            while not stop.is_set():
                key, data = f"w{writer}/{number}", os.urandom(50_000)
                store.put_bytes(key, data)
                acknowledged[key] = data
                number += 1
        except StorageUnavailable as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for writer in writers:
        writer.start()
    for _ in range(5):
        seen = len(acknowledged)
        deadline = time.monotonic() + 30.0
        while len(acknowledged) < seen + 8 and time.monotonic() < deadline:
            time.sleep(0.02)
        own_server.kill()
        own_server.start()
    stop.set()
    for writer in writers:
        writer.join(60.0)
    store = ObjectStore(own_server.settings)
    assert failures == []
    assert len(acknowledged) >= 40
    for key, data in acknowledged.items():
        assert store.get_bytes(key, sha256=sha256_of(data)) == data
