"""The repository's own source files."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("audiofoundation", "services", "tests", "benchmarks")


def python_files() -> list[Path]:
    """Return the files that people write; generated ones have no size to keep."""
    found = [path for folder in _FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if ROOT / "audiofoundation" / "api" not in path.parents)


def c_files() -> list[Path]:
    return sorted(path for path in (ROOT / "audiofoundation").rglob("*.[ch]"))


def run(*argv: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a program in the repository's root, as a user would: not as a part of the make that runs the tests."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
