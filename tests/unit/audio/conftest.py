"""What the audio tests share: limits, and where recordings lie."""

import json
import os
from pathlib import Path

import pytest

from audiofoundation.audio.decode import DecodeLimits

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def limits() -> DecodeLimits:
    return DecodeLimits(max_duration_s=600, max_bytes=100 << 20)


@pytest.fixture(scope="session")
def originals() -> Path:
    return DATA / "originals"


@pytest.fixture(scope="session")
def recordings() -> Path:
    return DATA / "recordings"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `original_row` every odd file of the repository, and of AF_TEST_DATA where that is set."""
    if "original_row" not in metafunc.fixturenames:
        return
    folders = [DATA / "originals"]
    if extra := os.environ.get("AF_TEST_DATA"):
        folders.append(Path(extra) / "originals")
    rows = [
        pytest.param(row | {"file": folder / Path(row["path"]).name}, id=f"{number}-{Path(row['path']).name}")
        for number, folder in enumerate(folders)
        for row in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    ]
    metafunc.parametrize("original_row", rows)
