"""Lists as people write them: every format gives the same lines, and errors name file and line."""

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from audiofoundation.errors import FetchRefused, InvalidRequest
from audiofoundation.ingestion.list_files import list_suffix, read_list
from audiofoundation.ingestion.list_records import to_seconds
from audiofoundation.ingestion.source import SourceLine
from audiofoundation.ingestion.sources.http_list import HttpList
from audiofoundation.ingestion.sources.protocol import Reading
from tests.data_plane import LOOPBACK, FileServer, serving_files

A, B = "https://x.org/a", "https://x.org/b"
FULL = SourceLine(A, title="Rain, far", channel="Someone", license="CC-BY", duration_s=92.5)


def lines_of(path: Path) -> list[SourceLine]:
    return [listed.line for listed in read_list(path)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "\n# comment\n https://x.org/a \n\nbad line\n", [SourceLine(A), SourceLine("bad line")]),
        ("a.csv", "https://x.org/a,1\nhttps://x.org/b,2\n", [SourceLine(A), SourceLine(B)]),
        (
            "b.csv",
            'Title,URL,Duration,License,channel\n"Rain, far",https://x.org/a,1:32.5,CC-BY,Someone\n,https://x.org/b,,,\n',
            [FULL, SourceLine(B)],
        ),
        (
            "a.tsv",
            "video_id\tchannel\ndQw4w9WgXcQ\tSomeone\n",
            [SourceLine("youtube:dQw4w9WgXcQ", channel="Someone")],
        ),
        (
            "a.jsonl",
            '{"url": "https://x.org/a", "duration": "long", "title": "a\\u0000b"}\n"https://x.org/b"\n{broken\n\n',
            [SourceLine(A, title="ab"), SourceLine(B), SourceLine("{broken")],
        ),
        ("bom.txt", "\ufeffhttps://x.org/a\r\n", [SourceLine(A)]),
    ],
)
@pytest.mark.parametrize("is_gzip", [False, True])
def test_every_kind_of_list_is_read(
    name: str, text: str, expected: list[SourceLine], is_gzip: bool, tmp_path: Path
) -> None:
    path = tmp_path / (name + ".gz" if is_gzip else name)
    path.write_bytes(gzip.compress(text.encode()) if is_gzip else text.encode())
    assert lines_of(path) == expected


def test_parquet_gives_the_same_lines(tmp_path: Path) -> None:
    columns = {
        "URL": [A, B],
        "title": ["Rain, far", None],
        "channel": ["Someone", None],
        "license": ["CC-BY", None],
        "duration": [92.5, None],
        "unused": [b"\x00", b"\x01"],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", row_group_size=1)
    assert lines_of(tmp_path / "a.parquet") == [FULL, SourceLine(B)]


def test_lines_are_numbered_as_editors_number_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'url,title\n{A},"two\nlines"\n\n{B},\n')
    assert [listed.number for listed in read_list(tmp_path / "a.csv")] == [3, 5]
    (tmp_path / "a.txt").write_text(f"# note\n\n{A}\n")
    assert [listed.number for listed in read_list(tmp_path / "a.txt")] == [3]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b"artist,song\nx,y\n", "a.csv:1: the first row names no column `url`"),
        ("a.csv", b'url\n"' + b"x" * 200_000 + b'"\n', "a.csv:2: field larger than field limit"),
        ("a.txt", b"x" * (1 << 21), "a.txt:1: a line of more than"),
        ("a.txt.gz", gzip.compress(b"https://x.org/a\n" * 999)[:-9], "a.txt.gz: the compressed list is damaged"),
        ("a.parquet", b"PAR1 nothing", "a.parquet: not a parquet file"),
    ],
)
def test_what_is_no_list_is_named(name: str, data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidRequest) as caught:
        lines_of(tmp_path / name)
    assert words in caught.value.message


@pytest.mark.parametrize(("name", "line"), [("a.txt", "\n"), ("a.txt", "#\n"), ("a.csv", ",\n"), ("a.jsonl", "\n")])
def test_a_list_of_nothing_is_given_up_however_small_it_arrives(name: str, line: str, tmp_path: Path) -> None:
    header = "url,title\n" if name == "a.csv" else ""
    bomb = gzip.compress((header + line * 1_500_000).encode(), 1)
    with serving_files(FileServer({f"/{name}.gz": bomb})) as server, pytest.raises(FetchRefused, match="name nothing"):
        list(HttpList(LOOPBACK).pages(server.url(f"/{name}.gz"), Reading(tmp_path)))


def test_a_list_that_grows_too_large_when_it_is_unpacked_is_refused(tmp_path: Path) -> None:
    data = gzip.compress(b"https://x.org/a\n" * 3000)
    with serving_files(FileServer({"/a.txt.gz": data})) as server:
        address = server.url("/a.txt.gz")
        pages = list(HttpList(LOOPBACK, max_characters=3000 * 16).pages(address, Reading(tmp_path)))
        assert sum(page.num_entries for page in pages) == 3000
        with pytest.raises(FetchRefused, match="unpacked"):
            list(HttpList(LOOPBACK, max_characters=3000 * 16 - 1).pages(address, Reading(tmp_path)))


def test_blank_lines_between_many_sources_are_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(("https://x.org/a\n" + "\n" * 700) * 2000)
    assert len(lines_of(tmp_path / "a.txt")) == 2000


def test_parquet_without_a_source_column_is_named(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"song": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidRequest, match="no column is called `url`"):
        lines_of(tmp_path / "a.parquet")


def test_a_list_in_another_encoding_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"https://x.org/\xe4\n")
    assert lines_of(tmp_path / "a.txt") == [SourceLine("https://x.org/\ufffd")]


def test_names_tell_how_a_list_is_read() -> None:
    names = ["a.TXT", "a.csv.gz", "a.parquet", "a.parquet.gz", "a.tar.gz", "a.wav", "a.gz", "list"]
    assert [list_suffix(name) for name in names] == [".txt", ".csv", ".parquet", None, None, None, None, None]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("90", 90.0),
        ("1:30", 90.0),
        ("1:00:01.5", 3601.5),
        (7, 7.0),
        ("", None),
        ("-1", None),
        ("nan", None),
        (None, None),
        ("1e306:0:0", None),
        ("1e400", None),
    ],
)
def test_durations_are_seconds_or_clock_times(value: object, seconds: float | None) -> None:
    assert to_seconds(value) == seconds


def test_a_json_list_of_a_million_brackets_is_one_bad_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + "\n" + json.dumps(A) + "\n")
    assert lines_of(tmp_path / "a.jsonl")[1] == SourceLine(A)
