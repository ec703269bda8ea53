"""The one file that builds object keys.

Keys of immutable objects carry their content hash and, where a job writes them, its attempt, so that two
attempts never write the same object: only a job that is asked for again, which counts its attempts from one, may come
to a key once more, with the same bytes. A catalog row makes an object exist.
"""

from audiofoundation.identifiers import DatasetId, RunId, Sha256

_SHORT_HASH = 16
# Everything that we write lies under one of these; the collector looks nowhere else.
MANAGED_PREFIXES = ("raw/", "datasets/", "runs/", "models/", "uploads/")


def raw_key(sha256: Sha256) -> str:
    """Return the key of original bytes, spread over 256 prefixes."""
    return f"raw/{sha256[:2]}/{sha256}"


def shard_key(dataset_id: DatasetId, shard_index: int, attempt: int, sha256: Sha256) -> str:
    """Return the key of one shard as one attempt wrote it."""
    return f"datasets/{dataset_id}/shards/{shard_index:06d}/{attempt}-{sha256[:_SHORT_HASH]}.tar"


def manifest_key(dataset_id: DatasetId, sha256: Sha256) -> str:
    """Return the key of one version of a dataset."""
    return f"datasets/{dataset_id}/manifest-{sha256}.json"


def checkpoint_key(run_id: RunId, step: int, attempt: int, sha256: Sha256) -> str:
    """Return the key of a run's state after `step` optimizer steps."""
    return f"runs/{run_id}/checkpoints/{step:09d}/{attempt}-{sha256[:_SHORT_HASH]}.safetensors"


def model_key(name: str, sha256: Sha256) -> str:
    """Return the key of a servable model."""
    return f"models/{name}/{sha256}.safetensors"


def upload_key(upload_id: str) -> str:
    """Return the key where an upload waits until it is ingested."""
    return f"uploads/{upload_id}"


def shard_of_key(key: str) -> tuple[str, int] | None:
    """Return the dataset and the number of the shard that an object is a copy of; None when it is none."""
    match key.split("/"):
        case ["datasets", dataset_id, "shards", index, _] if index.isdecimal():
            return dataset_id, int(index)
    return None
