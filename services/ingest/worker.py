"""The process that fetches and verifies: `python -m services.ingest.worker`."""

from audiofoundation.settings import Settings
from services.ingest.tasks import work


def main() -> None:
    """Work until SIGTERM."""
    work(Settings())


if __name__ == "__main__":
    main()
