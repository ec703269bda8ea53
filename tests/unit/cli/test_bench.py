"""`bench` runs the checkout's benchmarks, answers in the promised shape and says what it lacks."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from audiofoundation.cli import bench, create_cli
from audiofoundation.cli.output import CommandError
from benchmarks.report import Report
from tests.architecture.source import ROOT
from tests.unit.cli.test_main import audiofoundation

# The contract of `bench --json`; a ratio above 1 means that ours is better.
TEXT, NUMBER = {"type": "string", "minLength": 1}, {"type": "number"}


def record(**fields: object) -> dict[str, object]:
    return {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}


SHAPE = record(
    benchmark=TEXT,
    conditions={"type": "object", "additionalProperties": TEXT},
    rows={"type": "array", "minItems": 1, "items": record(case=TEXT, system=TEXT, value=NUMBER, unit=TEXT)},
    ratios={"type": "array", "minItems": 1, "items": record(case=TEXT, peer=TEXT, ratio=NUMBER)},
)
TINY = """
import sys
from benchmarks.report import Report
report = Report("continue", {"threads": "1"})
report.add("steps", {"ours": 3.0, "peer": 2.0}, ours="ours", unit="steps/s")
report.show(is_json="--json" in sys.argv)
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose one benchmark takes no time."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("__init__.py", "report.py"):
        shutil.copy(ROOT / "benchmarks" / name, folder)
    (folder / "continue.py").write_text(TINY)
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(create_cli(), ["bench", *args])


def message(result: Result) -> str:
    assert isinstance(result.exception, CommandError), "main tells it in one sentence and exits 1"
    assert result.stdout == ""
    return str(result.exception)


def test_a_report_has_the_promised_shape(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("tiny", {"threads": "1"})
    report.add("a case", {"ours": 3.0, "a peer": 2.0}, ours="ours", unit="x")
    report.show(is_json=True)

    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, SHAPE)
    assert found["ratios"] == [{"case": "a case", "peer": "a peer", "ratio": 1.5}]


@pytest.mark.usefixtures("checkout")
def test_json_is_one_object_on_stdout() -> None:
    result = run("continue", "--json")

    assert result.exit_code == 0, result.exception
    jsonschema.validate(json.loads(result.stdout), SHAPE)


@pytest.mark.usefixtures("checkout")
def test_without_json_it_is_a_table() -> None:
    assert "1.50x" in run("continue").stdout


def test_a_benchmark_that_fails_is_told_in_one_sentence(checkout: Path) -> None:
    (checkout / "benchmarks" / "continue.py").write_text("print('half a result'); raise RuntimeError('no such luck')")

    assert "RuntimeError: no such luck" in message(run("continue", "--json"))


def test_without_a_checkout_it_says_where_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)

    assert "clone the repository" in message(run("vocoder"))


@pytest.mark.usefixtures("checkout")
def test_a_missing_peer_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.NEEDED, bench.Benchmark.CONTINUE, ("json", "no_such_peer"))

    told = message(run("continue"))
    assert told.startswith("no_such_peer is not installed")
    assert "make setup" in told


@pytest.mark.parametrize("args", [[], ["serve"], ["train"], ["loading"]])
def test_what_cannot_be_measured_is_wrong_usage(args: list[str]) -> None:
    done = audiofoundation("bench", *args)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "serve" not in audiofoundation("bench", "--help").stdout


def test_every_benchmark_on_offer_is_in_the_checkout() -> None:
    for name in bench.Benchmark:
        assert (ROOT / "benchmarks" / f"{name}.py").is_file()
        assert bench.NEEDED[name]
