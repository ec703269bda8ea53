import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from audiofoundation.cli import create_cli
from audiofoundation.errors import InvalidRequest
from tests.unit.interchange.folders import create_folder, noise_folder


def dataset(*args: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(create_cli(), ["dataset", *map(str, args)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_json_has_the_counts_and_the_reasons(tmp_path: Path) -> None:
    folder = noise_folder(tmp_path / "in", 3)
    (folder / "audio" / "1.wav").write_bytes(b"")

    status, stdout, _ = dataset("build", folder, "--out", tmp_path / "out", "--val-split", 0.5, "--plots", 1, "--json")

    report = json.loads(stdout)
    assert status == 0
    assert (report["samples"], report["train"], report["validation"]) == (2, 1, 1)
    assert [(skip["file"], bool(skip["reason"])) for skip in report["skipped"]] == [("1.wav", True)]
    assert report["out"] == str(tmp_path / "out")


def test_people_read_a_line_and_warnings(tmp_path: Path) -> None:
    folder = noise_folder(tmp_path / "in", 2)
    (folder / "audio" / "extra.wav").write_bytes(b"x")

    status, stdout, stderr = dataset("build", folder, "--out", tmp_path / "out", "--plots", 0)

    assert status == 0
    assert "2 samples, 1 train and 1 validate" in stdout.replace("\n", " ")
    assert "extra.wav" in stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--target", "bark"],
        ["--target", ""],
        ["--target", "musicgen"],
        ["--val-split", "1.5"],
        ["--whisper-bands", "64"],
        ["--plots", "-1"],
        ["--musicgen-model", "/absent"],
    ],
)
def test_wrong_usage_is_2_and_writes_nothing(tmp_path: Path, options: list[str]) -> None:
    status, stdout, stderr = dataset("build", noise_folder(tmp_path / "in", 1), "--out", tmp_path / "out", *options)

    assert (status, stdout) == (2, "")
    assert "Error" in stderr
    assert not (tmp_path / "out").exists()


def test_nothing_usable_is_told_in_one_sentence(tmp_path: Path) -> None:
    folder = create_folder(tmp_path / "in", [{"audio_file": "a.wav", "text": "x"}])

    with pytest.raises(InvalidRequest, match=r"can be used: a\.wav"):  # `main` makes it exit status 1
        dataset("build", folder, "--out", tmp_path / "out")

    assert not (tmp_path / "out").exists()
