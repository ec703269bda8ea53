"""Feeds as they come: RSS, Atom, Media RSS, and XML that means harm."""

import tracemalloc
from pathlib import Path

import pytest

from audiofoundation.errors import FetchRefused
from audiofoundation.ingestion.parsed_lines import parse_lines
from audiofoundation.ingestion.source import SourceLine
from audiofoundation.ingestion.sources.feed import Feed
from audiofoundation.ingestion.sources.feed_xml import Entry, read_entries
from audiofoundation.ingestion.sources.protocol import Reading
from tests.data_plane import LOOPBACK, FileServer, serving_files

PODCAST = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd" xmlns:media="http://search.yahoo.com/mrss/"
     xmlns:cc="http://backend.userland.com/creativeCommonsRssModule" xmlns:atom="http://www.w3.org/2005/Atom">
<channel>
  <title>Field &amp; Forest</title>
  <atom:link href="https://x.org/feed.xml" rel="self" type="application/rss+xml"/>
  <image><title>A cover</title><url>https://x.org/cover.jpg</url></image>
  <cc:license>https://creativecommons.org/licenses/by-sa/4.0/</cc:license>
  <item>
    <title><![CDATA[Rain <loud>]]></title>
    <itunes:duration>01:02:03</itunes:duration>
    <enclosure url="https://cdn.x.org/1.mp3?a=1&amp;b=2" length="123" type="audio/mpeg"/>
    <media:content url="https://cdn.x.org/1-small.mp3" type="audio/mpeg"/>
  </item>
  <item><title>A picture</title><enclosure url="https://cdn.x.org/p.jpg" type="image/jpeg"/></item>
  <item><title>Words only</title><link>https://x.org/post</link></item>
  <item><title>All mine</title><cc:license>All rights reserved</cc:license>
    <itunes:duration>95</itunes:duration><enclosure url="/2.ogg"/></item>
</channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Birds</title>
<entry><title>Wren</title><link rel="alternate" href="https://x.org/wren"/>
<link rel="enclosure" type="audio/ogg" href="https://x.org/wren.ogg"/>
<link rel="license" href="http://creativecommons.org/publicdomain/zero/1.0/"/></entry></feed>"""
MEDIA = """<rss xmlns:media="http://search.yahoo.com/mrss/"><channel><title>V</title><item><title>t</title>
<media:group><media:content url="https://x.org/v.mp4" medium="video"/></media:group></item></channel></rss>"""


def lines_of(text: str | bytes, tmp_path: Path) -> list[SourceLine]:
    data = text.encode() if isinstance(text, str) else text
    with serving_files(FileServer({"/feed": data})) as server:
        pages = list(Feed(LOOPBACK).pages(server.url("/feed"), Reading(tmp_path)))
        return [
            SourceLine(line.text.replace(server.url(""), ""), line.title, line.channel, line.license, line.duration_s)
            for page in pages
            for line in page.lines
        ]


def test_enclosures_become_lines_with_what_the_feed_says(tmp_path: Path) -> None:
    first = SourceLine("https://cdn.x.org/1.mp3?a=1&b=2", "Rain <loud>", "Field & Forest", "CC-BY-SA", 3723.0)
    second = SourceLine("/2.ogg", "All mine", "Field & Forest", "All rights reserved", 95.0)
    assert lines_of(PODCAST, tmp_path) == [first, second]


def test_atom_and_media_rss_are_feeds_too(tmp_path: Path) -> None:
    assert lines_of(ATOM, tmp_path) == [SourceLine("https://x.org/wren.ogg", "Wren", "Birds", "CC0")]
    assert lines_of(MEDIA, tmp_path) == [SourceLine("https://x.org/v.mp4", "t", "V")]
    assert lines_of(ATOM.encode("utf-16"), tmp_path)[0].title == "Wren"


def test_an_address_that_nobody_can_read_spoils_only_its_own_entry(tmp_path: Path) -> None:
    lines = lines_of(PODCAST.replace("https://cdn.x.org/1.mp3", "http://[bad"), tmp_path)
    assert [line.title for line in lines] == ["Rain <loud>", "All mine"]
    assert parse_lines(lines).rejected["unsafe_url"] == 1


@pytest.mark.parametrize("encoding", ["GB2312", "Shift_JIS", "EUC-KR", "Big5", "EUC-JP", "windows-1251", "ISO-8859-1"])
def test_feeds_are_read_in_the_encoding_that_they_declare(encoding: str, tmp_path: Path) -> None:
    words = {"EUC-KR": "한국어", "windows-1251": "Птица", "ISO-8859-1": "Grüße"}.get(encoding, "日本")
    item = f"<item><title>{words}</title><enclosure url='https://x.org/a.mp3'/></item>" * 3000  # over several blocks
    text = f'<?xml version="1.0" encoding="{encoding}"?><rss><channel>{item}</channel></rss>'
    assert {line.title for line in lines_of(text.encode(encoding), tmp_path)} == {words}


@pytest.mark.parametrize("encoding", ["x-nobody-knows", "zip", "rot13", "idna", "utf-32", "undefined"])
def test_an_encoding_that_is_not_known_is_named(encoding: str, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="encoding"):
        lines_of(f'<?xml version="1.0" encoding="{encoding}"?><rss><channel/></rss>', tmp_path)


@pytest.mark.parametrize("etag", ['"caf\xe9"', '"plain"'])
def test_a_feed_can_be_read_again_whatever_its_validator(etag: str, tmp_path: Path) -> None:
    files = FileServer({"/feed": PODCAST.encode()}, headers={"ETag": etag})
    with serving_files(files) as server:
        page = list(Feed(LOOPBACK).pages(server.url("/feed"), Reading(tmp_path)))[-1]
        assert ("etag" in page.validators) is etag.isascii()
        for validators in (page.validators, {"etag": etag}):  # the second as it may stand in the catalog already
            list(Feed(LOOPBACK).pages(server.url("/feed"), Reading(tmp_path, validators=validators)))


def test_a_feed_is_read_on_from_where_it_stopped(tmp_path: Path) -> None:
    with serving_files(FileServer({"/feed": PODCAST.encode()})) as server:
        pages = list(Feed(LOOPBACK).pages(server.url("/feed"), Reading(tmp_path, start=1)))
    assert [line.title for page in pages for line in page.lines] == ["All mine"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<!DOCTYPE r [<!ENTITY a "aaa">]><rss><channel><title>&a;</title></channel></rss>', "entities"),
        ('<!DOCTYPE r [<!ENTITY % p SYSTEM "http://127.0.0.1/x">%p;]><rss/>', "entities"),
        ('<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><rss>&x;</rss>', "entities"),
        ("<rss><channel>", "well-formed"),
        ("<html><body>Not found</body></html>", "neither RSS nor Atom"),
        ("no xml", "well-formed"),
        ("<a>" * 100, "deeper"),
        ("", "well-formed"),
    ],
)
def test_what_is_no_honest_feed_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match=words):
        lines_of(text, tmp_path)


def test_an_external_document_type_is_not_fetched(tmp_path: Path) -> None:
    with serving_files(FileServer({"/evil.dtd": b'<!ENTITY x "y">'})) as server:
        doctype = f'<!DOCTYPE rss SYSTEM "{server.url("/evil.dtd")}">'
        assert lines_of(PODCAST.replace("<rss ", doctype + "<rss ", 1), tmp_path)
        assert server.asked == []


def test_a_long_feed_takes_little_memory(tmp_path: Path) -> None:
    item = "<item><title>" + "x" * 2000 + '</title><enclosure url="https://x.org/{}.mp3"/></item>'
    path = tmp_path / "feed.xml"
    path.write_text("<rss><channel>" + "".join(item.format(number) for number in range(5000)) + "</channel></rss>")
    tracemalloc.start()
    num_entries = sum(1 for _ in read_entries(path, channel=Entry()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_entries == 5000
    assert peak < 2 << 20
