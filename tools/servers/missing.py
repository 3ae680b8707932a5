"""What a test says when its server is not there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from servers.session import REQUIRE_VARIABLE


def end_without(server: str, why: str) -> NoReturn:
    """End the test: as failed where all servers are required, else as skipped; the run counts both at its end."""
    text = f"server missing: {server} ({why})"
    if os.environ.get(REQUIRE_VARIABLE):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
