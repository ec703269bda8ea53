"""The label of a recording, read from its name: nothing else in the catalog says what it holds."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

UNLABELLED = ""


def label_of(name: str, labels: Sequence[str]) -> str:
    """Return the label that a recording's name carries.

    The nearest folder that is a label counts (`music/jazz/7.flac`), else the first word of the file's name
    (`speech-anna-3.opus`). Without either the recording has no label.
    """
    path = PurePosixPath(name.replace("\\", "/").lower())
    known = {label.lower(): label for label in labels}
    for part in reversed(path.parts[:-1]):
        if part in known:
            return known[part]
    word = re.split(r"[^0-9a-z]+", path.stem, maxsplit=1)[0]
    return known.get(word, UNLABELLED)
