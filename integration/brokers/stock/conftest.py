"""A server for SQS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers.moto import Moto


@pytest.fixture(scope="session")
def sqs_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own that speaks SQS; give queues unique names."""
    server = Moto()
    url = server.start(tmp_path_factory.mktemp("moto"))
    try:
        yield url
    finally:
        server.stop()
