"""Lists of addresses behind a URL: txt, csv, tsv, jsonl, parquet."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from audiofoundation.errors import FetchRefused, InvalidRequest
from audiofoundation.ingestion.list_files import list_suffix, read_list
from audiofoundation.ingestion.sources.documents import Document, fetch_document
from audiofoundation.ingestion.sources.protocol import Page, Reading
from audiofoundation.settings import FetchSettings

_MAX_BYTES = 1 << 30
_LINES_PER_PAGE = 2000
_SUFFIX_OF_TYPE = {
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
}


@dataclass(frozen=True, slots=True)
class HttpList:
    """Reads a list over HTTP.

    Attributes:
        settings: what may be reached.
        max_characters: most that a text may hold once it is unpacked.
    """

    settings: FetchSettings
    max_characters: int = 4 << 30
    tool_version: str = "audiofoundation list"

    def pages(self, address: str, reading: Reading) -> Iterator[Page]:
        path = reading.directory / "list"
        document = fetch_document(
            address, path, settings=self.settings, validators=reading.validators, max_bytes=_MAX_BYTES
        )
        if document is None:
            return
        if _is_page(path, document):
            raise FetchRefused(f"{document.url} is a web page (HTML) and no list of addresses")
        listed_lines = read_list(path, name=_name_of(document), max_characters=self.max_characters)
        lines = islice(listed_lines, reading.start, None)
        try:
            while found := list(islice(lines, _LINES_PER_PAGE)):
                numbers = tuple(listed.number for listed in found)
                yield Page(tuple(listed.line for listed in found), len(found), document.validators, numbers)
        except InvalidRequest as error:
            raise FetchRefused(error.message) from error
        yield Page((), 0, document.validators)


def _is_page(path: Path, document: Document) -> bool:
    """Tell whether a server gave a page instead, such as an index of a folder or a sign-in."""
    with path.open("rb") as file:
        beginning = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_html = document.content_type.lower().startswith(("text/html", "application/xhtml"))
    return beginning.startswith((b"<!doctype html", b"<html")) or (is_html and beginning.startswith(b"<"))


def _name_of(document: Document) -> str:
    """A name whose suffix says how the list is read: the URL's, else the content type's, else plain text."""
    url = document.url
    if list_suffix(urlsplit(url).path.rpartition("/")[2]):
        return urlsplit(url).path.rpartition("/")[2]
    return url + _SUFFIX_OF_TYPE.get(document.content_type.partition(";")[0].strip().lower(), ".txt")
