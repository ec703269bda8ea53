"""A folder that is written whole or not at all."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audiofoundation.errors import Conflict

MARKER = "processing_metadata.json"
FORMAT_KEY, FORMAT = "format", "audiofoundation dataset folder"


@contextmanager
def staged_folder(out: Path, *, source: Path | None = None) -> Iterator[Path]:
    """Give an empty folder beside `out` that takes its place when the block ends well, and goes when it does not.

    The block must leave a `processing_metadata.json` with our format in it: by that a later run knows that it may
    replace the folder. The folder's lock goes with its process, also by `kill -9`; what was left is cleared next time.

    Args:
        out: where the result shall be; its parent folders are made.
        source: a folder that is read meanwhile and must not be replaced.

    Raises:
        Conflict: `out` holds something that we did not make, or another process is writing it.
    """
    out = out.expanduser().resolve()
    _require_replaceable(out, source)
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = out.with_name(f".{out.name}.audiofoundation-partial")
    previous = out.with_name(f".{out.name}.audiofoundation-previous")
    lock = _lock(stage, out)
    try:
        if is_ours(previous) and not out.exists():  # a process ended between the two renames of `_swap`
            previous.rename(out)
        yield stage
        _swap(stage, out, previous)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def is_ours(folder: Path) -> bool:
    """Tell whether a folder was made here."""
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get(FORMAT_KEY) == FORMAT


def _require_replaceable(out: Path, source: Path | None) -> None:
    if source is not None and source.resolve().is_relative_to(out):
        raise Conflict(f"The output {out} would replace the folder that is read: write elsewhere.")
    if out.exists() and not out.is_dir():
        raise Conflict(f"{out} is a file: name a folder.")
    if out.is_dir() and any(out.iterdir()) and not is_ours(out):
        raise Conflict(f"{out} holds something that was not made here: name another folder, or remove it.")


def _lock(stage: Path, out: Path) -> int:
    """Make the folder, empty, and hold its lock. The lock is the folder's own, so it leaves no file behind."""
    while True:
        stage.mkdir(exist_ok=True)
        try:
            fd = os.open(stage, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # its holder has just renamed it
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise Conflict(f"Another process is writing {out}: wait for it.") from error
        if stage.exists() and os.path.samestat(os.fstat(fd), stage.stat()):
            break
        os.close(fd)
    for path in stage.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return fd


def _swap(stage: Path, out: Path, previous: Path) -> None:
    """Put the new folder in the old one's place. Between two renames there is none, never half of one."""
    assert is_ours(stage)
    if not out.exists():
        stage.rename(out)
        return
    shutil.rmtree(previous, ignore_errors=True)
    out.rename(previous)
    stage.rename(out)
    shutil.rmtree(previous)
