"""`audiofoundation preprocess`: a collection into mel shards."""

import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption, path_to
from audiofoundation.cli.ingest import wait_until_settled
from audiofoundation.cli.output import (
    EXIT_FAILURE,
    JsonOption,
    PlainProgress,
    create_progress,
    fail,
    print_json,
    print_line,
    print_table,
)

_TARGET_LUFS = -23.0
_HELP = """Cut a collection's recordings into segments and store their mels as shards.

Every recording is decoded, mixed to mono, brought to the preset's rate, measured, trimmed and cut. Running it
again adds the recordings that came since and makes nothing twice.

Examples:

  audiofoundation preprocess --collection mine --wait

  audiofoundation preprocess --collection mine --with-waveform --target-lufs -23 --wait

  audiofoundation preprocess --collection mine --with-waveform --channels 2 --with-rhythm --wait

  audiofoundation preprocess --collection mine --max-silence-ratio 0.5 --min-rms-dbfs -40 --wait
"""
_POLL_S = 0.5
# Reasons that belong to a recording; every other one is the platform's.
_OWN_REASONS = frozenset({"too_short", "low_quality", "undecodable_audio", "audio_too_long", "payload_too_large"})
_COUNTS = (
    *("dataset", "items", "segments", "segments_left_out", "features_failed"),
    *("hours", "shards", "states", "wall_s", "cpu_s"),
)

_WithWaveform = Annotated[
    bool, typer.Option("--with-waveform", help="Keep the audio beside the mel, as vocoder training needs.")
]
_Channels = Annotated[
    int,
    typer.Option(
        min=1,
        max=2,
        help="Channels of that audio: 2 keeps left and right apart and doubles its size. "
        "The mel is the mono mix's either way.",
    ),
]
_WithRhythm = Annotated[
    bool,
    typer.Option(
        "--with-rhythm",
        help="Measure tempo and harmonic ratio too, from the middle minute of a recording. That takes up to half "
        "a second of CPU time for each: clips of up to a minute take four times as long, songs twice.",
    ),
]
_MaxSilenceRatio = Annotated[
    float | None,
    typer.Option(help="Leave out segments with a greater share (0 to 1) of 20 ms frames under -60 dBFS."),
]
_MaxClippedRatio = Annotated[
    float | None,
    typer.Option(
        help="Leave out segments with a greater share (0 to 1) of clipped samples, as measured of the original sound: "
        "all channels, before rate and level are changed."
    ),
]
_MinRmsDbfs = Annotated[
    float | None, typer.Option(help="Leave out segments of a lower level in dBFS, after --target-lufs.")
]
_MinCentroidHz = Annotated[
    float | None,
    typer.Option(
        help="Leave out segments of a lower average frequency in Hz: the centroid of the power spectrum, which "
        "`dataset report` shows beside librosa's of the magnitudes, the higher one."
    ),
]
_MinBandwidthHz = Annotated[
    float | None,
    typer.Option(
        help="Leave out segments whose highest frequency within 60 dB of the spectrum's peak is lower, in Hz."
    ),
]


@dataclass(frozen=True, slots=True)
class PreprocessOrder:
    """What the user asked for: the body of POST /v1/datasets."""

    collection: str
    preset: str
    segment_s: float
    min_segment_s: float
    target_lufs: float | None
    trim_silence: bool
    include_waveform: bool
    has_rhythm: bool
    channels: int
    max_silence_ratio: float | None
    max_clipped_ratio: float | None
    min_rms_dbfs: float | None
    min_centroid_hz: float | None
    min_bandwidth_hz: float | None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("preprocess", help=_HELP)(preprocess)


def preprocess(
    collection: Annotated[str, typer.Option("--collection", "-c", help="Name or id of the collection.")],
    preset: Annotated[str, typer.Option(help="Mel preset: vocos24, hifigan22, bigvgan24, whisper16.")] = "vocos24",
    segment_s: Annotated[float, typer.Option(help="Length of a segment in seconds.")] = 3.0,
    min_segment_s: Annotated[float, typer.Option(help="Shortest last segment of a recording.")] = 0.5,
    target_lufs: Annotated[
        float | None, typer.Option(help="Loudness to which every recording is brought; -23 unless --keep-level.")
    ] = None,
    keep_level: Annotated[bool, typer.Option("--keep-level", help="Leave every recording as loud as it is.")] = False,
    trim: Annotated[bool, typer.Option(help="Leave out silence at both ends of a recording.")] = True,
    with_waveform: _WithWaveform = False,
    channels: _Channels = 1,
    with_rhythm: _WithRhythm = False,
    max_silence_ratio: _MaxSilenceRatio = None,
    max_clipped_ratio: _MaxClippedRatio = None,
    min_rms_dbfs: _MinRmsDbfs = None,
    min_centroid_hz: _MinCentroidHz = None,
    min_bandwidth_hz: _MinBandwidthHz = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the dataset is ready.")] = False,
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    if keep_level and target_lufs is not None:
        raise typer.BadParameter("--keep-level and --target-lufs exclude each other")
    order = PreprocessOrder(
        collection=collection,
        preset=preset,
        segment_s=segment_s,
        min_segment_s=min_segment_s,
        target_lufs=None if keep_level else _TARGET_LUFS if target_lufs is None else target_lufs,
        trim_silence=trim,
        include_waveform=with_waveform,
        has_rhythm=with_rhythm,
        channels=channels,
        max_silence_ratio=max_silence_ratio,
        max_clipped_ratio=max_clipped_ratio,
        min_rms_dbfs=min_rms_dbfs,
        min_centroid_hz=min_centroid_hz,
        min_bandwidth_hz=min_bandwidth_hz,
    )
    with PlatformClient(url, data_dir=data_dir) as client:
        found = _carry_out(client, order, wait=wait)
    _report(found, is_json=is_json)
    if any(count for name, count in found["error_classes"].items() if name not in _OWN_REASONS):
        raise typer.Exit(EXIT_FAILURE)
    if wait and not found["segments"]:
        fail(_why_empty(found))


def _carry_out(client: PlatformClient, order: PreprocessOrder, *, wait: bool) -> dict[str, Any]:
    if wait:
        wait_until_settled(client, order.collection)
    found = client.post("/v1/datasets", body=asdict(order))
    return _wait_until_ready(client, str(found["dataset"])) if wait else found


def _why_empty(found: dict[str, Any]) -> str:
    if left_out := sum(found["segments_left_out"].values()):
        return f"the dataset holds no segment: all {left_out} that were cut miss a threshold; ask for less"
    return "the dataset holds no segment: the collection holds no recording, or none that could be cut"


def _wait_until_ready(client: PlatformClient, dataset: str) -> dict[str, Any]:
    with create_progress() as progress:
        task, plain = progress.add_task("preprocessing", total=None), PlainProgress()
        while True:
            found = client.get(path_to("datasets", dataset))
            num_items = sum(found["states"].values())
            num_done = num_items - found["states"].get("queued", 0)
            progress.update(task, total=num_items, completed=num_done)
            plain.say(f"preprocessing: {num_done} of {num_items} recordings")
            if found["state"] == "ready":
                return found
            time.sleep(_POLL_S)


def _report(found: dict[str, Any], *, is_json: bool) -> None:
    if is_json:
        print_json({name: found[name] for name in _COUNTS})
        return
    print_line(
        f"{found['dataset']} ({found['state']}): {found['hours']:.2f} hours in {found['segments']} segments of "
        f"{found['items']} recordings, {found['shards']} of {found['shards_planned']} shards"
    )
    if found["wall_s"]:
        per_wall, per_cpu = (found["hours"] * 3600 / max(found[name], 1e-3) for name in ("wall_s", "cpu_s"))
        print_line(f"{per_wall:.0f} seconds of sound per second, {per_cpu:.0f} per CPU second")
    rows = [("recording " + state, "", n) for state, n in sorted(found["states"].items())]
    rows += [("not taken", name, n) for name, n in sorted(found["error_classes"].items())]
    rows += [("segment left out", name, n) for name, n in sorted(found["segments_left_out"].items())]
    rows += [("segment without feature", name, n) for name, n in sorted(found["features_failed"].items())]
    print_table(("state", "reason", "count"), rows)
