from pathlib import Path

import pytest
import typer

from audiofoundation.cli.output import CommandError
from audiofoundation.cli.source_lists import in_batches, sort_sources, walk

ADDRESSES = (
    "https://x.org/a",
    "youtube:dQw4w9WgXcQ",
    "ytsearch5:rain on a roof",
    "feed:https://x.org/f",
    "yandex:liked",
)


def test_arguments_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "urls.txt").touch()
    (tmp_path / "rows.csv.gz").touch()
    (tmp_path / "folder").mkdir()
    found = sort_sources(
        [*(str(tmp_path / name) for name in ("a.wav", "urls.txt", "rows.csv.gz", "folder")), *ADDRESSES]
    )
    assert found.files == (tmp_path / "a.wav",)
    assert found.lists == (tmp_path / "urls.txt", tmp_path / "rows.csv.gz")
    assert found.folders == (tmp_path / "folder",)
    assert found.addresses == ADDRESSES


@pytest.mark.parametrize("argument", ["absent.wav", "ftp://x.org/a", ""])
def test_what_is_nothing_is_refused(argument: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        sort_sources([str(tmp_path / argument) if argument == "absent.wav" else argument or "\0"])


def test_a_folder_gives_media_and_files_without_extension(tmp_path: Path) -> None:
    names = ["b.WAV", "a.opus", "no_extension", "notes.txt", "cover.jpg", ".hidden.wav", "sub/c.mp3", ".git/d.wav"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    passed_over = list[Path]()
    found = list(sort_sources([str(tmp_path)]).recordings(passed_over))
    assert [file.name for file in found] == ["a.opus", "b.WAV", "no_extension", "sub/c.mp3"]
    assert [file.path.relative_to(tmp_path).as_posix() for file in found] == [file.name for file in found]
    assert [path.name for path in passed_over] == ["cover.jpg", "notes.txt"]


def test_a_file_that_is_named_is_called_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert [file.name for file in sort_sources([str(tmp_path / "a.wav")]).recordings([])] == ["a.wav"]


def test_links_that_lead_back_are_not_followed_for_ever(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "take.ogg").touch()
    for place, target in (("l1", "."), ("l2", "."), ("d/up", ".."), ("again", "d")):
        (tmp_path / place).symlink_to(target)
    (tmp_path / "gone.wav").symlink_to("nowhere")
    assert [path.name for path in walk(tmp_path)].count("take.ogg") == 1
    passed_over = list[Path]()
    assert len(list(sort_sources([str(tmp_path)]).recordings(passed_over))) == 1
    assert [path.name for path in passed_over] == ["gone.wav"]


@pytest.mark.parametrize("argument", ["", "  "])
def test_an_empty_argument_is_wrong_usage_and_not_this_folder(argument: str) -> None:
    with pytest.raises(typer.BadParameter, match="empty"):
        sort_sources([argument])


def test_lines_say_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("url,title\nhttps://x.org/a,\nhttps://x.org/b,Rain\n")
    lines = list(sort_sources(["https://x.org/0", str(path)]).lines())
    assert [line.value for line in lines] == [
        "https://x.org/0",
        "https://x.org/a",
        {"source": "https://x.org/b", "title": "Rain"},
    ]
    assert [line.place for line in lines] == ["", f"{path}:2: ", f"{path}:3: "]


def test_batches_cover_everything() -> None:
    assert list(in_batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_batches([], 2)) == []
