import pytest

from audiofoundation.ingestion.source import RejectionClass, SourceKind, SourceRejected, parse_source

ID = "dQw4w9WgXcQ"


@pytest.mark.parametrize(
    "line",
    [
        f"https://www.youtube.com/watch?v={ID}",
        f"https://youtu.be/{ID}?si=x",
        f"https://m.youtube.com/watch?v={ID}&t=42s",
        f"https://www.youtube.com/shorts/{ID}",
        f"https://music.youtube.com/watch?v={ID}&list=RD",
        f"  http://YOUTUBE.com/embed/{ID}/ ",
        f"https://www.youtube.com/watch?list=PL1&v={ID}#x",
        f"https://www.youtube-nocookie.com/embed/{ID}?rel=0",
        f"youtube:{ID}",
    ],
)
def test_every_form_of_a_video_is_one_item(line: str) -> None:
    source = parse_source(line)
    assert source.canonical == f"youtube:{ID}"
    assert source.kind is SourceKind.YOUTUBE


def test_the_fetched_url_is_built_from_the_id_alone() -> None:
    source = parse_source(f"https://www.youtube.com/watch?v={ID}&evil=http://127.0.0.1")
    assert source.text == f"https://www.youtube.com/watch?v={ID}"


def test_web_addresses_are_normalised() -> None:
    assert parse_source("HTTPS://Example.com:443/a#x").canonical == "url:https://example.com/a"
    assert parse_source("https://example.com/a").canonical == "url:https://example.com/a"


@pytest.mark.parametrize(
    ("line", "rejection"),
    [
        ("", RejectionClass.EMPTY),
        ("   ", RejectionClass.EMPTY),
        ("not a url", RejectionClass.NOT_A_URL),
        ("/etc/passwd", RejectionClass.NOT_A_URL),
        ("https://www.youtube.com/watch?v=short", RejectionClass.INVALID_VIDEO_ID),
        ("https://www.youtube.com/@channel", RejectionClass.INVALID_VIDEO_ID),
        ("https://youtu.be/", RejectionClass.INVALID_VIDEO_ID),
        ("youtube:--exec=rm", RejectionClass.INVALID_VIDEO_ID),
        (f"https://youtu.be/{ID}aaa", RejectionClass.INVALID_VIDEO_ID),
        ("ftp://example.com/a.mp3", RejectionClass.UNSUPPORTED_SCHEME),
        ("javascript:alert(1)", RejectionClass.UNSUPPORTED_SCHEME),
        ("file:///etc/passwd", RejectionClass.UNSUPPORTED_SCHEME),
        ("http://127.1/a.wav", RejectionClass.UNSAFE_URL),
        ("http://u@example.com/", RejectionClass.UNSAFE_URL),
        ("https://example.com/" + "a" * 3000, RejectionClass.TOO_LONG),
        ("sha256:xyz", RejectionClass.NOT_A_URL),
        ("https://example.com/\ud800", RejectionClass.UNSAFE_URL),
        ("https://example.com/a\x9bb", RejectionClass.UNSAFE_URL),
        ("https://example.com/a\x00b", RejectionClass.UNSAFE_URL),
        (f"https://www.youtube.com/watch?v={ID}&a=\x00", RejectionClass.UNSAFE_URL),
    ],
)
def test_what_names_nothing_is_rejected_by_class(line: str, rejection: RejectionClass) -> None:
    with pytest.raises(SourceRejected) as refused:
        parse_source(line)
    assert refused.value.rejection is rejection


def test_a_youtube_host_in_another_place_is_no_video() -> None:
    assert parse_source(f"https://example.com/www.youtube.com/watch?v={ID}").kind is SourceKind.URL
    assert parse_source(f"https://youtube.com.example.com/watch?v={ID}").kind is SourceKind.URL
