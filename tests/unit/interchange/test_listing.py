from pathlib import Path

import pytest

from audiofoundation.errors import InvalidRequest
from audiofoundation.interchange.listing import read_listing
from tests.unit.interchange.folders import create_folder, write_noise


def test_entries_keep_their_order_and_their_fields(tmp_path: Path) -> None:
    rows = [{"audio_file": f"{name}.wav", "text": name, "mood": ["x"]} for name in ("b", "ä c", "a")]
    folder = create_folder(tmp_path / "in", rows)
    for row in rows:
        write_noise(folder / "audio" / str(row["audio_file"]), 0.1)

    listing = read_listing(folder)

    assert [entry.fields for entry in listing.entries] == rows
    assert [entry.text for entry in listing.entries] == ["b", "ä c", "a"]
    assert (listing.skipped, listing.unlisted) == ((), ())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("text", "no JSON object"),
        (7, "no JSON object"),
        ({"text": "x"}, "names no 'audio_file'"),
        ({"audio_file": None, "text": "x"}, "names no 'audio_file'"),
        ({"audio_file": ["a.wav"], "text": "x"}, "names no 'audio_file'"),
        ({"audio_file": "a.wav"}, "no 'text'"),
        ({"audio_file": "a.wav", "text": " \n"}, "no 'text'"),
        ({"audio_file": "a.wav", "text": "\ud800"}, "not Unicode"),
        ({"audio_file": "b.wav", "text": "x"}, "no such file"),
        ({"audio_file": ".", "text": "x"}, "no such file"),
        ({"audio_file": "../metadata.json", "text": "x"}, "leads out of audio/"),
        ({"audio_file": "../../outside.wav", "text": "x"}, "leads out of audio/"),
        ({"audio_file": "/etc/hostname", "text": "x"}, "leads out of audio/"),
        ({"audio_file": "link.wav", "text": "x"}, "leads out of audio/"),
        ({"audio_file": "a\0.wav", "text": "x"}, "no file name"),
        ({"audio_file": "a" * 5000, "text": "x"}, "no file name"),
        ({"audio_file": "loop", "text": "x"}, "no file name"),
    ],
)
def test_an_entry_that_cannot_be_used_is_skipped_with_its_reason(tmp_path: Path, row: object, reason: str) -> None:
    folder = create_folder(tmp_path / "in", [row])
    write_noise(folder / "audio" / "a.wav", 0.1)
    (folder / "audio" / "link.wav").symlink_to(write_noise(tmp_path / "outside.wav", 0.1))
    (folder / "audio" / "loop").symlink_to(folder / "audio" / "loop")

    listing = read_listing(folder)

    assert listing.entries == ()
    (skipped,) = listing.skipped
    assert reason in skipped.reason
    skipped.file.encode()


def test_a_file_listed_twice_counts_once(tmp_path: Path) -> None:
    rows = [{"audio_file": "a.wav", "text": "first"}, {"audio_file": "./a.wav", "text": "second"}]
    folder = create_folder(tmp_path / "in", rows)
    write_noise(folder / "audio" / "a.wav", 0.1)

    listing = read_listing(folder)

    assert [entry.text for entry in listing.entries] == ["first"]
    assert "more than once" in listing.skipped[0].reason


def test_files_that_nothing_describes_are_named(tmp_path: Path) -> None:
    folder = create_folder(tmp_path / "in", [{"audio_file": "a.wav", "text": "a"}, {"audio_file": "b.wav"}])
    (folder / "audio" / "sub").mkdir()
    for name in ("a.wav", "b.wav", "c.wav", "sub/d.wav", ".DS_Store"):
        write_noise(folder / "audio" / "a.wav", 0.1).rename(folder / "audio" / name)
    write_noise(folder / "audio" / "a.wav", 0.1)

    assert read_listing(folder).unlisted == ("c.wav", "sub/d.wav")


@pytest.mark.parametrize("text", ["", "{", "{}", "null", '"x"', "[" * 100_000, "\xff"])
def test_metadata_that_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    folder = create_folder(tmp_path / "in", [])
    (folder / "metadata.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(InvalidRequest, match=r"metadata\.json"):
        read_listing(folder)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="audio"):
        read_listing(tmp_path)
    (tmp_path / "audio").mkdir()
    with pytest.raises(InvalidRequest, match=r"metadata\.json"):
        read_listing(tmp_path)


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    folder = create_folder(tmp_path / "in", [])
    (folder / "metadata.json").write_bytes(b"\xef\xbb\xbf[]")

    assert read_listing(folder).entries == ()
