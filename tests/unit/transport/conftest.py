from collections.abc import Iterator

import pytest

from tests.unit.transport.serving import create_sample_app, served


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    with served(create_sample_app()) as url:
        yield url
