"""Makes the helpers beside the tests importable, as importlib mode does not; keeps tasks to their test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qcore import current

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _own_tasks() -> Iterator[None]:
    """Apps share their tasks by default; those of one test are of no use to the next."""
    before = list(current._on_app_finalizers)
    yield
    current._on_app_finalizers[:] = before
