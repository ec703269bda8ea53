"""A folder with a manifest becomes a corpus; voices of children never become generative."""

import json
import shutil
from pathlib import Path

import pytest

from audiofoundation.training.corpus import Corpus
from audiofoundation.training.folder_corpus import ManifestRow, build_corpus

RECORDINGS = Path(__file__).parents[2] / "data" / "recordings"
VOICE = "speech-kathleen-arctic-a0010-1592748378.opus"
OTHER = "speech-kathleen-arctic-a0417-1592706106.opus"


def row(path: str, **fields: object) -> dict[str, object]:
    plain = {"path": f"speech/{path}", "kind": "speech", "split": "train", "source": "a/b:c", "license": "CC0-1.0"}
    return {**plain, "speaker": "kathleen", **fields}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "speech"
    folder.mkdir()
    for name in (VOICE, OTHER):
        shutil.copy(RECORDINGS / name, folder)
    (folder / "text.wav").write_text("no audio")
    rows = [row(VOICE), row(OTHER), row(VOICE, speaker="child", age=9), row(VOICE, license="CC-Sampling+")]
    rows.append(row("text.wav", speaker="nobody"))
    (folder / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_utterances_of_one_voice_are_joined_and_children_only_train_recognition(data: Path) -> None:
    corpus = build_corpus(data, ["speech"])
    by_group = {recording.group: recording for recording in corpus.recordings}
    assert set(by_group) == {"a/b/kathleen", "a/b/child"}
    assert by_group["a/b/kathleen"].is_generative
    assert not by_group["a/b/child"].is_generative
    assert by_group["a/b/kathleen"].num_frames > 1.5 * by_group["a/b/child"].num_frames
    assert corpus.wave is not None
    assert corpus.wave.size == len(corpus.mel) * corpus.hop_length


def test_a_saved_corpus_is_the_same(data: Path, tmp_path: Path) -> None:
    corpus = build_corpus(data, ["speech"])
    corpus.save(tmp_path / "corpus")
    loaded = Corpus.load(tmp_path / "corpus")
    assert loaded.recordings == corpus.recordings
    assert (loaded.mel == corpus.mel).all()


@pytest.mark.parametrize(("age", "expected"), [(None, True), (17, False), (18, True)])
def test_age_decides_what_a_voice_may_train(age: int | None, expected: bool) -> None:
    assert ManifestRow.model_validate(row(VOICE, age=age)).is_generative is expected
