"""Labels from names."""

import pytest

from audiofoundation.training.labels import UNLABELLED, label_of

LABELS = ("speech", "music", "other")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("speech-kathleen-1.opus", "speech"),
        ("Music_lofi.mp3", "music"),
        ("corpus/music/speech-like.flac", "music"),
        ("music/speech/7.flac", "speech"),
        ("musical.flac", UNLABELLED),
        ("https://host/other/x.wav", "other"),
        ("", UNLABELLED),
    ],
)
def test_the_nearest_folder_or_the_first_word_is_the_label(name: str, label: str) -> None:
    assert label_of(name, LABELS) == label
