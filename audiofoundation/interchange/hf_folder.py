"""Rows to Arrow files, and Arrow files to folders that `datasets.load_from_disk` opens. Memory stays bounded."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

# `datasets` joins a file's rows in memory while it writes them: small files keep that small.
_MAX_SHARD_SIZE = "256MB"
Row = Mapping[str, object]


class RowWriter:
    """Appends rows to one Arrow stream, each written at once: a sample of 30 s is about 5 MB.

    Args:
        path: the file.
        types: Arrow type by column.
    """

    def __init__(self, path: Path, types: Mapping[str, pa.DataType]) -> None:
        from datasets import Features

        plain = pa.schema(list(types.items()))
        self._schema = Features.from_arrow_schema(plain).arrow_schema
        self._writer = pa.ipc.new_stream(str(path), self._schema)
        self.num_rows = 0

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, row: Row) -> None:
        """Append one row; it has a value for every column. Arrays are NumPy's, nested ones lists of them."""
        arrays = [pa.array([row[field.name]], type=field.type) for field in self._schema]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
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

    with _no_progress_bars():
        dataset = Dataset.from_file(str(rows))
        dataset.save_to_disk(str(whole), max_shard_size=_MAX_SHARD_SIZE)
        held_out = set(validation)
        parts = {
            "train": dataset.select([index for index in range(len(dataset)) if index not in held_out]),
            "validation": dataset.select(sorted(held_out)),
        }
        DatasetDict(parts).save_to_disk(str(split), max_shard_size=_MAX_SHARD_SIZE)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Commands show their own; what the caller had set comes back."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    was_enabled = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            enable_progress_bar()
