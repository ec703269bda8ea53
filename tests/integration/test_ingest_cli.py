"""The command line against the real service: lists, feeds, plans and what it says of failures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from audiofoundation.cli import create_cli
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import (
    DataPlane,
    FileServer,
    at_work,
    create_data_plane,
    data_plane_settings,
    recordings,
    serving_files,
    tone,
)


@pytest.fixture
def plane(
    sqlite_engine: Engine, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DataPlane]:
    """The service on a port, and a worker."""
    plane = create_data_plane(sqlite_engine, store, data_plane_settings(tmp_path / "data"))
    with at_work(plane, monkeypatch):
        yield plane


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(create_cli(), [str(argument) for argument in arguments])


def run_json(*arguments: str | Path, exit_code: int = 0) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    # The worker's log lands on the same stdout here.
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.mark.usefixtures("plane")
def test_failed_files_are_named_with_their_reason(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "good.opus").write_bytes(recordings(1)[0].read_bytes())
    for number in range(12):
        (folder / f"bad-{number}.wav").write_bytes(b"no audio %d" % number)
    result = run("ingest", folder, "-c", "clips", "--wait")
    assert result.exit_code == 0
    named = [line for line in result.stdout.splitlines() if line.startswith("failed: bad-")]
    assert len(named) == 10
    assert all("undecodable_audio" in line for line in named)
    again = run_json("ingest", folder, "-c", "clips", "--wait")
    assert (again["added"], again["states"]) == (0, {"failed": 12, "stored": 1})
    assert {failure["error_class"] for failure in again["failures"]} == {"undecodable_audio"}
    (item,) = run_json("items", "-c", "clips", "--state", "stored")["items"]
    assert (item["source"], item["tool_version"]) == ("good.opus", "upload")
    assert item["retrieved_at"] > 0
    assert "bad-1" in run("items", "-c", "clips").stdout


@pytest.mark.usefixtures("plane")
@pytest.mark.parametrize("name", ["ä b?c#d%2F%e 音声", "..."])
def test_a_collection_is_reached_by_any_name_that_it_may_have(name: str, tmp_path: Path) -> None:
    run_json("ingest", recordings(1)[0], "-c", name, "--wait")

    assert [item["state"] for item in run_json("items", "-c", name)["items"]] == ["stored"]
    assert run_json("preprocess", "-c", name, "--wait")["items"] == 1
    report = tmp_path / "report.png"
    assert run_json("probe-report", name, "-o", report)["collection"] == name
    assert f"no collection is called {name + '%'!r}" in str(run("items", "-c", name + "%").exception)


@pytest.mark.usefixtures("plane")
@pytest.mark.parametrize("name", ["a/b", "/", "a\nb", "a\x00b", "a\x85b", ".", ".."])
def test_a_name_that_no_address_can_carry_is_refused_in_a_sentence(name: str) -> None:
    refused = run("ingest", recordings(1)[0], "-c", name)

    assert refused.exit_code == 1
    assert str(refused.exception).startswith("a collection's name stands in addresses: it holds no /")


@pytest.mark.usefixtures("plane")
def test_a_collection_without_any_recording_ends_the_command_with_one(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEnothing")
    found = run_json("ingest", tmp_path, "-c", "clips", "--wait", exit_code=1)
    assert found["states"] == {"failed": 1}


@pytest.mark.usefixtures("plane")
def test_what_of_a_recording_does_not_decode_is_told(tmp_path: Path) -> None:
    whole = next(path for path in recordings(99) if path.suffix == ".flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    run_json("ingest", tmp_path, "-c", "clips", "--wait")

    (item,) = run_json("items", "-c", "clips")["items"]

    assert (item["state"], "were decoded" in item["damage"]) == ("stored", True)
    assert "damage" in run("items", "-c", "clips").stdout


@pytest.mark.usefixtures("plane")
def test_a_folder_without_recordings_is_told_in_a_sentence(tmp_path: Path) -> None:
    result = run("ingest", tmp_path, "-c", "clips", "--wait")
    assert result.exit_code == 1
    assert "there is no recording" in result.stderr


@pytest.mark.usefixtures("plane")
def test_rejected_lines_are_named_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "urls.csv"
    path.write_text("url,title\nhttps://x.org/a,\nnonsense,\nftp://x.org/b,\n")
    result = run("ingest", path, "-c", "web", "--plan")
    assert result.exit_code == 0
    assert f"{path}:3: 'nonsense' is no URL" in result.stderr
    assert f"{path}:4: 'ftp' addresses" in result.stderr
    path.write_text("song\tartist,x\n")
    broken = run("ingest", path, "-c", "web", "--plan")
    assert broken.exit_code != 0
    assert f"{path}:1: the first row names no column" in str(broken.exception)


def test_a_licence_named_with_the_command_is_that_of_addresses_and_files_without_one(
    plane: DataPlane, tmp_path: Path
) -> None:
    local, listed = tone(tmp_path / "mine.wav", 2.0), tmp_path / "list.csv"
    with serving_files(
        FileServer({path: tone(tmp_path / "a.wav", 31.0).read_bytes() for path in ("/a", "/b")})
    ) as files:
        listed.write_text(f"url,license\n{files.url('/a')},\n{files.url('/b')},CC0\n")
        refused = run_json("ingest", listed, "-c", "web", "--wait")
        assert refused["states"] == {"rejected": 1, "stored": 1}
        taken = run_json("ingest", listed, local, "-c", "web", "--license", "CC-BY-SA-4.0", "--wait")
    assert taken["states"] == {"stored": 3}
    licenses = {str(item["source"]).rpartition("/")[2]: item["license"] for item in plane.items("web")}
    assert licenses == {"a": "CC-BY-SA-4.0", "b": "CC0", "mine.wav": "CC-BY-SA-4.0"}


@pytest.mark.usefixtures("plane")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_list_on_the_web_is_counted_like_the_same_list_here(tmp_path: Path, encoding: str) -> None:
    lines = "url,title\nhttps://x.org/a,\nhttps://x.org/a,again\nnonsense,\nhttps://x.org/a,\nftp://x.org/b,\n"
    path = tmp_path / "list.csv"
    path.write_text(lines if encoding == "utf-8" else lines.removeprefix("url,title\n"), encoding=encoding)
    here = run_json("ingest", path, "-c", "here", "--plan")
    with serving_files(FileServer({"/list.csv": path.read_bytes()})) as files:
        there = run_json("ingest", files.url("/list.csv"), "-c", "there", "--plan")
        result = run("ingest", files.url("/list.csv"), "-c", "text", "--plan")
        address = files.url("/list.csv")
    counts = ("added", "duplicates", "rejected")
    assert {name: there[name] for name in counts} == {name: here[name] for name in counts}
    assert sum(there["rejected"].values()) >= 2
    summary = f"{there['added']} added, {there['duplicates']} there already, {sum(there['rejected'].values())} lines"
    assert summary in result.stdout
    if encoding == "utf-8":
        assert (there["added"], there["duplicates"]) == (1, 2)
        assert f"{address}:4: 'nonsense' is no URL" in result.stderr
        assert f"{address}:6: 'ftp' addresses" in result.stderr


@pytest.mark.usefixtures("plane")
def test_a_feed_without_recordings_is_not_passed_over_in_silence() -> None:
    entries = "<item><enclosure url='ftp://x.org/a'/></item>"
    bodies = {name: f"<rss><channel>{body}</channel></rss>".encode() for name, body in (("/e", ""), ("/b", entries))}
    with serving_files(FileServer(bodies)) as files:
        result = run("ingest", f"feed:{files.url('/e')}", f"feed:{files.url('/b')}", "-c", "pod", "--plan")
        assert f"{files.url('/e')}: the feed names no recording" in result.stderr
        assert f"{files.url('/b')}, entry 1: 'ftp' addresses are not fetched" in result.stderr
    assert "0 added, 0 there already, 1 lines rejected" in result.stdout


@pytest.mark.usefixtures("plane")
def test_a_takedown_of_what_was_never_here_says_that_it_bans_it() -> None:
    result = run("takedown", "https://never.example/a.mp3", "--wait")
    assert result.exit_code == 0
    assert "nothing here is known by the name https://never.example/a.mp3" in result.stdout
    assert "refused from now on" in result.stdout
    run("ingest", "https://never.example/a.mp3", "-c", "web", "--plan")
    refused = run_json("ingest", "https://never.example/a.mp3", "-c", "web", "--plan")
    assert refused["states"] == {"tombstoned": 1}


@pytest.mark.usefixtures("plane")
def test_a_takedown_of_one_recording_says_one() -> None:
    (recording,) = recordings(1)
    run("ingest", recording, "-c", "clips", "--wait")
    (item,) = run_json("items", "-c", "clips")["items"]
    assert "1 item and 1 recording are taken down" in run("takedown", item["id"], "--wait").stdout

    again = run("ingest", recording, "-c", "again", "--wait")
    assert again.exit_code == 1
    assert f"not taken: {recording.name}: taken down by the operator (taken_down)" in again.stdout


@pytest.mark.usefixtures("plane")
def test_a_feed_is_waited_for_and_counted(tmp_path: Path) -> None:
    files = FileServer({"/a.wav": tone(tmp_path / "a.wav", 31.0).read_bytes()})
    with serving_files(files):
        items = (
            f'<item><enclosure url="{files.url("/a.wav")}"/></item><item><enclosure url="{files.url("/b")}"/></item>'
        )
        files.files["/feed.xml"] = f"<rss><channel><license>CC0</license>{items}</channel></rss>".encode()
        plan = run_json("ingest", files.url("/feed.xml"), "-c", "pod", "--plan")
        assert (plan["added"], plan["states"], plan["discoveries"]) == (2, {"queued": 2}, {"done": 1})
        assert files.asked == ["/feed.xml"]
        found = run_json("ingest", files.url("/feed.xml"), "-c", "pod", "--wait")
        assert (found["added"], found["states"]) == (0, {"failed": 1, "stored": 1})
        assert [failure["source"] for failure in found["failures"]] == [files.url("/b")]


@pytest.mark.usefixtures("plane")
def test_recordings_of_folders_keep_their_folders_and_other_files_are_named(tmp_path: Path) -> None:
    for number, recording in enumerate(recordings(2)):
        folder = tmp_path / "music" / ("jazz", "rock")[number]
        folder.mkdir(parents=True)
        (folder / f"take{recording.suffix}").write_bytes(recording.read_bytes())
    (tmp_path / "music" / "notes.txt").write_text("https://x.org/a")

    plan = run("ingest", tmp_path / "music", "-c", "clips", "--plan")
    result = run("ingest", tmp_path / "music", "-c", "clips", "--wait")

    assert "0 added, 0 there already, 2 to be uploaded" in plan.stdout
    assert "1 file is no recording by the name and left out: notes.txt" in result.stderr
    sources = {item["source"] for item in run_json("items", "-c", "clips")["items"]}
    assert sorted(Path(source).parent.as_posix() for source in sources) == ["jazz", "rock"]
    for command in ("lineage", "takedown"):
        assert "Files of this name: item_" in str(run(command, sorted(sources)[0]).exception)


def test_an_empty_licence_is_wrong_usage() -> None:
    assert run("ingest", "https://x.org/a", "-c", "web", "--license", "").exit_code == 2


@pytest.mark.usefixtures("plane")
def test_options_that_exclude_each_other_are_wrong_usage() -> None:
    assert run("preprocess", "-c", "clips", "--keep-level", "--target-lufs", "-20").exit_code == 2


@pytest.mark.usefixtures("plane")
def test_what_came_of_many_things_alike_is_shown_once() -> None:
    run("ingest", *recordings(3), "-c", "clips", "--wait")
    dataset = run_json("preprocess", "-c", "clips", "--wait")["dataset"]

    lines = run("lineage", dataset).stdout.splitlines()

    assert len([line for line in lines if "version " in line]) == 1
    assert len([line for line in lines if "shard " in line]) == 3
    assert all(recording.name in "\n".join(lines) for recording in recordings(3))


@pytest.mark.usefixtures("plane")
def test_why_something_was_not_taken_stands_in_the_summary() -> None:
    result = run("ingest", "https://x.org/a", "https://x.org/b", "-c", "web", "--plan")

    (line,) = [line for line in result.stdout.splitlines() if line.startswith("not taken: ")]
    assert line.startswith("not taken: https://x.org/")
    assert "--license" in line


@pytest.mark.usefixtures("plane")
def test_what_cannot_be_expanded_ends_the_command_with_its_reason() -> None:
    with serving_files(FileServer()) as files:
        found = run_json("ingest", f"feed:{files.url('/gone')}", "-c", "pod", "--wait", exit_code=1)
    (failure,) = found["failures"]
    assert (failure["is_discovery"], failure["error_class"]) == (True, "fetch_failed")
    assert "404" in failure["error"]
