"""Taking one YouTube video's sound with yt-dlp: metadata and policy first, bytes only then."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from yt_dlp import YoutubeDL
from yt_dlp import version as yt_dlp_version
from yt_dlp.networking import Request
from yt_dlp.utils import DownloadCancelled, YoutubeDLError

from audiofoundation.errors import DeadlineExceeded, FetchFailed, PayloadTooLarge
from audiofoundation.ingestion.list_records import plain_text
from audiofoundation.ingestion.policy import Policy
from audiofoundation.ingestion.states import ItemRefused, RefusalClass
from audiofoundation.ingestion.youtube_errors import translate
from audiofoundation.settings import EgressIdentity, FetchSettings

TOOL_VERSION = f"yt-dlp {yt_dlp_version.__version__}"
_ADULT_YEARS = 18
_MIN_DURATION_S, _MAX_DURATION_S = 1.0, 4 * 3600.0
_RESTRICTED = frozenset({"private", "premium_only", "subscriber_only", "needs_auth"})
_NOT_ENDED = frozenset({"is_upcoming", "post_live"})


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What YouTube says of a video before any of its bytes are fetched. None where it says nothing."""

    video_id: str
    title: str | None
    channel: str | None
    channel_id: str | None
    license: str | None
    duration_s: float | None
    live_status: str | None
    age_limit: int
    availability: str | None
    ready_at: float | None


class Heartbeat(Protocol):
    """Called while bytes arrive."""

    def __call__(self, num_bytes: int) -> None: ...


def build_options(
    settings: FetchSettings,
    directory: Path,
    *,
    identity: EgressIdentity | None = None,
    budget_s: float = 800.0,
) -> dict[str, Any]:
    """Return yt-dlp's options; each is a rule of ours and none comes from a user.

    Args:
        settings: largest file, time without a byte.
        directory: the job's own directory; everything that is written lies there.
        identity: the way out; the machine's own when None.
        budget_s: longest duration of the download.
    """
    way_out: dict[str, Any] = {}
    if identity is not None and identity.proxy is not None:
        way_out["proxy"] = identity.proxy.get_secret_value()
    if identity is not None and identity.source_address is not None:
        way_out["source_address"] = identity.source_address
    return way_out | {
        "allowed_extractors": ["^youtube$"],  # the default includes `generic`, which fetches any URL
        "enable_file_urls": False,
        "remote_components": [],  # no code is fetched at run time
        "noplaylist": True,
        "ignoreerrors": False,
        "cachedir": str(directory / "cache"),
        "paths": {"home": str(directory), "temp": str(directory)},
        "outtmpl": {"default": "%(id)s.%(ext)s"},
        # The source's codec is kept: nothing is encoded again at ingest.
        "format": "bestaudio[acodec=opus]/bestaudio[acodec^=mp4a]/bestaudio",
        "postprocessors": [],
        "fixup": "never",  # would start ffmpeg; decoding happens in the sandbox
        "skip_unavailable_fragments": False,  # True gives audio with holes, silently
        "max_filesize": settings.max_bytes,
        "match_filter": judge,
        "progress_hooks": [_Budget(settings.max_bytes, budget_s)],
        "socket_timeout": settings.timeout_s,
        "retries": 3,
        "fragment_retries": 3,
        "extractor_retries": 3,
        "file_access_retries": 3,
        "external_downloader": {"m3u8": "native"},
        # Between requests of one video, as yt-dlp's preset `sleep`; between videos the planner's lanes rest.
        "sleep_interval_requests": 0.75,
        "geo_bypass": False,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "color": "never",
        "logger": _Silent(),
    }


