"""Error texts as yt-dlp and YouTube word them, each in its class; unknown text is never permanent."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yt_dlp.networking import Response
from yt_dlp.networking.exceptions import HTTPError, ProxyError, SSLError, TransportError
from yt_dlp.utils import (
    ContentTooShortError,
    DownloadError,
    ExtractorError,
    GeoRestrictedError,
    PostProcessingError,
    UnsupportedError,
    UserNotLive,
)

from audiofoundation.errors import FetchFailed, FetchRefused, InternalError, RateLimited
from audiofoundation.ingestion.states import ItemRefused, ItemState, RefusalClass
from audiofoundation.ingestion.youtube_errors import FailureClass, classify, translate

GONE, BARRED, SOON, ASKED, WIRE, OURS, STALE, NEW = (
    FailureClass.PERMANENT,
    FailureClass.RESTRICTED,
    FailureClass.NOT_YET,
    FailureClass.IDENTITY,
    FailureClass.TRANSPORT,
    FailureClass.OURS,
    FailureClass.STALE_LINK,
    FailureClass.UNKNOWN,
)
HTTP = re.compile(r"HTTP Error \d+")
# Words that stand in such messages; none of them says that a video is gone.
AROUND = [
    "clip",
    "unavailable",
    "Service",
    "503",
    "404 items",
    "not",
    "available",
    "private",
    "network",
    "removed",
    "the",
    "HTTP",
    "Error",
    "[youtube]",
    "retrying",
    "fragment 404 of 410",
    "premium",
    "country",
    "drm",
]
RECORDED = [
    (GONE, "Private video. Sign in if you've been granted access to this video"),
    (GONE, "Video unavailable. This video is private"),
    (GONE, "Video unavailable. This video has been removed by the uploader"),
    (GONE, "This video has been removed for violating YouTube's Terms of Service"),
    (GONE, "Video unavailable. This video is no longer available because the YouTube account was terminated."),
    (GONE, "Video unavailable. This video is no longer available due to a copyright claim by X"),
    (GONE, "Join this channel to get access to members-only content like this video, and other exclusive perks."),
    (GONE, "This video is available to this channel's members on level: Fan. Join this channel"),
    (GONE, "This video is only available to Music Premium members"),
    (GONE, "This video requires payment to watch"),
    (GONE, "Video unavailable"),
    (GONE, "This video is DRM protected"),
    (GONE, "This video is not available"),
    (BARRED, "The uploader has not made this video available in your country"),
    (BARRED, "Video unavailable. The uploader has not made this video available in your country"),
    (BARRED, "Sign in to confirm your age. This video may be inappropriate for some users."),
    (BARRED, "This video is age-restricted and only available on YouTube"),
    (BARRED, "Login required to view this video"),
    (SOON, "This live event will begin in 3 hours."),
    (SOON, "Premieres in 22 hours"),
    (SOON, "The channel is not currently live"),
    (SOON, "This live stream recording is not available."),
    (ASKED, "Sign in to confirm you’re not a bot. Use --cookies-from-browser or --cookies for the authentication."),
    (ASKED, "Sign in to confirm you're not a bot"),
    (ASKED, "Video unavailable. This content isn't available, try again later."),
    (ASKED, "HTTP Error 429: Too Many Requests"),
    (ASKED, "Your account has been rate limited"),
    (WIRE, "Unable to download API page: HTTP Error 503: Service Unavailable"),
    (WIRE, "unable to download video data: HTTP Error 502: Bad Gateway"),
    (WIRE, "Unable to download webpage: The read operation timed out"),
    (WIRE, "[Errno 104] Connection reset by peer"),
    (WIRE, "<urlopen error [Errno -3] Temporary failure in name resolution>"),
    (WIRE, "unable to download video data: HTTP Error 500: Internal Server Error"),
    (STALE, "unable to download video data: HTTP Error 403: Forbidden"),
    (GONE, "Unable to download API page: HTTP Error 404: Not Found"),
    (GONE, "Unable to download webpage: HTTP Error 410: Gone"),
    (OURS, "unable to open for writing: [Errno 28] No space left on device: 'x.webm.part'"),
    (OURS, "[Errno 13] Permission denied: '/data/x'"),
    (NEW, "Requested format is not available. Use --list-formats for a list of available formats"),
    (NEW, "Signature extraction failed: Some formats may be missing"),
    (NEW, "Failed to extract any player response"),
]  # fmt: skip


def wrapped(cause: Exception) -> DownloadError:
    return DownloadError(f"ERROR: {cause}", (type(cause), cause, None))


def http_error(status: int) -> HTTPError:
    return HTTPError(Response(io.BytesIO(b""), "https://example.com", {}, status=status))


@pytest.mark.parametrize(("expected", "text"), RECORDED)
def test_recorded_texts_fall_into_their_class(expected: FailureClass, text: str) -> None:
    error = DownloadError(f"ERROR: [youtube] dQw4w9WgXcQ: {text}")
    assert classify(error) is expected


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (UnsupportedError("https://x"), GONE),
        (GeoRestrictedError("not here", countries=["DE"]), BARRED),
        (UserNotLive(), SOON),
        (ContentTooShortError(10, 20), STALE),
        (PostProcessingError("ffmpeg"), OURS),
        (ProxyError("proxy"), WIRE),
        (SSLError("certificate"), WIRE),
        (TransportError("reset"), WIRE),
        (http_error(404), GONE),
        (http_error(410), GONE),
        (http_error(403), STALE),
        (http_error(429), ASKED),
        (http_error(451), BARRED),
        (http_error(500), WIRE),
        (http_error(503), WIRE),
        (http_error(418), NEW),
        (OSError(28, "No space left on device"), OURS),
        (TimeoutError("timed out"), WIRE),
    ],
)
def test_types_decide_before_texts(cause: Exception, expected: FailureClass) -> None:
    assert classify(cause) is expected
    assert classify(wrapped(cause)) is expected
    extractor = ExtractorError("Video unavailable text that would say otherwise", expected=True, cause=cause)
    assert classify(wrapped(extractor)) is expected


@given(st.text(max_size=200))
def test_unknown_text_never_crashes_and_is_never_final_by_accident(noise: str) -> None:
    words = [text for failure, text in RECORDED if failure in (GONE, BARRED)]
    if any(part in noise.lower() for part in ("unavailable", "private", "drm", "premium")) or noise in words:
        return
    assert classify(DownloadError(f"x {noise} x")) not in (GONE, BARRED)


@given(
    st.sampled_from([text for failure, text in RECORDED if failure not in (GONE, BARRED)]),
    st.lists(st.sampled_from(AROUND), max_size=4),
    st.lists(st.sampled_from(AROUND), max_size=4),
    st.text(max_size=20),
)
def test_words_around_a_passing_failure_never_make_it_final(
    text: str, before: list[str], after: list[str], noise: str
) -> None:
    line = " ".join([*before, text, noise, *after])
    for error in (DownloadError(line), wrapped(ExtractorError(line, expected=True)), wrapped(ExtractorError(line))):
        assert classify(error) not in (GONE, BARRED)
        assert not isinstance(translate(error, attempt=1), ItemRefused) or classify(error) is SOON


@given(st.sampled_from([text for failure, text in RECORDED if failure in (GONE, BARRED)]), st.text(max_size=40))
def test_what_an_extractor_did_not_expect_is_never_final(text: str, noise: str) -> None:
    error = ExtractorError(f"{noise} {text}")
    assert HTTP.search(text) or classify(wrapped(error)) not in (GONE, BARRED)


@pytest.mark.parametrize(
    "text",
    [
        "The file /data/x.part does not exist",
        "Support for this option has been removed; see the changelog",
        "The requested format is no longer available",
        "Unable to download JSON metadata: Service Unavailable (video server)",
        "private key could not be read",
    ],
)
def test_words_that_only_look_final_are_tried_again(text: str) -> None:
    assert classify(DownloadError(text)) not in (GONE, BARRED)


@pytest.mark.parametrize(
    ("text", "attempt", "error"),
    [
        ("Private video", 1, ItemRefused),
        ("Sign in to confirm you're not a bot", 1, RateLimited),
        ("HTTP Error 503: Service Unavailable", 1, FetchFailed),
        ("No space left on device", 1, InternalError),
        ("something new", 2, FetchFailed),
        ("something new", 3, FetchRefused),
        ("HTTP Error 403: Forbidden", 3, FetchRefused),
    ],
)
def test_each_class_has_its_action(text: str, attempt: int, error: type[Exception]) -> None:
    found = translate(DownloadError(f"ERROR: [youtube] dQw4w9WgXcQ: {text}"), attempt=attempt)
    assert type(found) is error
    assert "dQw4w9WgXcQ" not in found.message


def test_a_bot_check_waits_an_hour_and_a_premiere_is_deferred() -> None:
    waiting = translate(DownloadError("Sign in to confirm you're not a bot"), attempt=1)
    assert waiting.retry_after_s == 3600
    private = translate(DownloadError("Private video. Sign in if you've been granted access"), attempt=1)
    assert isinstance(private, ItemRefused)
    assert (private.state, private.refusal) == (ItemState.FAILED, RefusalClass.PRIVATE)
    assert private.recheck_at(now=0.0, num_rechecks=0) == 30 * 86_400
    assert private.recheck_at(now=0.0, num_rechecks=1) is None
    premiere = translate(DownloadError("Premieres in 2 hours"), attempt=1)
    assert isinstance(premiere, ItemRefused)
    assert premiere.state is ItemState.DEFERRED
