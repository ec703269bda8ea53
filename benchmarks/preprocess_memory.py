"""Peak memory of preprocessing one long recording: this process and the decoder's together.

    python -m benchmarks.preprocess_memory [--hours 3] [--json]

The recording is made here first, in a process of its own. Memory is the sum of the
processes' proportional shares (/proc/PID/smaps_rollup), looked at twenty times a second: pages that a fork
shares with its parent count once.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import argparse
import multiprocessing
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from benchmarks.preprocess import ours, stereo_at_44100, write_clip
from benchmarks.report import Report

FORMS = ("mp3", "opus")
LOOK_S = 0.05
MIB = 1 << 20


def write_long(path: Path, hours: float) -> None:
    """Encode the benchmark's minute of music once and repeat its packets."""
    minute = path.with_stem("minute")
    write_clip(minute, stereo_at_44100())
    with av.open(minute) as source, av.open(path, "w", format="ogg" if path.suffix == ".opus" else "mp3") as out:
        found = source.streams.audio[0]
        stream = out.add_stream_from_template(found)
        packets = [(bytes(packet), packet.duration) for packet in source.demux(found) if packet.size]
        pts = 0
        for _ in range(round(hours * 60)):
            for data, duration in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, found.time_base
                packet.pts = packet.dts = pts
                packet.duration = duration
                out.mux(packet)
                pts += duration or 0


@contextmanager
def peak_memory(peaks: list[float]) -> Iterator[None]:
    """Append the most MiB that this process and its descendants held meanwhile."""
    is_done = threading.Event()
    peaks.append(0.0)

    def look() -> None:
        while not is_done.wait(LOOK_S):
            peaks[-1] = max(peaks[-1], sum(map(_held_bytes, _family(os.getpid()))) / MIB)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        is_done.set()
        watcher.join()


def _family(pid: int) -> list[int]:
    found = [pid]
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _text(listing).split():
            found += _family(int(child))
    return found


def _held_bytes(pid: int) -> int:
    for line in _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    # A decoding child lets nobody read its map: all that it has resident, shared or not.
    words = _text(Path(f"/proc/{pid}/statm")).split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if words else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended meanwhile, or is not to be looked into
        return ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = Report("preprocess_memory", {"hours": f"{arguments.hours:g}", "limit": "600 MiB"})
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            path = Path(folder) / f"long.{form}"
            writer = multiprocessing.get_context("spawn").Process(target=write_long, args=(path, arguments.hours))
            writer.start()
            writer.join()
            peaks: list[float] = []
            with peak_memory(peaks):
                ours([path])
            report.add(form, {"ours": peaks[0]}, ours="ours", unit="MiB")
    report.show(is_json=arguments.json)


if __name__ == "__main__":
    main()
