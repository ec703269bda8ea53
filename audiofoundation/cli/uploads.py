"""Bringing local recordings into a collection: hashed first, so that only unknown bytes travel."""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from audiofoundation.cli.client import PlatformClient, path_to
from audiofoundation.cli.output import CommandError, note
from audiofoundation.cli.source_lists import LocalFile, in_batches, licensed
from audiofoundation.identifiers import sha256_of_stream

_PARALLEL = 3
_BATCH_FILES = 60
_MAX_NAME = 200
_MAX_EXPLAINED = 10


@dataclass(slots=True)
class Tally:
    """What adding sources did so far; `discoveries` are ids of what the platform expands.

    `num_to_upload` counts files whose bytes a plan found missing.
    """

    num_added: int = 0
    num_duplicates: int = 0
    num_to_upload: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    discoveries: set[str] = field(default_factory=set)
    num_explained: int = 0
    num_remarks: int = 0

    def reject(self, name: str, count: int = 1) -> None:
        """Count lines or files that became no item."""
        self.rejected[name] = self.rejected.get(name, 0) + count

    def explain(self, message: str) -> None:
        """Say on stderr why a line was rejected; after ten of them, the counts say enough."""
        self.num_explained += 1
        if self.num_explained <= _MAX_EXPLAINED:
            note(message)

    def remark(self, message: str) -> None:
        """Say on stderr what is to be known of a whole list or feed, of ten at most."""
        self.num_remarks += 1
        if self.num_remarks <= _MAX_EXPLAINED:
            note(message)


@dataclass(frozen=True, slots=True)
class Uploader:
    """Uploads files to one collection, a few at a time.

    Attributes:
        client: the platform.
        collection_id: where to.
        is_plan: ask what is missing, but upload nothing.
        license: of the files; None where the user named none.
        on_done: called once per file that is dealt with.
    """

    client: PlatformClient
    collection_id: str
    is_plan: bool
    license: str | None
    on_done: Callable[[], None]

    def upload(self, files: Iterable[LocalFile], tally: Tally) -> None:
        """Upload what the platform does not have; count the rest as duplicates."""
        with ThreadPoolExecutor(_PARALLEL) as pool:
            for batch in in_batches(files, _BATCH_FILES):
                hashed = dict[str, LocalFile]()
                for file, digest in zip(batch, pool.map(_hash, batch), strict=True):
                    if digest is None:
                        note(f"{file.path} cannot be read and is left out")
                        tally.reject("unreadable")
                    elif digest in hashed:
                        tally.num_duplicates += 1
                    else:
                        hashed[digest] = file
                missing = self._announce(hashed, tally)
                for is_new in pool.map(self._put, [hashed[digest] for digest in missing], missing):
                    tally.num_added += is_new
                    tally.num_duplicates += not is_new

    def _announce(self, hashed: dict[str, LocalFile], tally: Tally) -> list[str]:
        """Add what the platform has the bytes of; return the hashes that it has not."""
        named = ({"source": f"sha256:{digest}", "title": _name(file)} for digest, file in hashed.items())
        sources = [licensed(line, self.license) for line in named]
        body = {"sources": sources, "plan": self.is_plan}
        answer = self.client.post(path_to("collections", self.collection_id, "items"), body=body)
        tally.num_added += answer["added"]
        tally.num_duplicates += answer["duplicates"]
        missing: list[str] = answer["missing"]
        for _ in range(len(hashed) - len(missing)):
            self.on_done()
        if self.is_plan:
            tally.num_to_upload += len(missing)
            return []
        return missing

    def _put(self, file: LocalFile, digest: str) -> bool:
        route = path_to("collections", self.collection_id, "files", digest)
        known = {"name": _name(file), "license": self.license}
        params = {key: text for key, text in known.items() if text is not None}
        try:
            answer = self.client.put_file(route, file.path, params=params)
        except CommandError as error:
            raise CommandError(f"{file.path} could not be uploaded: {error}") from error
        self.on_done()
        return bool(answer["added"])


def _hash(file: LocalFile) -> str | None:
    """The file's SHA-256; None when it cannot be read."""
    try:
        with file.path.open("rb") as stream:
            return sha256_of_stream(stream)
    except OSError:
        return None


def _name(file: LocalFile) -> str:
    """The file's name as the catalog may keep it; of a long one the end."""
    name = "".join(c for c in file.name.encode(errors="replace").decode() if c.isprintable())
    return name[-_MAX_NAME:] or hashlib.sha256(file.name.encode(errors="replace")).hexdigest()[:16]
