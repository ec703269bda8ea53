"""Keys: attempt-scoped, content-addressed, never colliding."""

from audiofoundation.identifiers import DatasetId, RunId, sha256_of
from audiofoundation.storage import keys

ONE, TWO = sha256_of(b"one"), sha256_of(b"two")


def test_raw_key_is_the_content() -> None:
    assert keys.raw_key(ONE) == f"raw/{ONE[:2]}/{ONE}"


def test_attempts_and_contents_never_share_a_shard_key() -> None:
    dataset = DatasetId("ds_1")
    made = {keys.shard_key(dataset, 3, attempt, sha) for attempt in (1, 2) for sha in (ONE, TWO)}
    assert len(made) == 4
    assert all(key.startswith("datasets/ds_1/shards/000003/") for key in made)


def test_attempts_never_share_a_checkpoint_key() -> None:
    run = RunId("run_1")
    assert keys.checkpoint_key(run, 10, 1, ONE) != keys.checkpoint_key(run, 10, 2, ONE)


def test_each_version_of_a_dataset_and_model_has_a_key() -> None:
    assert keys.manifest_key(DatasetId("d"), ONE) != keys.manifest_key(DatasetId("d"), TWO)
    assert keys.model_key("m", ONE) != keys.model_key("m", TWO)
    assert keys.upload_key("u") == "uploads/u"
