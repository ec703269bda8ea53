"""What a worker that starts removes, while others work on the same disk."""

from pathlib import Path

from sqlalchemy import Engine, event

from audiofoundation.ingestion.leftovers import remove_leftovers


def test_the_directory_of_a_job_that_is_claimed_meanwhile_stays(sqlite_engine: Engine, tmp_path: Path) -> None:
    work_dir = tmp_path / "work"
    (work_dir / "job_killed").mkdir(parents=True)

    def claim_another(*_: object) -> None:
        """Its row was not held when it was asked for."""
        (work_dir / "job_new").mkdir(exist_ok=True)

    event.listen(sqlite_engine, "after_cursor_execute", claim_another)
    assert remove_leftovers(work_dir, sqlite_engine) == 1
    assert [path.name for path in work_dir.iterdir()] == ["job_new"]
