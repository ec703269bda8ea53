"""`python -m services.migrate`: what the containers run before any service starts."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from audiofoundation.settings import CatalogSettings, StorageSettings
from audiofoundation.storage.object_store import ObjectStore

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60


def start(catalog_url: str, storage: StorageSettings) -> subprocess.Popen[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "AF_CATALOG__URL": catalog_url,
        "AF_STORAGE__ENDPOINT": storage.endpoint,
        "AF_STORAGE__ACCESS_KEY": storage.access_key.get_secret_value(),
        "AF_STORAGE__SECRET_KEY": storage.secret_key.get_secret_value(),
        "AF_STORAGE__BUCKET": storage.bucket,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "services.migrate"], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def storage(s3_settings: StorageSettings) -> StorageSettings:
    return s3_settings.model_copy(update={"bucket": f"test-{secrets.token_hex(6)}"})


def test_makes_tables_and_bucket_from_nothing_also_twice_at_once(tmp_path: Path, storage: StorageSettings) -> None:
    url = f"sqlite:///{tmp_path}/catalog.db"

    both = [start(url, storage) for _ in range(2)]

    for process in both:
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, errors
    engine = create_engine(url)
    assert {"jobs", "assets", "runs"} <= set(inspect(engine).get_table_names())
    engine.dispose()
    ObjectStore(storage).put_bytes("a", b"1", content_type="text/plain")


@pytest.mark.slow
def test_leaves_a_migrated_postgresql_as_it_is(postgres_catalog: CatalogSettings, storage: StorageSettings) -> None:
    process = start(postgres_catalog.url.get_secret_value(), storage)

    _, errors = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 0, errors


def test_says_in_one_sentence_what_is_wrong(tmp_path: Path, storage: StorageSettings) -> None:
    process = start(f"mysql://{tmp_path}", storage)

    _, errors = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 1
    assert errors.startswith("error: AF_CATALOG__URL")
    assert errors.count("\n") == 1
