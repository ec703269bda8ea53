from pathlib import Path

import pytest

from audiofoundation.cli.output import CommandError
from audiofoundation.cli.source_lists import in_batches, read_list, sort_sources, walk


def test_arguments_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "urls.txt").touch()
    (tmp_path / "folder").mkdir()
    found = sort_sources(
        [*(str(tmp_path / name) for name in ("a.wav", "urls.txt", "folder")), "https://x.org/a", "youtube:dQw4w9WgXcQ"]
    )
    assert found.files == (tmp_path / "a.wav",)
    assert found.lists == (tmp_path / "urls.txt",)
    assert found.folders == (tmp_path / "folder",)
    assert found.addresses == ("https://x.org/a", "youtube:dQw4w9WgXcQ")


@pytest.mark.parametrize("argument", ["absent.wav", "ftp://x.org/a", ""])
def test_what_is_nothing_is_refused(argument: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        sort_sources([str(tmp_path / argument) if argument == "absent.wav" else argument or "\0"])


def test_a_folder_gives_media_and_files_without_extension(tmp_path: Path) -> None:
    names = ["b.WAV", "a.opus", "no_extension", "notes.txt", "cover.jpg", ".hidden.wav", "sub/c.mp3", ".git/d.wav"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in walk(tmp_path)]
    assert found == ["a.opus", "b.WAV", "no_extension", "sub/c.mp3"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "\n# comment\n https://x.org/a \n\nbad line\n", ["https://x.org/a", "bad line"]),
        ("a.csv", "https://x.org/a,1\nhttps://x.org/b,2\n", ["https://x.org/a", "https://x.org/b"]),
        (
            "b.csv",
            'Title,URL,Duration,License\n"a, b",https://x.org/a,12.5,CC-BY\n,https://x.org/b,,\n',
            [
                {"source": "https://x.org/a", "title": "a, b", "license": "CC-BY", "duration_s": 12.5},
                {"source": "https://x.org/b"},
            ],
        ),
        (
            "a.tsv",
            "video_id\tchannel\ndQw4w9WgXcQ\tSomeone\n",
            [{"source": "youtube:dQw4w9WgXcQ", "channel": "Someone"}],
        ),
        (
            "a.jsonl",
            '{"url": "https://x.org/a", "duration": "long", "title": "a\\u0000b"}\n"https://x.org/b"\n{broken\n\n',
            [{"source": "https://x.org/a", "title": "ab"}, "https://x.org/b", "{broken"],
        ),
        ("bom.txt", "\ufeffhttps://x.org/a\r\n", ["https://x.org/a"]),
    ],
)
def test_every_kind_of_list_is_read(name: str, text: str, expected: list[object], tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert list(read_list(tmp_path / name)) == expected


def test_a_list_in_another_encoding_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"https://x.org/\xe4\n")
    assert list(read_list(tmp_path / "a.txt")) == ["https://x.org/\ufffd"]


def test_batches_cover_everything() -> None:
    assert list(in_batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_batches([], 2)) == []
