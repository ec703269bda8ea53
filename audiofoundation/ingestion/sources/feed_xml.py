"""Reading RSS and Atom without trusting them: no entities, no external files, one item in memory at a time."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from audiofoundation.errors import FetchRefused

_BLOCK = 1 << 16
_MAX_DEPTH = 64
_MAX_TEXT = 4096
_DECLARED = re.compile(rb"""<\?xml[^>]{1,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
# Expat knows single bytes, UTF-8 and UTF-16; of what else feeds are written in, Python's name and what contains it.
_MULTIBYTE = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "big5hkscs",
    "big5hkscs": "big5hkscs",
    "shift_jis": "cp932",
    "cp932": "cp932",
    "euc_jp": "euc_jp",
    "iso2022_jp": "iso2022_jp",
    "euc_kr": "cp949",
    "cp949": "cp949",
}


@dataclass(slots=True)
class Entry:
    """One item of a feed: its texts and links as they stand there.

    Attributes:
        texts: by lower-case local name (`title`, `duration`, `license` …), the first of each.
        links: (address, type, relation) of everything that may be a recording.
    """

    texts: dict[str, str] = field(default_factory=dict)
    links: list[tuple[str, str, str]] = field(default_factory=list)


def read_entries(path: Path, *, channel: Entry) -> Iterator[Entry]:
    """Yield the items of a feed; what the feed says of itself is put into `channel`.

    Raises:
        FetchRefused: it is no XML, declares entities or an unknown encoding, or is nested deeper than any feed.
    """
    reader = _Reader(channel)
    with path.open("rb") as file:
        decoder = _decoder_of(file.peek(_BLOCK))
        while block := file.read(_BLOCK):
            reader.feed(decoder.decode(block) if decoder else block, is_last=False)
            yield from reader.take()
        reader.feed(b"", is_last=True)
        yield from reader.take()
    if reader.root not in ("rss", "feed", "RDF"):
        raise FetchRefused(f"the address leads to <{reader.root[:40]}>, which is neither RSS nor Atom")


def _decoder_of(head: bytes) -> codecs.IncrementalDecoder | None:
    """Return what reads the encoding that a feed declares; None where that is left to expat."""
    declared = _DECLARED.match(head)
    try:
        name = codecs.lookup(declared[1].decode("ascii")).name if declared else ""
    except (LookupError, UnicodeError):
        return None
    return codecs.getincrementaldecoder(_MULTIBYTE[name])("replace") if name in _MULTIBYTE else None


class _Reader:
    def __init__(self, channel: Entry) -> None:
        self.root = ""
        self._channel = channel
        self._entry: Entry | None = None
        self._path: list[str] = []
        self._text: list[str] = []
        self._num_characters = 0
        self._done: list[Entry] = []
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.EntityDeclHandler = self._refuse_entity
        self._parser.ExternalEntityRefHandler = lambda *_: 0
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters

    def feed(self, block: bytes | str, *, is_last: bool) -> None:
        try:
            self._parser.Parse(block, is_last)
        except expat.ExpatError as error:
            raise FetchRefused(f"the feed is no well-formed XML: {error}") from error
        except (LookupError, ValueError) as error:
            raise FetchRefused(f"the feed declares an encoding that cannot be read: {error}") from error

    def take(self) -> list[Entry]:
        done, self._done = self._done, []
        return done

    def _refuse_entity(self, *_: object) -> None:
        raise FetchRefused("the feed declares XML entities, which are not expanded here")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2]
        if len(self._path) >= _MAX_DEPTH:
            raise FetchRefused("the feed is nested deeper than any feed")
        self.root = self.root or local
        self._path.append(local)
        self._text, self._num_characters = [], 0
        if local in ("item", "entry"):
            self._entry = Entry()
        target = self._entry or self._channel
        lowered = {key.rpartition(" ")[2].lower(): value for key, value in attributes.items()}
        if local in ("enclosure", "content", "link", "license"):
            address = lowered.get("url") or lowered.get("href") or lowered.get("resource") or ""
            relation = "enclosure" if local in ("enclosure", "content") else lowered.get("rel", local)
            if address:
                target.links.append((address, lowered.get("type", lowered.get("medium", "")), relation))

    def _end(self, name: str) -> None:
        local = name.rpartition(" ")[2]
        self._path.pop()
        text = "".join(self._text).strip()
        self._text = []
        if self._entry is not None and local in ("item", "entry"):
            self._done.append(self._entry)
            self._entry = None
        elif text:
            inside = self._path[-1:] != ["image"]
            if inside:
                (self._entry or self._channel).texts.setdefault(local.lower(), text)

    def _characters(self, text: str) -> None:
        self._num_characters += len(text)
        if self._num_characters <= _MAX_TEXT:
            self._text.append(text)
