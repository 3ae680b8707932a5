"""Keeps the tasks of a test to itself: apps share their tasks by default, with the apps of later tests as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _own_tasks() -> Iterator[None]:
    from qcore import current

    before = list(current._on_app_finalizers)
    yield
    current._on_app_finalizers[:] = before
