"""What the NumPy classifier refuses to load."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from audiofoundation.errors import CheckpointInvalid, MelMismatch
from audiofoundation.models.classifier_numpy import load_classifier
from audiofoundation.settings import ModelSettings

BUNDLED = ModelSettings().pretrained_dir / "classifier-tiny" / "model.safetensors"
Tensors = dict[str, NDArray[np.generic]]
Header = dict[str, object]


def changed(path: Path, change: Callable[[Header, Tensors], object]) -> Path:
    """Write the bundled file with a change."""
    with safe_open(BUNDLED, "np") as file:
        header: Header = json.loads(file.metadata()["audiofoundation"])
        tensors: Tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, path, metadata={"audiofoundation": json.dumps(header)})
    return path


def in_config(**values: object) -> Callable[[Header, Tensors], object]:
    def change(header: Header, _: Tensors) -> None:
        config = header["config"]
        assert isinstance(config, dict)
        config.update(values)

    return change


def test_the_bundled_one_loads() -> None:
    model = load_classifier(BUNDLED)
    assert model.labels == ("speech", "music", "other")
    assert model.version.startswith("classifier-tiny@")


CHANGES: dict[str, Callable[[Header, Tensors], object]] = {
    "another kind": lambda header, _: header.update(kind="causal_vocos"),
    "no fingerprint": lambda header, _: header.pop("mel_fingerprint"),
    "an unknown size": in_config(depth=4),
    "another width": in_config(width=25),
    "other bands": in_config(num_bands=80),
    "one label more": in_config(labels=["speech", "music", "other", "noise"]),
    "endless windows": in_config(window_frames=10**9),
    "a tensor less": lambda _, tensors: tensors.pop("blocks.3.norm.bias"),
    "a tensor more": lambda _, tensors: tensors.update({"blocks.4.conv.weight": np.zeros((96, 96, 3, 3), np.float32)}),
    "weights that are not finite": lambda _, tensors: tensors.update({"std_F": np.full(100, np.nan, np.float32)}),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_file_of_another_architecture_is_refused(name: str, tmp_path: Path) -> None:
    path = changed(tmp_path / "model.safetensors", CHANGES[name])
    with pytest.raises(CheckpointInvalid, match=r"model\.safetensors"):
        load_classifier(path)


def test_a_mel_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path / "model.safetensors", lambda header, _: header.update(mel_fingerprint="0" * 16))
    with pytest.raises(MelMismatch, match="classifier-tiny"):
        load_classifier(path)


class _Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("executed",)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(_Payload()))
    with pytest.raises(CheckpointInvalid):
        load_classifier(path)
    assert not (tmp_path / "executed").exists()


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(CheckpointInvalid, match="larger"):
        load_classifier(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"absent\.safetensors cannot be read: No such file"):
        load_classifier(tmp_path / "absent.safetensors")
