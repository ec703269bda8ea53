"""Receiving a request's raw body into a file that is verified before it counts."""

import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from fastapi.concurrency import run_in_threadpool

from audiofoundation.errors import InvalidRequest
from audiofoundation.identifiers import Sha256

_FLUSH_BYTES = 1 << 20


@asynccontextmanager
async def receive(body: AsyncIterator[bytes], directory: Path, *, sha256: Sha256) -> AsyncIterator[Path]:
    """Yield a temporary file with the body, whose SHA-256 is the given one.

    Raises:
        InvalidRequest: the bytes have another hash; they were changed or cut on the way.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=directory, prefix="upload-") as file:
        digest = hashlib.sha256()
        waiting = bytearray()
        async for block in body:
            waiting += block
            if len(waiting) >= _FLUSH_BYTES:
                await run_in_threadpool(_append, file, digest, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(_append, file, digest, bytes(waiting))
        if digest.hexdigest() != sha256:
            raise InvalidRequest("the SHA-256 in the path is not that of the body; send it again", param="sha256")
        yield Path(file.name)


def _append(file: IO[bytes], digest: "hashlib._Hash", block: bytes) -> None:
    digest.update(block)
    file.write(block)
    file.flush()
