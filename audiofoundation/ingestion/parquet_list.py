"""Parquet lists, read by a process of their own (`parquet_reader.py`)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from audiofoundation.errors import InternalError, InvalidRequest
from audiofoundation.ingestion.source import SourceLine

_ROOT = Path(__file__).resolve().parents[2]
_CODE = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from audiofoundation.ingestion.parquet_reader import main; main({path!r}, {max_characters!r}, 1)"
)
# The memory of mimalloc comes by the gigabyte, which a bounded address space does not have.
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "PATH": os.defpath, "LC_ALL": "C.UTF-8"}
_MAX_MESSAGE_BYTES = 64 << 20


def parquet_lines(path: Path, *, max_characters: int | None) -> Iterator[tuple[int, SourceLine]]:
    """Yield the rows of a parquet file with their numbers, from 1.

    Raises:
        InvalidRequest: it is no parquet list, or takes more memory than a list does; the message lacks the file's name.
    """
    if find_spec("pyarrow") is None:  # in the extra `ingest`
        raise InvalidRequest("reading parquet needs pyarrow; install audiofoundation[ingest]")
    with _reading(path, max_characters) as output:
        while message := output.readline(_MAX_MESSAGE_BYTES):
            parsed = _parse(message)
            if isinstance(parsed, list):
                yield from parsed
            elif parsed:
                raise InvalidRequest(parsed)
            else:
                return
    raise _broken()


@contextmanager
def _reading(path: Path, max_characters: int | None) -> Iterator[IO[bytes]]:
    code = _CODE.format(root=str(_ROOT), path=str(path.resolve()), max_characters=max_characters)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,  # a Ctrl-C at the terminal is the caller's business
        )
    except OSError as error:
        raise InternalError(f"the process that reads parquet did not start ({error.strerror})") from error
    with process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.kill()


def _parse(message: bytes) -> list[tuple[int, SourceLine]] | str | None:
    """Return the rows of a message, or at the end what was wrong, if anything."""
    try:
        parsed = json.loads(message)
        if isinstance(parsed, dict):
            return None if parsed["error"] is None else str(parsed["error"])
        return [(number, SourceLine(*columns)) for number, *columns in parsed]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _broken() from error


def _broken() -> InvalidRequest:
    return InvalidRequest("not a parquet file that can be read: its reader ended without a verdict")
