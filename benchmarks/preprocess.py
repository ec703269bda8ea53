"""File to log-mel, one thread: our sandboxed decode and mel beside librosa's load and mel.

    python -m benchmarks.preprocess [--json]

CPU time of this process and, for ours, of the sandbox's processes too; median of three, in turns. The clip
is one of the repository's recordings, repeated; librosa reads every form here itself (through libsndfile).
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np

from audiofoundation.audio.decode import DecodeLimits, decode_file
from audiofoundation.audio.encode import AudioFormat, encode
from audiofoundation.audio.resample import resample
from audiofoundation.audio.sandbox.launcher import sandbox_cpu_s
from audiofoundation.audio.waveform import Waveform
from audiofoundation.features.mel import get_preset, log_mel
from benchmarks.report import Report

SECONDS = 60
RATE_HZ = 24000
REPEATS = 3
SOURCE = Path(__file__).parents[1] / "tests" / "data" / "recordings" / "music-boomboxhead-ripper.flac"
LIMITS = DecodeLimits(max_duration_s=600, max_bytes=1 << 30)


def ours(path: Path) -> None:
    waveform = decode_file(path, limits=LIMITS, target_rate_hz=RATE_HZ, is_mono=True).waveform
    log_mel(waveform.samples[0], get_preset("vocos24"))


def peer(path: Path) -> None:
    samples, _ = librosa.load(path, sr=RATE_HZ)
    mel = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, n_fft=1024, hop_length=256, n_mels=100, power=1.0)
    np.log(np.maximum(mel, 1e-7))


def cpu_seconds(run: Callable[[Path], None], path: Path) -> float:
    started, sandboxed = time.process_time(), sandbox_cpu_s()
    run(path)
    return time.process_time() - started + sandbox_cpu_s() - sandboxed


def stereo_at_44100() -> Waveform:
    clip = resample(decode_file(SOURCE, limits=LIMITS, is_mono=True).waveform, 44100).samples[0]
    return Waveform(np.tile(np.resize(clip, SECONDS * 44100), (2, 1)), 44100)


def main() -> None:
    warnings.simplefilter("ignore")
    report = Report("preprocess", {"threads": "1", "clip": f"{SECONDS} s stereo 44.1 kHz", "measure": "CPU time"})
    waveform = stereo_at_44100()
    with tempfile.TemporaryDirectory() as folder:
        for fmt in (AudioFormat.WAV, AudioFormat.FLAC, AudioFormat.MP3, AudioFormat.OPUS):
            path = Path(folder) / f"clip.{fmt}"
            path.write_bytes(encode(waveform, fmt))
            systems = {"ours": ours, "librosa": peer}
            times: dict[str, list[float]] = {name: [] for name in systems}
            for _ in range(REPEATS + 1):
                for name, run in systems.items():
                    times[name].append(cpu_seconds(run, path))
            speeds = {name: SECONDS / statistics.median(values[1:]) for name, values in times.items()}
            report.add(fmt, speeds, ours="ours", unit="x real time")
    report.show(is_json="--json" in sys.argv)


if __name__ == "__main__":
    main()
