"""The lines of one request, read before the catalog is asked: distinct sources, discoveries, rejections."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from audiofoundation.ingestion.source import (
    RejectionClass,
    Source,
    SourceKind,
    SourceLine,
    SourceRejected,
    parse_source,
)
from audiofoundation.ingestion.sources.addresses import parse_discovery
from audiofoundation.ingestion.sources.protocol import DiscoveryAddress, DiscoveryKind

MAX_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """One line that became no item.

    Attributes:
        index: its place among the lines, from 0.
        rejection: why, as summaries count it.
        message: the same in words.
    """

    index: int
    rejection: str
    message: str


@dataclass(slots=True)
class ParsedLines:
    """What the lines name.

    Attributes:
        sources: distinct sources by canonical form, each with the first line that named it.
        discoveries: distinct addresses to expand, each with the licence of what states none there.
        num_duplicates: lines that name what an earlier line names.
        rejected: lines that name nothing, by class.
        examples: the first ten of those.
    """

    sources: dict[str, tuple[Source, SourceLine]] = field(default_factory=dict)
    discoveries: dict[DiscoveryAddress, str | None] = field(default_factory=dict)
    num_duplicates: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    examples: list[RejectedLine] = field(default_factory=list)

    def licensed(self, license_text: str | None) -> "ParsedLines":
        """Return the lines with that licence, where they state none."""
        sources = {key: (source, line.licensed(license_text)) for key, (source, line) in self.sources.items()}
        discoveries = {address: stated or license_text for address, stated in self.discoveries.items()}
        return replace(self, sources=sources, discoveries=discoveries)


def parse_lines(
    lines: Sequence[SourceLine],
    *,
    discoverable: Collection[DiscoveryKind] = frozenset(DiscoveryKind),
    may_name_uploads: bool = True,
) -> ParsedLines:
    """Return what the lines name.

    Args:
        lines: one source each.
        discoverable: what may be expanded; a line that names another such thing is read as a single source.
        may_name_uploads: whether `sha256:` names stored bytes: the operator's word does, a list from elsewhere not.
    """
    parsed = ParsedLines()
    for index, line in enumerate(lines):
        try:
            _add(parsed, line, discoverable, may_name_uploads)
        except SourceRejected as refusal:
            name = refusal.rejection.value
            parsed.rejected[name] = parsed.rejected.get(name, 0) + 1
            if len(parsed.examples) < MAX_EXAMPLES:
                parsed.examples.append(RejectedLine(index, name, refusal.message))
    return parsed


def _add(
    parsed: ParsedLines, line: SourceLine, discoverable: Collection[DiscoveryKind], may_name_uploads: bool
) -> None:
    discovery = parse_discovery(line.text) if discoverable else None
    if discovery is not None and discovery.kind in discoverable:
        parsed.num_duplicates += discovery in parsed.discoveries
        parsed.discoveries[discovery] = line.license or parsed.discoveries.get(discovery)
        return
    source = parse_source(line.text)
    if source.kind is SourceKind.FILE and not may_name_uploads:
        raise SourceRejected(
            RejectionClass.FOREIGN_UPLOAD, "a list or feed elsewhere names no uploads; name them in a list of your own"
        )
    if (earlier := parsed.sources.get(source.canonical)) is None:
        parsed.sources[source.canonical] = (source, line)
        return
    parsed.num_duplicates += 1
    parsed.sources[source.canonical] = (source, earlier[1].licensed(line.license))
