import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from audiofoundation.cli.finite import require_finite


def audiofoundation(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "audiofoundation.cli", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NO_COLOR": "1", **env},
    )


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_building_the_command_line_imports_nothing_heavy() -> None:
    modules = imported_by("from audiofoundation.cli import create_cli; create_cli()")

    assert not modules & {"torch", "sqlalchemy", "celery", "fastapi", "av", "scipy", "grpc"}


@pytest.mark.parametrize("command", ["up", "doctor"])
def test_help_teaches_by_example(command: str) -> None:
    done = audiofoundation(command, "--help")

    assert done.returncode == 0
    assert f"audiofoundation {command}" in done.stdout
    assert "Examples:" in done.stdout


def test_help_lists_commands() -> None:
    done = audiofoundation("--help")

    assert done.returncode == 0
    assert {"up", "doctor"} <= set(done.stdout.split())


def test_the_version_is_the_packages() -> None:
    done = audiofoundation("--version")

    assert (done.returncode, done.stdout) == (0, f"audiofoundation {version('audiofoundation')}\n")


@pytest.mark.parametrize(
    "args",
    [
        ["no-such-command"],
        ["up", "--port", "70000"],
        ["up", "--workers", "0"],
        ["up", "-x"],
        ["up", "--data-dir", __file__],
    ],
)
def test_wrong_usage_exits_2(args: list[str]) -> None:
    done = audiofoundation(*args)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error" in done.stderr


@pytest.mark.parametrize(
    ("args", "option"),
    [
        (["preprocess", "-c", "mine", "--segment-s", "nan"], "--segment-s: nan"),
        (["preprocess", "-c", "mine", "--target-lufs=-inf"], "--target-lufs: -inf"),
        (["preprocess", "-c", "mine", "--min-rms-dbfs", "inf"], "--min-rms-dbfs: inf"),
        (["continue", __file__, "-o", "x.wav", "--temperature", "nan"], "--temperature: nan"),
    ],
)
def test_a_number_that_is_not_finite_exits_2_and_is_named(args: list[str], option: str) -> None:
    done = audiofoundation(*args)

    assert done.returncode == 2
    assert f"{option} is not a finite number." in done.stderr
    assert "Traceback" not in done.stderr


def test_commands_of_groups_refuse_what_is_not_finite_and_take_the_rest() -> None:
    app, group = typer.Typer(), typer.Typer()
    taken: list[float | None] = []

    @group.command()
    def weigh(grams: float | None = None) -> None:
        taken.append(grams)

    group.command("other")(lambda: None)
    app.add_typer(group, name="scales")
    require_finite(app)

    results = [CliRunner().invoke(app, ["scales", "weigh", *rest]) for rest in (["--grams", "2.5"], [])]
    assert [result.exit_code for result in results] == [0, 0]
    assert CliRunner().invoke(app, ["scales", "weigh", "--grams", "inf"]).exit_code == 2
    assert taken == [2.5, None]


def test_a_wrong_setting_exits_2_and_is_named() -> None:
    done = audiofoundation("doctor", AF_SERVING__PORT="many")

    assert done.returncode == 2
    assert "AF_SERVING__PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_setting_of_a_block_exits_2_with_the_one_that_was_meant() -> None:
    done = audiofoundation("doctor", AF_SERVING__API_KEY="k")

    assert done.returncode == 2
    assert "AF_SERVING__API_KEY is no setting (AF_SERVING__API_KEYS is one)" in done.stderr


def test_a_failure_is_one_sentence_and_exits_1(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")

    done = audiofoundation("up", "--data-dir", str(blocker / "data"))

    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert str(blocker) in done.stderr
