import json
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from audiofoundation.errors import Conflict
from audiofoundation.interchange.staging import FORMAT, FORMAT_KEY, MARKER, is_ours, staged_folder
from tests.servers import process_context


def fill(stage: Path, content: str) -> None:
    (stage / "data").write_text(content)
    (stage / MARKER).write_text(json.dumps({FORMAT_KEY: FORMAT}))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with staged_folder(out) as stage:
        fill(stage, "new")
        assert not out.exists()

    assert (out / "data").read_text() == "new"
    assert names(out.parent) == ["out"]


def test_an_earlier_result_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with staged_folder(tmp_path / "out") as stage:
            fill(stage, content)
            (stage / content).touch()

    assert names(tmp_path / "out") == ["data", "new", MARKER]
    assert names(tmp_path) == ["out"]


def test_a_failure_leaves_the_earlier_result(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as stage:
        fill(stage, "old")
    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "out") as stage:
        fill(stage, f"half {1 / 0}")

    assert (tmp_path / "out" / "data").read_text() == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("marker", [None, "", "[]", '{"format": "another"}'])
def test_what_was_not_made_here_is_left_alone(tmp_path: Path, marker: str | None) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    if marker is not None:
        (out / MARKER).write_text(marker)

    with pytest.raises(Conflict, match="not made here"), staged_folder(out):
        pytest.fail("it must not get this far")

    assert (out / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged_folder(tmp_path / "out") as stage:
        fill(stage, "new")

    assert is_ours(tmp_path / "out")


@pytest.mark.parametrize("source", ["out", "out/inner"])
def test_the_folder_that_is_read_is_not_replaced(tmp_path: Path, source: str) -> None:
    (tmp_path / "out" / "inner").mkdir(parents=True)
    (tmp_path / "out" / MARKER).write_text(json.dumps({FORMAT_KEY: FORMAT}))

    with pytest.raises(Conflict, match="elsewhere"), staged_folder(tmp_path / "out", source=tmp_path / source):
        pytest.fail("it must not get this far")


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").touch()

    with pytest.raises(Conflict, match="is a file"), staged_folder(tmp_path / "out"):
        pytest.fail("it must not get this far")


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as stage:
        with pytest.raises(Conflict, match="Another process"), staged_folder(tmp_path / "out"):
            pytest.fail("it must not get this far")
        fill(stage, "first")

    assert (tmp_path / "out" / "data").read_text() == "first"


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    context = process_context()
    ours, theirs = context.Pipe()
    child = context.Process(target=_die_inside, args=(tmp_path / "out", theirs))
    child.start()
    assert ours.recv() == "filled"
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert not (tmp_path / "out").exists()

    with staged_folder(tmp_path / "out") as stage:
        assert names(stage) == []
        fill(stage, "new")

    assert names(tmp_path) == ["out"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as stage:
        fill(stage, "old")
    (tmp_path / "out").rename(tmp_path / ".out.audiofoundation-previous")

    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "out"):
        raise KeyboardInterrupt

    assert (tmp_path / "out" / "data").read_text() == "old"


def _die_inside(out: Path, pipe: Connection) -> None:
    with staged_folder(out) as stage:
        fill(stage, "half")
        pipe.send("filled")
        signal.pause()
