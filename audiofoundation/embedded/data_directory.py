"""The data directory: where one machine's platform keeps everything it must find again."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """Paths inside a data directory; the directory itself is readable by its owner only."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "up.lock"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets.json"

    @property
    def ready(self) -> Path:
        return self.root / "ready.json"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog.db"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def queue(self) -> Path:
        return self.root / "queue"

    @property
    def rclone_objects(self) -> Path:
        return self.root / "objects"

    @property
    def minio_objects(self) -> Path:
        return self.root / "minio"

    @property
    def catalog_url(self) -> str:
        return f"sqlite:///{self.catalog}"

    @classmethod
    def open(cls, root: Path) -> "DataDirectory":
        """Create what is missing, mode 0700.

        Raises:
            OSError: the path cannot be created or written.
        """
        directory = cls(root.expanduser().absolute())
        for path in (directory.root, directory.logs, directory.queue):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory
