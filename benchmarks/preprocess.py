"""File to shard, one thread: our whole preprocessing beside librosa's load and mel.

    python -m benchmarks.preprocess [--json]

Ours: sandboxed decode, rate change, loudness, trimming, quality measures, descriptors, mel, tar and its hash; and
as "mel alone" only what theirs does. Theirs: load and mel. CPU time of this process, the sandbox's and of commands that
were started; median of several turns. The clip is a recording of the repository, repeated. librosa reads wav, flac,
mp3 and opus itself (through libsndfile). For m4a and webm it starts the `ffmpeg` command: the machine's, or that of the
package imageio-ffmpeg. "librosa, fed by PyAV" is spared that: there it is handed the samples that PyAV decodes.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import imageio_ffmpeg
import librosa
import numpy as np
from numpy.typing import NDArray

from audiofoundation.audio.decode import DecodeLimits, decode_file
from audiofoundation.audio.encode import AudioFormat, encode
from audiofoundation.audio.resample import resample
from audiofoundation.audio.sandbox.launcher import sandbox_cpu_s
from audiofoundation.audio.waveform import Waveform
from audiofoundation.features.mel import get_preset, log_mel
from audiofoundation.identifiers import AssetId, ItemId, Sha256
from audiofoundation.preprocessing.allocator import keep_freed_memory
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.recording import RecordingToCut, cut_recording
from audiofoundation.shards.writer import ShardWriter
from benchmarks.report import Report

SECONDS = 60
SHORT_SECONDS, NUM_SHORT = 5, 12
RATE_HZ = 24000
STARTS_FFMPEG = (".m4a", ".webm")
REPEATS = 5
SOURCE = Path(__file__).parents[1] / "tests" / "data" / "recordings" / "music-boomboxhead-ripper.flac"
LIMITS = DecodeLimits(max_duration_s=600, max_bytes=1 << 30)
RECORDING = RecordingToCut(ItemId("it_1"), AssetId("as_1"), Sha256("0" * 64), "originals/1")


def ours(paths: Sequence[Path]) -> None:
    keep_freed_memory()  # as the job does; librosa gains by it too
    with tempfile.TemporaryDirectory() as folder, ShardWriter(Path(folder) / "shard.tar") as writer:
        for path in paths:
            for sample in cut_recording(path, RECORDING, DatasetOptions(), work_dir=Path(folder)):
                writer.write(sample)
        writer.finish()


def ours_mel(paths: Sequence[Path]) -> None:
    """What the peer does and no more: decode, rate change, mel."""
    config = get_preset("vocos24")
    for path in paths:
        decoded = decode_file(path, limits=LIMITS, target_rate_hz=RATE_HZ, is_mono=True)
        log_mel(decoded.waveform.samples[0], config)


def peer(paths: Sequence[Path]) -> None:
    for path in paths:
        _mel(librosa.load(path, sr=RATE_HZ)[0])


def peer_fed_by_pyav(paths: Sequence[Path]) -> None:
    for path in paths:
        _mel(_load_by_pyav(path))


def _mel(samples: NDArray[np.float32]) -> None:
    mel = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, n_fft=1024, hop_length=256, n_mels=100, power=1.0)
    np.log(np.maximum(mel, 1e-7))


def _load_by_pyav(path: Path) -> NDArray[np.float32]:
    with av.open(path) as media:
        rate_hz = media.streams.audio[0].rate
        frames = [frame.to_ndarray().mean(0) for frame in media.decode(audio=0)]
    resampled: NDArray[np.float32] = librosa.resample(np.concatenate(frames), orig_sr=rate_hz, target_sr=RATE_HZ)
    return resampled


def cpu_seconds(run: Callable[[Sequence[Path]], None], paths: Sequence[Path]) -> float:
    started, sandboxed, commands = time.process_time(), sandbox_cpu_s(), _commands_cpu_s()
    run(paths)
    return time.process_time() - started + sandbox_cpu_s() - sandboxed + _commands_cpu_s() - commands


def _commands_cpu_s() -> float:
    """Of processes that have ended; the sandbox's have not."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def provide_ffmpeg(folder: Path) -> None:
    """Put an `ffmpeg` command on the path, where there is none."""
    if shutil.which("ffmpeg") is None:
        (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def stereo_at_44100() -> Waveform:
    clip = resample(decode_file(SOURCE, limits=LIMITS, is_mono=True).waveform, 44100).samples[0]
    return Waveform(np.tile(np.resize(clip, SECONDS * 44100), (2, 1)), 44100)


def write_clip(path: Path, waveform: Waveform) -> None:
    """Write a clip in the form that its name says."""
    if path.suffix == ".m4a":
        _mux(path, waveform, codec="aac", container="ipod")
    elif path.suffix == ".webm":
        _mux(path, resample(waveform, 48000), codec="libopus", container="webm")
    else:
        path.write_bytes(encode(waveform, AudioFormat(path.suffix[1:])))


def _mux(path: Path, waveform: Waveform, *, codec: str, container: str) -> None:
    rate_hz = waveform.sample_rate_hz
    with av.open(path, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate_hz, layout="stereo", bit_rate=128000)
        fifo = av.AudioFifo()
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform.samples), format="fltp", layout="stereo")
        frame.sample_rate = rate_hz
        fifo.write(frame)
        for part in fifo.read_many(960):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))


def measure(paths: Sequence[Path], seconds: float) -> dict[str, float]:
    """Return each system's seconds of sound per CPU second."""
    systems = {"ours": ours, "ours, mel alone": ours_mel, "librosa": peer}
    if paths[0].suffix in STARTS_FFMPEG:
        systems["librosa, fed by PyAV"] = peer_fed_by_pyav
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(REPEATS + 1):
        for name, run in systems.items():
            times[name].append(cpu_seconds(run, paths))
    return {name: seconds / statistics.median(values[1:]) for name, values in times.items()}


def add(report: Report, case: str, speeds: dict[str, float]) -> None:
    """Record the whole of preprocessing, and of it what the peer does too."""
    alone = "ours, mel alone"
    report.add(case, {name: speed for name, speed in speeds.items() if name != alone}, ours="ours", unit="x real time")
    peers = {name: speed for name, speed in speeds.items() if not name.startswith("ours")}
    report.add(f"{case}, mel alone", {"ours": speeds[alone], **peers}, ours="ours", unit="x real time")


def main() -> None:
    warnings.simplefilter("ignore")
    report = Report("preprocess", {"threads": "1", "clip": f"{SECONDS} s stereo 44.1 kHz", "measure": "CPU time"})
    waveform = stereo_at_44100()
    short = Waveform(waveform.samples[:, : SHORT_SECONDS * 44100], 44100)
    with tempfile.TemporaryDirectory() as folder:
        provide_ffmpeg(Path(folder))
        for fmt in ("wav", "flac", "mp3", "m4a", "opus", "webm"):
            path = Path(folder) / f"clip.{fmt}"
            write_clip(path, waveform)
            # The kernel tells the sandbox's CPU time in steps of 10 ms: several files make them small.
            add(report, fmt, measure([path] * 4, 4 * SECONDS))
        path = Path(folder) / "short.mp3"
        write_clip(path, short)
        speeds = measure([path] * NUM_SHORT, NUM_SHORT * SHORT_SECONDS)
        add(report, f"mp3, clips of {SHORT_SECONDS} s", speeds)
    report.show(is_json="--json" in sys.argv)


if __name__ == "__main__":
    main()
