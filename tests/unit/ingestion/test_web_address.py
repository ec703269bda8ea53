import pytest

from audiofoundation.errors import UnsafeUrl
from audiofoundation.ingestion.web_address import parse_web_address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        ("https://example.com:443/a?b=c#part", "https://example.com/a?b=c"),
        ("http://example.com:8080/ä b".replace(" ", "%20"), "http://example.com:8080/%C3%A4%20b"),
        ("http://93.184.216.34/a.wav", "http://93.184.216.34/a.wav"),
        ("http://[2606:2800:220:1:248:1893:25c8:1946]/", "http://[2606:2800:220:1:248:1893:25c8:1946]/"),
        ("https://example.com/a%2Fb?x=%20", "https://example.com/a%2Fb?x=%20"),
    ],
)
def test_one_spelling_remains_of_each_address(url: str, expected: str) -> None:
    assert parse_web_address(url).url == expected
    assert parse_web_address(expected).url == expected


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "1.2.3.4.5",
        "1.2.3",
        "127.0.0.1%00.example.com",
        "127。0。0。1",
        "１２７.0.0.1",
        "example.com.",
        "localhost.",
        "user@127.0.0.1",
        "user:word@example.com",
        "-a.example.com",
        "a..example.com",
        "exa mple.com",
        "exam\\ple.com",
        "example.com\r\nX:1",
        "[::1",
        "[fe80::1%25eth0]",
        "[v1.x]",
        "",
    ],
)
def test_a_host_that_readers_may_read_differently_is_refused(host: str) -> None:
    with pytest.raises(UnsafeUrl) as refusal:
        parse_web_address(f"http://{host}:8080/a.wav")
    assert len(refusal.value.message) > 10


@pytest.mark.parametrize(
    "url",
    [
        "",
        "//127.0.0.1/",
        "/a.wav",
        "file:///etc/passwd",
        "gopher://example.com/_",
        "data:audio/wav;base64,AAAA",
        "subfile,,start,0,end,9,,:/etc/passwd",
        "concat:http://a|http://b",
        "javascript:alert(1)",
        "http:///a",
        "http://example.com:99999/",
        "http://example.com:0x50/",
        "http://example.com:6379@evil/",
        "http://example.com:22/",
        "http://example.com/\ud800",
        "http://example.com/?q=\udcff",
    ],
)
def test_what_is_no_plain_web_address_is_refused(url: str) -> None:
    with pytest.raises(UnsafeUrl):
        parse_web_address(url)
