"""Accepting a recording: it must decode from its first byte to its last."""

from dataclasses import dataclass
from pathlib import Path

from audiofoundation.audio.decode import AudioInfo, DecodeLimits, decode_blocks
from audiofoundation.errors import DecodeFailed
from audiofoundation.ingestion.excerpts import Excerpts
from audiofoundation.ingestion.states import ItemRefused, RefusalClass

MAX_DURATION_S = 4 * 3600.0
LIMITS = DecodeLimits(max_duration_s=MAX_DURATION_S, max_bytes=4 << 30, wall_s=700, cpu_s=600)


@dataclass(frozen=True, slots=True)
class VerifiedAudio:
    """A recording that decodes. `damage` says what in it did not; what came before counts."""

    info: AudioInfo
    damage: str | None


def verify_audio(path: Path, *, limits: DecodeLimits = LIMITS, excerpts: Excerpts | None = None) -> VerifiedAudio:
    """Decode the whole file in the sandbox and keep nothing of it but excerpts, where somebody wants them.

    Raises:
        DecodeFailed: it is not audio, or nothing in it decodes.
        AudioTooLong: it lasts longer than four hours, or expands too far.
    """
    with decode_blocks(path, limits=limits, max_channels=0 if excerpts is None else None) as blocks:
        for block in blocks:
            if excerpts is not None:
                excerpts.add(block)
        if blocks.info is None or blocks.info.duration_s <= 0:
            raise DecodeFailed("the file holds no audio")
        return VerifiedAudio(blocks.info, blocks.damage)


def check_complete(audio: VerifiedAudio, *, advertised_s: float | None) -> None:
    """Raise ItemRefused when a download is not as long as its source said: within 1 s or 1 %."""
    if advertised_s is None:
        return
    decoded_s = audio.info.duration_s
    if abs(decoded_s - advertised_s) > max(1.0, 0.01 * advertised_s):
        raise ItemRefused(
            RefusalClass.INCOMPLETE,
            f"{decoded_s:.1f} s were decoded of the {advertised_s:.1f} s that the source announced",
        )


def check_not_cut_short(audio: VerifiedAudio, *, listed_s: float | None) -> None:
    """Raise ItemRefused when a recording misses a tenth, and more than a second, of what its list or feed said.

    Feeds round, and their publishers put advertisements in: longer says nothing, and a little shorter neither.
    """
    if listed_s is None:
        return
    decoded_s = audio.info.duration_s
    if decoded_s < listed_s - max(1.0, 0.1 * listed_s):
        raise ItemRefused(
            RefusalClass.INCOMPLETE,
            f"{decoded_s:.1f} s were decoded of the {listed_s:.1f} s that its list or feed says",
        )
