import json
import multiprocessing
import os
import signal
import stat
from pathlib import Path

import pytest

from audiofoundation.embedded.credentials import load_credentials
from audiofoundation.embedded.data_directory import DataDirectory
from audiofoundation.embedded.instance_lock import instance_lock
from audiofoundation.embedded.log_file import LogFile
from audiofoundation.embedded.private_file import write_private
from audiofoundation.errors import Conflict


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path / "a" / "b")

    assert mode_of(directory.root) == 0o700
    assert mode_of(directory.logs) == 0o700
    assert directory.catalog_url == f"sqlite:///{tmp_path}/a/b/catalog.db"


def test_secrets_are_generated_once_privately_and_differ_between_directories(tmp_path: Path) -> None:
    first = load_credentials(tmp_path / "one.json")
    again = load_credentials(tmp_path / "one.json")
    other = load_credentials(tmp_path / "two.json")

    assert first == again
    assert mode_of(tmp_path / "one.json") == 0o600
    assert first.api_key.get_secret_value() != other.api_key.get_secret_value()
    assert len(first.api_key.get_secret_value()) >= 43  # 256 bits in base64


def test_secrets_that_became_readable_are_made_private_again(tmp_path: Path) -> None:
    load_credentials(tmp_path / "s.json")
    (tmp_path / "s.json").chmod(0o644)

    load_credentials(tmp_path / "s.json")

    assert mode_of(tmp_path / "s.json") == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"api_key": "x"}'])
def test_damaged_secrets_are_an_error_and_are_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)

    with pytest.raises(Conflict, match="damaged"):
        load_credentials(path)

    assert path.read_text() == text


def test_a_private_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, "new")

    assert path.read_text() == "new"
    assert mode_of(path) == 0o600
    assert os.listdir(tmp_path) == ["ready.json"]  # noqa: PTH208


def test_a_second_holder_is_refused_by_name_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "up.lock"
    with instance_lock(lock), pytest.raises(Conflict, match=rf"process {os.getpid()}\b"), instance_lock(lock):
        pass
    with instance_lock(lock):  # released with its holder's block
        pass


def hold_and_die(path: Path) -> None:
    with instance_lock(path):
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "up.lock"
    holder = multiprocessing.get_context("spawn").Process(target=hold_and_die, args=(lock,))
    holder.start()
    holder.join(30)
    assert holder.exitcode == -signal.SIGKILL
    stale = lock.read_text()

    with instance_lock(lock):
        assert lock.read_text() == f"{os.getpid()}\n"

    assert stale == f"{holder.pid}\n"


def test_logs_rotate_by_size_and_old_ones_go(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", max_bytes=100, num_kept=2)
    for number in range(12):
        log.write(f"{number:02d}".encode() + b"-" * 47 + b"\n")
    log.close()

    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["x.log", "x.log.1", "x.log.2"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    kept = "".join((tmp_path / name).read_text() for name in ("x.log.2", "x.log.1", "x.log"))
    assert [line[:2] for line in kept.splitlines()] == ["06", "07", "08", "09", "10", "11"]
    assert log.last_line.startswith("11")


def test_a_log_that_could_not_be_rotated_goes_on_when_it_can(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", max_bytes=100, num_kept=1)
    (tmp_path / "x.log.1" / "in the way").mkdir(parents=True)
    for _ in range(4):
        log.write(b"lost or kept" * 5)  # never raises: the child's pipe must be read on

    (tmp_path / "x.log.1" / "in the way").rmdir()
    (tmp_path / "x.log.1").rmdir()
    log.write(b"found again")
    log.close()

    assert (tmp_path / "x.log").read_bytes().endswith(b"found again")


def test_the_ready_file_is_json(tmp_path: Path) -> None:
    from audiofoundation.embedded.plan import Addresses
    from audiofoundation.embedded.stack import write_ready_file

    path = tmp_path / "made" / "ready.json"
    write_ready_file(path, Addresses("http://h:1", "h:2", "http://h:3", "redis://h:4/0", "key", 5))

    assert json.loads(path.read_text()) == {
        "url": "http://h:1",
        "grpc": "h:2",
        "s3": "http://h:3",
        "redis": "redis://h:4/0",
        "api_key": "key",
        "pid": 5,
    }
    assert mode_of(path) == 0o600
