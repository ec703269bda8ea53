"""What a file is, told from its first bytes alone; its name and its sender's word count for nothing."""

from dataclasses import dataclass

from audiofoundation.errors import DecodeFailed

HEAD_BYTES = 1 << 16
_MAX_PADDING = 1 << 12
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# (offset, bytes, ffmpeg's demuxer, what people call it)
_AUDIO: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"fLaC", "flac", "FLAC"),
    (0, b"OggS", "ogg", "Ogg"),
    (0, b"\x1aE\xdf\xa3", "matroska", "Matroska or WebM"),
    (4, b"ftyp", "mov", "MP4"),
    (4, b"moov", "mov", "QuickTime"),
    (4, b"mdat", "mov", "QuickTime"),
    (4, b"wide", "mov", "QuickTime"),
    (4, b"free", "mov", "QuickTime"),
    (4, b"skip", "mov", "QuickTime"),
    (0, b"riff\x2e\x91\xcf\x11", "w64", "Wave64"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "asf", "WMA"),
    (0, b".snd", "au", "AU"),
    (0, b"caff", "caf", "CAF"),
    (0, b"NIST_1A", "nistsphere", "NIST SPHERE"),
    (0, b"#!AMR", "amr", "AMR"),
    (0, b"MAC ", "ape", "Monkey's Audio"),
    (0, b"wvpk", "wv", "WavPack"),
    (0, b"TTA1", "tta", "TTA"),
    (0, b"MPCK", "mpc8", "Musepack"),
    (0, b"MP+", "mpc", "Musepack"),
    (0, b"FLV\x01", "flv", "FLV"),
    (0, b"Creative Voice File\x1a", "voc", "VOC"),
    (0, b"\x7f\xfe\x80\x01", "dts", "DTS"),
    (0, b"\x00\x00\x01\xba", "mpeg", "MPEG"),
)
_IN_FORM: dict[tuple[bytes, bytes], tuple[str, str]] = {
    (b"RIFF", b"WAVE"): ("wav", "WAV"),
    (b"RIFX", b"WAVE"): ("wav", "WAV"),
    (b"RF64", b"WAVE"): ("wav", "WAV"),
    (b"BW64", b"WAVE"): ("wav", "WAV"),
    (b"RIFF", b"AVI "): ("avi", "AVI"),
    (b"FORM", b"AIFF"): ("aiff", "AIFF"),
    (b"FORM", b"AIFC"): ("aiff", "AIFF"),
}
_NOT_AUDIO: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive (or an office document)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"MThd", "MIDI: notes for an instrument, not sound"),
    (b"\x7fELF", "a program"),
)
_TEXTS: tuple[tuple[str, str], ...] = (
    ("#extm3u", "a playlist, which names audio but holds none"),
    ("[playlist]", "a playlist, which names audio but holds none"),
    ("ffconcat", "a playlist, which names audio but holds none"),
    ("<asx", "a playlist, which names audio but holds none"),
    ("v=0", "a session description (SDP), which names a stream but holds no audio"),
    ("<!doctype html", "an HTML page"),
    ("<html", "an HTML page"),
    ("<?xml", "an XML document"),
    ("<", "markup"),
    ("{", "JSON text"),
    ("[", "JSON text"),
)


@dataclass(frozen=True, slots=True)
class Container:
    """A container recognised by its first bytes: ffmpeg's demuxer for it, and its name for people."""

    demuxer: str
    label: str


def recognise(head: bytes) -> Container:
    """Tell the container from the file's first `HEAD_BYTES` bytes (fewer when it is shorter).

    Raises:
        DecodeFailed: it is empty or not audio; the message says what it is.
    """
    if not head:
        raise DecodeFailed("The file is empty: send a recording.")
    if head.startswith(b"ID3"):
        return _behind_id3(head)
    found = _known(head) or _elementary(head) or _padded(head)
    if found is not None:
        return found
    raise DecodeFailed(f"This is {_describe(head)}, not audio that we read: send a recording.")


def _known(head: bytes) -> Container | None:
    form = _IN_FORM.get((head[:4], head[8:12]))
    if form is not None:
        return Container(*form)
    for offset, magic, demuxer, label in _AUDIO:
        if head.startswith(magic, offset):
            return Container(demuxer, label)
    return None


def _elementary(head: bytes) -> Container | None:
    """Streams without a container, known by the sync word of their frames."""
    if len(head) < 4 or _is_utf16(head):
        return None
    if head[0] == 0x0B and head[1] == 0x77:
        # bsid, 5 bits from bit 40: 8 and less is AC-3, 11 to 16 Enhanced AC-3 (ETSI TS 102 366).
        is_enhanced = len(head) > 5 and head[5] >> 3 > 10
        return Container("eac3", "Enhanced AC-3") if is_enhanced else Container("ac3", "AC-3")
    if head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return Container("aac", "AAC")
    if _is_mpeg_audio_header(head):
        return Container("mp3", "MP3")
    if head[0] == 0x47 and len(head) > 376 and head[188] == 0x47 and head[376] == 0x47:
        return Container("mpegts", "MPEG-TS")
    return None


def _is_mpeg_audio_header(head: bytes) -> bool:
    """Sync, a layer, a bit rate that is not all ones and a sample rate that is not reserved."""
    return (
        head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] & 0x18 != 0x08
        and head[1] & 0x06 != 0
        and head[2] & 0xF0 != 0xF0
        and head[2] & 0x0C != 0x0C
    )


def _behind_id3(head: bytes) -> Container:
    """An ID3v2 tag stands before MP3 nearly always, before FLAC or AAC sometimes."""
    size = 10
    if len(head) >= 10:
        size += sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    rest = head[size:]
    found = (_known(rest) or _elementary(rest)) if rest else None
    if found is not None and found.demuxer in {"flac", "aac"}:
        return found
    return Container("mp3", "MP3")


def _padded(head: bytes) -> Container | None:
    """Some MP3 files begin with zeros; the sound follows."""
    rest = head.lstrip(b"\x00")
    if rest and 0 < len(head) - len(rest) <= _MAX_PADDING and _is_mpeg_audio_header(rest[:4].ljust(4, b"\xff")):
        return Container("mp3", "MP3")
    return None


def _describe(head: bytes) -> str:
    for magic, words in _NOT_AUDIO:
        if head.startswith(magic):
            return words
    text = _as_text(head[:1024])
    if text is None:
        return "data of an unknown kind"
    start = text.lstrip("\ufeff \t\r\n").lower()
    for prefix, words in _TEXTS:
        if start.startswith(prefix):
            return words
    return "text"


def _is_utf16(head: bytes) -> bool:
    """UTF-16's byte order mark is also a sync word of MPEG layer I: look whether text follows."""
    return head[:2] in _UTF16_MARKS and _as_text(head[: len(head[:1024]) & ~1]) is not None


def _as_text(head: bytes) -> str | None:
    encoding = "utf-16" if head[:2] in _UTF16_MARKS else "utf-8"
    text = head.decode(encoding, errors="replace")
    num_strange = sum(1 for sign in text if sign == "\ufffd" or (ord(sign) < 32 and sign not in "\t\r\n\f"))
    return text if num_strange <= 0.05 * len(text) else None
