"""The models that training registered: rows of the catalog, files in the object store, copies in a cache."""

from pathlib import Path

from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Model
from audiofoundation.features.mel import PRESETS
from audiofoundation.identifiers import Sha256
from audiofoundation.inference.model_store import ServableModel
from audiofoundation.storage.object_store import ObjectStore

_PROMOTED = "promoted"
_SERVABLE = ("candidate", _PROMOTED)
_PRESET_OF = {config.fingerprint: config.name for config in PRESETS.values()}


class CatalogRegistry:
    """Reads the `models` table and keeps verified copies of files under `cache_dir`."""

    def __init__(self, catalog: Engine, objects: ObjectStore, cache_dir: Path) -> None:
        self._catalog, self._objects, self._cache_dir = catalog, objects, cache_dir

    def list_models(self) -> list[ServableModel]:
        """Return the servable models of presets that exist today, the newest first.

        Raises:
            StorageUnavailable: the catalog did not answer.
        """
        rows = select(Model).where(Model.state.in_(_SERVABLE)).order_by(Model.created_at.desc())
        with read_session(self._catalog) as session:
            return [_to_servable(row) for row in session.scalars(rows) if row.mel_fingerprint in _PRESET_OF]

    def fetch(self, model: ServableModel) -> Path:
        """Return the model's file, downloaded once; a copy in the cache is verified again when it is loaded.

        Raises:
            StorageUnavailable: the object store did not answer.
            ObjectNotFound: the file is gone.
            ObjectCorrupt: it is not the one that was registered.
        """
        path = self._cache_dir / "models" / f"{model.sha256}.safetensors"
        if not path.exists():
            self._objects.get_to_file(model.key, path, sha256=model.sha256)
        return path


def _to_servable(row: Model) -> ServableModel:
    return ServableModel(
        name=row.name,
        task=row.task,
        mel_preset=_PRESET_OF[row.mel_fingerprint],
        sha256=Sha256(row.sha256),
        created=int(row.created_at),
        is_promoted=row.state == _PROMOTED,
        key=row.key,
    )
