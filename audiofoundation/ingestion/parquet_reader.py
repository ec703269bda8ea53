"""The process that reads one parquet list: `parquet_list.py` starts it and believes nothing that it says.

A page of a parquet file unpacks whole, and so does a dictionary into every row that refers to it: kilobytes become
gigabytes before a length can be looked at. So this process has a bounded address space, and ends with it.

It writes a line of JSON for some hundred rows, `[[number, source, title, channel, license, duration_s], …]`, and at
last `{"error": null}` or what was wrong.
"""

import json
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audiofoundation.audio.sandbox.confinement import drop_root, forbid_new_privileges, leave_network
from audiofoundation.errors import InvalidRequest
from audiofoundation.ingestion.list_records import (
    KNOWN_COLUMNS,
    MAX_CHARACTERS,
    SOURCE_COLUMNS,
    is_mostly_empty,
    to_line,
)

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

MEMORY_BYTES = 384 << 20  # on top of what the process takes before it sees the file
_CPU_S = 600  # the broker ends a job after 900
_ROWS_AT_ONCE = 256
_READ_BYTES = 1 << 20
_MESSAGE_CHARACTERS = 1 << 20


def main(path: str, max_characters: int | None, output_fd: int) -> None:
    """Write the list's rows to the descriptor, within the walls."""
    leave_network()
    import pyarrow  # 0.3 s and three threads, after which a process can no longer leave its network
    import pyarrow.compute  # loaded while files may be opened
    from pyarrow import parquet

    with os.fdopen(output_fd, "w", encoding="ascii") as output:
        error: str | None = None
        try:
            with pyarrow.OSFile(path) as opened:
                _confine()
                with parquet.ParquetFile(opened, buffer_size=_READ_BYTES) as file:
                    for message in _messages(_Rows(file, max_characters)):
                        output.write(json.dumps(message) + "\n")
        except MemoryError:
            error = f"it takes more than {MEMORY_BYTES >> 20} MiB; is it a list?"
        except InvalidRequest as refusal:
            error = refusal.message
        except (pyarrow.ArrowException, OSError) as failure:
            error = f"not a parquet file that can be read ({str(failure)[:300]})"
        output.write(json.dumps({"error": error}) + "\n")


def _confine() -> None:
    drop_root()
    forbid_new_privileges()
    num_pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory_bytes = num_pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def _messages(rows: "_Rows") -> Iterator[list[list[object]]]:
    message, num_characters = list[list[object]](), 0
    for number, record in rows:
        line = to_line(record)
        rows.num_listed += bool(line.text)
        message.append([number, line.text, line.title, line.channel, line.license, line.duration_s])
        num_characters += len(line.text)
        if len(message) == _ROWS_AT_ONCE or num_characters > _MESSAGE_CHARACTERS:
            yield message
            message, num_characters = [], 0
    yield message


class _Rows:
    """The numbered rows of the columns that a list knows.

    Attributes:
        num_listed: how many of them named something so far; the reader counts.
    """

    def __init__(self, file: "parquet.ParquetFile", max_characters: int | None) -> None:
        self._file = file
        self._left = max_characters
        self._number = 0
        self.num_listed = 0

    def __iter__(self) -> Iterator[tuple[int, dict[str, object]]]:
        schema = self._file.schema_arrow
        names = [field.name for field in schema if field.name.lower() in KNOWN_COLUMNS and _is_plain(field.type)]
        if not any(name.lower() in SOURCE_COLUMNS for name in names):
            raise InvalidRequest("no column is called `url` (or `source`, `link`, `video_id`)")
        for batch in self._batches(names):
            self._count(batch.num_rows)  # as if each ended a line
            columns = {
                name: self._cells(name, column)
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
                if _is_plain(column.type)
            }
            for cells in zip(*columns.values(), strict=True):
                self._number += 1
                if is_mostly_empty(self._number, self.num_listed):
                    raise self._refusal(self._number, f"all but {self.num_listed} of its rows name nothing")
                yield self._number, dict(zip(columns, cells, strict=True))

    def _batches(self, names: list[str]) -> "Iterator[pyarrow.RecordBatch]":
        try:
            yield from self._file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names, use_threads=False)
        except MemoryError as error:
            why = f"from here on {_ROWS_AT_ONCE} rows take more than {MEMORY_BYTES >> 20} MiB"
            raise self._refusal(self._number + 1, why) from error

    def _cells(self, name: str, column: "pyarrow.Array") -> Sequence[object]:
        import pyarrow
        from pyarrow import compute

        if pyarrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not _is_text(column.type):
            return [_value_of(cell) for cell in column]
        column = column.cast(pyarrow.large_binary())
        lengths = compute.binary_length(column)
        if (compute.max(lengths).as_py() or 0) > MAX_CHARACTERS:
            row = compute.index(compute.greater(lengths, MAX_CHARACTERS), True).as_py()
            raise self._refusal(self._number + row + 1, f"its `{name}` is longer than {MAX_CHARACTERS} bytes")
        self._count(compute.sum(lengths).as_py() or 0)
        return [None if cell is None else cell.decode("utf-8", "replace") for cell in column.to_pylist()]

    def _count(self, num_bytes: int) -> None:
        if self._left is not None:
            self._left -= num_bytes
            if self._left < 0:
                raise self._refusal(self._number + 1, "up to here it is too long when it is unpacked")

    def _refusal(self, number: int, why: str) -> InvalidRequest:
        return InvalidRequest(f"row {number}: {why}; is it a list?")


def _value_of(cell: "pyarrow.Scalar") -> object:
    """A number or time as Python has it; None where Python has none."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return None


def _is_text(type_: "pyarrow.DataType") -> bool:
    from pyarrow import types

    return any(
        is_(type_)
        for is_ in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
            types.is_binary_view,
        )
    )


def _is_plain(type_: "pyarrow.DataType") -> bool:
    """Tell whether cells are text, numbers or times; lists and records of them name nothing."""
    from pyarrow import types

    value_type = type_.value_type if types.is_dictionary(type_) else type_
    return _is_text(value_type) or types.is_primitive(value_type) or types.is_null(value_type)
