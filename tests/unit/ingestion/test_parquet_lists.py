"""Parquet lists that somebody else wrote: small files that unpack to gigabytes, and damaged ones."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from audiofoundation.errors import InvalidRequest
from audiofoundation.ingestion.list_files import ListedLine, read_list
from audiofoundation.ingestion.source import SourceLine

A = "https://x.org/a"
MAX_PEAK_MIB = 600
# In a process of its own: this one has written those files, and a new one begins with the peak of what started it.
MEASURED = """
import json, resource, sys
from pathlib import Path
from audiofoundation.errors import InvalidRequest
from audiofoundation.ingestion.list_files import read_list
messages = []
for path in sys.argv[1:]:
    try:
        for line in read_list(Path(path), max_characters=1 << 20):
            pass
        messages.append("")
    except InvalidRequest as error:
        messages.append(error.message)
own_kib = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
peak_kib = own_kib + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([messages, peak_kib >> 10]))
"""


def read(path: Path) -> list[ListedLine]:
    return list(read_list(path))


@pytest.mark.slow
def test_what_unpacks_to_gigabytes_is_refused_within_bounded_memory(tmp_path: Path) -> None:
    one, cell, too_long = pyarrow.array([A]), "x" * (1 << 20), "up to here it is too long"
    files: dict[str, tuple[pyarrow.Array, bool, str]] = {
        "value": (pyarrow.array([A] * 300 + [cell * 5] * 20), True, "row 301: its `url` is longer than 1048576 bytes"),
        "dictionary": (pyarrow.array([cell] * 500), True, "row 1: from here on 256 rows take more than 384 MiB"),
        "page": (pyarrow.array([cell] * 500), False, "row 1: from here on 256 rows take more than 384 MiB"),
        "nulls": (pyarrow.nulls(1_200_000, one.type), True, "row 1000001: all but 0 of its rows name nothing"),
        "rows": (one.take(pyarrow.array([0] * 500_000)), True, too_long),
        "numbers": (pyarrow.array([1] * 1_200_000, pyarrow.int8()), True, too_long),
    }
    paths = [tmp_path / f"{name}.parquet" for name in files]
    for path, (urls, use_dictionary, _) in zip(paths, files.values(), strict=True):
        table = pyarrow.table({"url": urls})
        parquet.write_table(table, path, compression="zstd", use_dictionary=use_dictionary, data_page_size=1 << 30)
        assert path.stat().st_size < 2 << 20

    done = subprocess.run([sys.executable, "-c", MEASURED, *map(str, paths)], stdout=subprocess.PIPE, check=True)

    messages, peak_mib = json.loads(done.stdout)
    for message, path, (_, _, words) in zip(messages, paths, files.values(), strict=True):
        assert message.startswith(f"{path}: ")
        assert words in message
    assert peak_mib < MAX_PEAK_MIB


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_footer(data: bytes) -> bytes:
    return data[:-8] + b"\xff\xff\xff\x7fPAR1"


def with_absurd_counts(data: bytes) -> bytes:
    """The footer's first field after the version and the schema's count becomes the largest there is."""
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return data[: start + 3] + b"\xff" * 9 + data[start + 12 :]


def with_damaged_pages(data: bytes) -> bytes:
    return data[:4] + b"\xff" * 64 + data[68:]


@pytest.mark.parametrize("damage", [cut, without_footer, with_absurd_counts, with_damaged_pages])
def test_a_damaged_file_is_named(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"url": [f"{A}/{number}" for number in range(100)]}), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidRequest, match=r"a\.parquet: not a parquet file"):
        read(path)


def test_a_reader_that_dies_is_no_end_of_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"url": [A]}), path)
    monkeypatch.setattr("audiofoundation.ingestion.parquet_list._CODE", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(InvalidRequest, match="ended without a verdict"):
        read(path)


def test_only_text_numbers_and_times_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "url": pyarrow.array([A.encode(), b"https://x.org/\xe4"], pyarrow.binary()),
        "title": pyarrow.array(["first", "second"]).dictionary_encode(),
        "channel": [["a", "list"], ["of", "names"]],
        "license": [{"name": "CC0"}, {"name": "CC0"}],
        "duration": pyarrow.array([7, 8], pyarrow.int16()),
    }
    parquet.write_table(pyarrow.table(columns), path)
    assert [listed.line for listed in read(path)] == [
        SourceLine(A, title="first", duration_s=7.0),
        SourceLine("https://x.org/\ufffd", title="second", duration_s=8.0),
    ]
    parquet.write_table(pyarrow.table({"url": [[A]]}), path)
    with pytest.raises(InvalidRequest, match="no column is called `url`"):
        read(path)


def test_rows_are_numbered_across_batches_and_a_list_may_be_left_early(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"video_id": [f"{number:011d}" for number in range(1000)]}), path)
    lines = read(path)
    assert [listed.number for listed in lines] == list(range(1, 1001))
    assert lines[-1].line.text == "youtube:00000000999"
    assert next(read_list(path)).number == 1


def test_a_cell_that_python_cannot_hold_is_empty_and_no_end_of_the_list(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    odd = pyarrow.array([1_234_567_891, 2_000_000_000], pyarrow.duration("ns"))
    parquet.write_table(pyarrow.table({"url": [A, f"{A}/b"], "duration": odd}), path)
    assert [listed.line.text for listed in read(path)] == [A, f"{A}/b"]
