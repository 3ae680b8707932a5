"""Projects on each broker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from project import Project


@pytest.fixture
def make_project(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Project]]:
    """`make_project("embedded" | "redis" | "amqp", **settings of Project)`."""
    projects: list[Project] = []
    monkeypatch.chdir(tmp_path)

    def make(kind: str, **options: Any) -> Project:
        broker = backend = None
        if kind != "embedded":
            backend = request.getfixturevalue("redis_url")
            broker = request.getfixturevalue(f"{kind}_url")
        projects.append(Project(tmp_path, broker, backend, **options))
        return projects[-1]

    yield make
    for project in projects:
        project.close()
