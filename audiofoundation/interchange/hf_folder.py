"""Rows to Arrow files, and Arrow files to folders that `datasets.load_from_disk` opens. Memory stays bounded."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from audiofoundation.interchange.progress_bars import no_progress_bars

# `datasets` joins a file's rows in memory while it writes them: small files keep that small.
_MAX_FILE_BYTES = 256 << 20
Row = Mapping[str, object]


class RowWriter:
    """Appends rows to one Arrow stream, each written at once: a sample of 30 s is about 5 MB.

    Args:
        path: the file; it appears with the first row.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self.num_rows = 0

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, row: Row, types: Mapping[str, pa.DataType]) -> None:
        """Append one row; it has a value for every column. Arrays are NumPy's, nested ones lists of them.

        Args:
            row: value by column.
            types: Arrow type by column, the same for every row.
        """
        from datasets import Features

        schema = Features.from_arrow_schema(pa.schema(list(types.items()))).arrow_schema
        if self._writer is None:
            self._writer = pa.ipc.new_stream(str(self._path), schema)
        arrays = [pa.array([row[field.name]], type=field.type) for field in schema]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
        self.num_rows += 1


def save_folders(rows: Path, whole: Path, split: Path, *, validation: Sequence[int]) -> None:
    """Write the rows of an Arrow stream as a dataset, and as a dictionary with `train` and `validation`.

    Args:
        rows: what a `RowWriter` wrote, with at least one row.
        whole: folder of the dataset.
        split: folder of the dictionary.
        validation: indices of the rows that validate; the others train. Both keep their order.
    """
    from datasets import Dataset, DatasetDict

    with no_progress_bars():
        dataset = Dataset.from_file(str(rows))
        row_bytes = rows.stat().st_size / len(dataset)
        dataset.save_to_disk(str(whole), num_shards=_num_files(len(dataset), row_bytes))
        held_out = set(validation)
        parts = {
            "train": dataset.select([index for index in range(len(dataset)) if index not in held_out]),
            "validation": dataset.select(sorted(held_out)),
        }
        num_files = {name: _num_files(len(part), row_bytes) for name, part in parts.items()}
        DatasetDict(parts).save_to_disk(str(split), num_shards=num_files)


def _num_files(num_rows: int, row_bytes: float) -> int:
    """Return in how many files rows are stored. Without rows one too: `datasets` 5.2 writes none of its own accord,
    and then cannot open the folder."""
    return max(1, min(num_rows, math.ceil(num_rows * row_bytes / _MAX_FILE_BYTES)))