def judge(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
    """yt-dlp's `match_filter`: return why a video is not downloaded, or None."""
    if info.get("is_live") or info.get("live_status") in _NOT_ENDED:
        return "the video is live or has not been published as a recording yet"
    if (info.get("age_limit") or 0) >= _ADULT_YEARS:
        return "the video is restricted to adults"
    duration_s = info.get("duration")
    if duration_s is None and incomplete:
        return None
    if duration_s is not None and not _MIN_DURATION_S <= duration_s <= _MAX_DURATION_S:
        return f"the video lasts {duration_s:g} s"
    return None


def check_video(info: VideoInfo, policy: Policy) -> None:
    """Raise ItemRefused unless the video may be fetched. No byte of it has been asked for."""
    if info.live_status in _NOT_ENDED or info.live_status == "is_live":
        message = "the video is live or not yet published as a recording"
        raise ItemRefused(RefusalClass.NOT_YET, message, ready_at=info.ready_at)
    if info.age_limit >= _ADULT_YEARS:
        raise ItemRefused(RefusalClass.RESTRICTED, "the video is restricted to adults")
    if info.availability in _RESTRICTED:
        raise ItemRefused(RefusalClass.RESTRICTED, f"the video is not public ({info.availability})")
    policy.check_license(info.license, channel_id=info.channel_id)
    policy.check_duration(info.duration_s)


def to_video_info(metadata: dict[str, Any]) -> VideoInfo:
    """Return the fields that we keep of yt-dlp's answer, which is untrusted."""

    def text(name: str) -> str | None:
        value = metadata.get(name)
        # Nothing is left out of what is judged: a licence with a character too many is another one.
        if not isinstance(value, str):
            return None
        return "".join(c if c.isprintable() else "\ufffd" for c in value[:500]) or None

    def shown(name: str) -> str | None:
        value = metadata.get(name)
        return plain_text(value) if isinstance(value, str) else None

    def number(name: str) -> float | None:
        value = metadata.get(name)
        return float(value) if isinstance(value, (int, float)) else None

    age = metadata.get("age_limit")
    return VideoInfo(
        video_id=text("id") or "",
        title=shown("title"),
        channel=shown("channel") or shown("uploader"),
        channel_id=text("channel_id"),
        license=text("license"),
        duration_s=number("duration"),
        live_status="is_live" if metadata.get("is_live") else text("live_status"),
        age_limit=age if isinstance(age, int) else 0,
        availability=text("availability"),
        ready_at=number("release_timestamp"),
    )


class YoutubeSource:
    """Fetches one video per call, in a directory of the job's own."""

    def __init__(
        self,
        settings: FetchSettings,
        *,
        identity: EgressIdentity | None = None,
        create: Callable[[dict[str, Any]], Any] = YoutubeDL,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._create = create

    def describe(self, url: str, directory: Path, *, attempt: int) -> VideoInfo:
        """Return the metadata of a video. Raises as `open`."""
        with self.open(url, directory, attempt=attempt) as video:
            return video.info

    def download(self, url: str, directory: Path, *, attempt: int, heartbeat: Heartbeat) -> Path:
        """Fetch the sound of a video; return its file. Raises as `open` and `OpenVideo.download`."""
        with self.open(url, directory, attempt=attempt) as video:
            return video.download(heartbeat)

    @contextmanager
    def open(self, url: str, directory: Path, *, attempt: int) -> Iterator["OpenVideo"]:
        """Ask for a video's metadata and keep the session for its bytes: one extraction serves both.

        Raises:
            ItemRefused: gone, restricted or not yet there.
            RateLimited: YouTube asks this address to wait.
            FetchFailed: it did not answer as it should; a later try may succeed.
        """
        shutil.rmtree(directory, ignore_errors=True)  # parts of an earlier attempt are not trusted
        directory.mkdir(parents=True)
        with self._create(build_options(self._settings, directory, identity=self._identity)) as session:
            metadata = _guarded(lambda: session.extract_info(url, download=False), attempt)
            yield OpenVideo(session, metadata, directory, attempt)


class OpenVideo:
    """A video whose metadata is here and whose bytes are not."""

    def __init__(self, session: Any, metadata: dict[str, Any], directory: Path, attempt: int) -> None:
        self.info = to_video_info(metadata)
        self._session = session
        self._metadata = metadata
        self._directory = directory
        self._attempt = attempt

    def read_range(self, first: int, num_bytes: int) -> tuple[bytes, int | None]:
        """Return up to that many bytes of the chosen format from an offset on, and the format's whole size.

        A format that comes in fragments, or a server without ranges, gives no bytes unless it begins at 0.
        Raises as `YoutubeSource.open`.
        """
        url = self._metadata.get("url")
        if self._metadata.get("protocol") not in ("http", "https") or not isinstance(url, str):
            return b"", None

        def read() -> dict[str, Any]:
            headers = {**(self._metadata.get("http_headers") or {}), "Range": f"bytes={first}-{first + num_bytes - 1}"}
            with self._session.urlopen(Request(url, headers=headers)) as response:
                if first and response.status != HTTPStatus.PARTIAL_CONTENT:
                    return {"data": b"", "size": None}
                size = response.get_header("Content-Range", "").rpartition("/")[2]
                return {"data": response.read(num_bytes), "size": int(size) if size.isdecimal() else None}

        found = _guarded(read, self._attempt)
        return found["data"], found["size"]

    def download(self, heartbeat: Heartbeat) -> Path:
        """Fetch the sound; return its file. Raises as `YoutubeSource.open`.

        Raises:
            PayloadTooLarge: more bytes than the settings allow.
            DeadlineExceeded: the download took longer than its budget.
        """
        session = self._session
        session.add_progress_hook(lambda status: heartbeat(int(status.get("downloaded_bytes") or 0)))
        known = session.sanitize_info(self._metadata, remove_private_keys=True)
        metadata = _guarded(lambda: session.process_ie_result(known, download=True), self._attempt)
        files = [Path(entry["filepath"]) for entry in metadata.get("requested_downloads") or ()]
        found = [path for path in files if path.is_relative_to(self._directory) and path.stat().st_size > 0]
        if not found:
            raise FetchFailed("yt-dlp reported success but left no file; try again later")
        return found[0]


def _guarded(call: Callable[[], Any], attempt: int) -> dict[str, Any]:
    try:
        metadata = call()
    except _BudgetExceeded as error:
        raise error.cause from error
    except (YoutubeDLError, OSError) as error:
        raise translate(error, attempt=attempt) from error
    if not isinstance(metadata, dict):
        raise FetchFailed("yt-dlp gave no metadata for the video; try again later")
    return metadata


class _BudgetExceeded(DownloadCancelled):  # type: ignore[misc]  # yt-dlp is untyped
    def __init__(self, cause: PayloadTooLarge | DeadlineExceeded) -> None:
        super().__init__(cause.message)
        self.cause = cause


class _Budget:
    """A progress hook that ends a download which costs too much."""

    def __init__(self, max_bytes: int, budget_s: float) -> None:
        self._max_bytes = max_bytes
        self._budget_s = budget_s
        self._started = time.monotonic()

    def __call__(self, status: dict[str, Any]) -> None:
        if int(status.get("downloaded_bytes") or 0) > self._max_bytes:
            limit = self._max_bytes / (1 << 20)
            raise _BudgetExceeded(PayloadTooLarge(f"the video's sound is larger than {limit:g} MiB"))
        if time.monotonic() - self._started > self._budget_s:
            raise _BudgetExceeded(DeadlineExceeded(f"the video did not arrive within {self._budget_s:g} s"))


class _Silent:
    """yt-dlp speaks through errors only."""

    def debug(self, message: str) -> None: ...
    def info(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def error(self, message: str) -> None: ...
