"""The operator's functions: how settings name them, how the worker finds them, and what their failures cost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from billiard import common
from billiard.exceptions import SoftTimeLimitExceeded
from pydantic import ValidationError
from structlog.testing import capture_logs

from audiofoundation.errors import InvalidRequest, ModelNotReady
from audiofoundation.features.mel import Float32
from audiofoundation.identifiers import ItemId
from audiofoundation.preprocessing.custom import RecordingFeatures, functions_for, load_functions
from audiofoundation.settings import CustomFeature, Settings

SEGMENT = np.ones(100, np.float32)
MODULE = "operators_features"


@pytest.fixture
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{MODULE}.py").write_text("LIMIT = 3\n\ndef size(samples, sample_rate_hz):\n    return samples.size\n")
    (tmp_path / "broken_features.py").write_text("def size(samples:\n")
    (tmp_path / "leaving_features.py").write_text("import sys\n\nsys.exit('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)


def named(monkeypatch: pytest.MonkeyPatch, value: str) -> tuple[CustomFeature, ...]:
    monkeypatch.setenv("AF_PREPROCESS__CUSTOM_FEATURES", value)
    return Settings().preprocess.custom_features


def test_the_setting_names_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(monkeypatch, "tilt=a.b:c, crest = d:e,") == (
        CustomFeature(name="tilt", module="a.b", function="c"),
        CustomFeature(name="crest", module="d", function="e"),
    )
    assert Settings().preprocess.feature_names == ("crest", "tilt")
    monkeypatch.delenv("AF_PREPROCESS__CUSTOM_FEATURES")
    assert Settings().preprocess.feature_names == ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("crest", "not written as name=package.module:function"),
        ("crest=a.b", "not written as"),
        ("crest=a:b.c", "not written as"),
        ("1st=a:b", "pattern"),
        ("crest=a:b,crest=a:c", "the same name"),
    ],
)
def test_a_setting_that_names_no_function_is_refused(monkeypatch: pytest.MonkeyPatch, value: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        named(monkeypatch, value)


@pytest.mark.usefixtures("_module")
def test_functions_are_imported_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = load_functions(named(monkeypatch, f"size={MODULE}:size"))
    assert functions_for(["size"], functions)["size"](SEGMENT, 24_000) == SEGMENT.size
    assert functions_for([], functions) == {}


@pytest.mark.usefixtures("_module")
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("size=absent_module:size", "'size' cannot be loaded from absent_module:size: ModuleNotFoundError"),
        (f"size={MODULE}:absent", "AttributeError"),
        (f"size={MODULE}:LIMIT", "is no function"),
        ("size=broken_features:size", "SyntaxError"),
        ("size=leaving_features:size", "SystemExit: no licence"),
        (f"rms={MODULE}:size", "'rms', which every segment has already"),
        (f"tempo_bpm={MODULE}:size", "which every segment has already"),
    ],
)
def test_what_cannot_be_loaded_is_refused(monkeypatch: pytest.MonkeyPatch, value: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        load_functions(named(monkeypatch, value))


def test_a_worker_with_a_name_that_cannot_be_loaded_ends_with_a_sentence(tmp_path: Path) -> None:
    worker = subprocess.run(
        [sys.executable, "-P", "-m", "services.preprocess.worker"],
        env={**os.environ, "AF_DATA_DIR": str(tmp_path), "AF_PREPROCESS__CUSTOM_FEATURES": "crest=absent_module:crest"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert worker.returncode == 1
    assert worker.stderr.startswith("error: the feature 'crest' cannot be loaded from absent_module:crest: ")
    assert len(worker.stderr.splitlines()) == 1


def test_a_dataset_whose_functions_a_worker_has_not_waits_for_another() -> None:
    with pytest.raises(ModelNotReady, match="custom features crest, tilt: name them in") as refused:
        functions_for(["tilt", "size", "crest"], {"size": lambda samples, _: samples.size})
    assert refused.value.retryable


def test_a_failure_leaves_out_one_value_and_is_logged_once_a_recording() -> None:
    def growing(samples: Float32, _rate_hz: int) -> list[float]:
        return [0.0] * samples.size

    def short_only(samples: Float32, _rate_hz: int) -> float:
        if samples.size > 2:
            raise ValueError(f"{samples.size} samples")
        return 1.0

    features = RecordingFeatures(ItemId("item_1"), {"growing": growing, "short_only": short_only, "one": lambda *_: 1})

    with capture_logs() as logs:
        found = [features.measure(SEGMENT[:size], 24_000) for size in (2, 3, 4)]
        features.log_failures()

    assert found == [{"growing": [0.0, 0.0], "short_only": 1.0, "one": 1.0}, {"one": 1.0}, {"one": 1.0}]
    told = [(log["event"], log["log_level"], log["feature"], log["item_id"], log["num_segments"]) for log in logs]
    expected = ("custom_feature_failed", "warning")
    assert told == [(*expected, "growing", "item_1", 2), (*expected, "short_only", "item_1", 2)]
    assert "sequence of length 3" in logs[0]["error"]
    assert logs[1]["error"] == "the feature 'short_only' failed: ValueError: 3 samples"


def test_a_job_whose_time_is_over_is_not_mistaken_for_a_failure() -> None:
    def slow(_samples: Float32, _rate_hz: int) -> float:
        raise SoftTimeLimitExceeded

    def wrapping(samples: Float32, rate_hz: int) -> float:
        try:
            return slow(samples, rate_hz)
        except SoftTimeLimitExceeded as error:
            raise ValueError("it took too long") from error

    for function in (slow, wrapping):
        with pytest.raises(SoftTimeLimitExceeded):
            RecordingFeatures(ItemId("item_1"), {"slow": function}).measure(SEGMENT, 24_000)


def test_an_error_that_is_its_own_cause_is_told_like_any_other() -> None:
    def circular(_samples: Float32, _rate_hz: int) -> float:
        error, other = ValueError("one"), ValueError("two")
        error.__cause__, other.__cause__ = other, error
        raise error

    assert RecordingFeatures(ItemId("item_1"), {"circular": circular}).measure(SEGMENT, 24_000) == {}


def test_want_of_memory_is_not_the_functions_failure() -> None:
    def greedy(_samples: Float32, _rate_hz: int) -> float:
        raise MemoryError

    with pytest.raises(MemoryError):
        RecordingFeatures(ItemId("item_1"), {"greedy": greedy}).measure(SEGMENT, 24_000)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit("the model is missing"), "SystemExit: the model is missing"),
        (GeneratorExit(), "GeneratorExit: "),
        (Unspeakable(), "Unspeakable: (its message cannot be told: RuntimeError)"),
    ],
)
def test_whatever_a_function_raises_costs_its_feature_and_no_more(error: BaseException, reason: str) -> None:
    def leaving(_samples: Float32, _rate_hz: int) -> float:
        raise error

    features = RecordingFeatures(ItemId("item_1"), {"leaving": leaving, "one": lambda *_: 1})

    with capture_logs() as logs:
        found = features.measure(SEGMENT, 24_000)
        features.log_failures()

    assert found == {"one": 1.0}
    assert [log["error"] for log in logs] == [f"the feature 'leaving' failed: {reason}"]


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_worker_that_is_told_to_leave_within_a_function_leaves(
    monkeypatch: pytest.MonkeyPatch, is_wrapped: bool
) -> None:
    """By the signal and the handler of billiard by which Celery ends its children."""
    monkeypatch.setattr(common, "_should_have_exited", [False])
    before = signal.signal(signal.SIGQUIT, common._shutdown_cleanup)

    def slow(_samples: Float32, _rate_hz: int) -> float:
        try:
            signal.raise_signal(signal.SIGQUIT)
        except SystemExit as error:
            if is_wrapped:
                raise ValueError("interrupted") from error
            raise
        return 1.0

    try:
        with pytest.raises(SystemExit):
            RecordingFeatures(ItemId("item_1"), {"slow": slow}).measure(SEGMENT, 24_000)
    finally:
        signal.signal(signal.SIGQUIT, before)


@pytest.mark.parametrize(("handler", "expected"), [(signal.SIG_IGN, {}), (signal.default_int_handler, None)])
def test_an_interrupt_is_the_persons_where_one_can_come(
    handler: signal.Handlers, expected: dict[str, float] | None
) -> None:
    def interrupted(_samples: Float32, _rate_hz: int) -> float:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        features = RecordingFeatures(ItemId("item_1"), {"interrupted": interrupted})
        if expected is None:
            with pytest.raises(KeyboardInterrupt):
                features.measure(SEGMENT, 24_000)
        else:
            assert features.measure(SEGMENT, 24_000) == expected
    finally:
        signal.signal(signal.SIGINT, before)
