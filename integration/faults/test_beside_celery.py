"""Stock Celery works on the same Redis queue beside us, and we are killed: nothing is lost (W6, B1)."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from peers import CELERY, peer_python
from project import Project, wait_until


@pytest.fixture(scope="module")
def celery_python() -> Path:
    return peer_python("celery", CELERY)


def test_our_worker_is_killed_beside_theirs(
    make_project: Callable[..., Project], celery_python: Path
) -> None:
    share_a_queue(make_project("redis"), celery_python, count=600, kills=2)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_our_worker_is_killed_often_beside_theirs(
    make_project: Callable[..., Project], celery_python: Path
) -> None:
    share_a_queue(make_project("redis"), celery_python, count=10_000, kills=20)


def share_a_queue(project: Project, python: Path, count: int, kills: int) -> None:
    shutil.copy(Path(__file__).with_name("lab_celery.py"), project.directory)
    ours = project.start_worker()
    options = ["worker", "-c", "2", "-l", "INFO", "--without-mingle", "--without-gossip"]
    with running(project, [str(python), "-m", "celery", "-A", "lab_celery", *options], "celery") as theirs:
        wait_until(lambda: "ready." in theirs.read_text(), "the start of Celery's worker")
        ours.wait_ready()
        half = str(count // 2)
        with running(project, [str(python), "lab_celery.py", half, str(count)], "client") as client:
            late = project.task("late")
            results = [late.delay(number, seconds=0.01) for number in range(count // 2)]
            for kill in range(kills):
                project.wait_for_effects((kill + 1) * count // (kills + 2))
                ours.kill_all()
                ours = project.start_worker().wait_ready()

            project.wait_for_effects(count, timeout=240)
            assert set(project.effects()) == set(range(count))
            assert [result.get(timeout=30) for result in results] == list(range(count // 2))
            wait_until(lambda: "all results" in client.read_text(), f"Celery's results\n{client.read_text()}")
        theirs_ran = theirs.read_text().count("succeeded in")
    twice = Counter(project.effects()).most_common(1)[0]
    print(f"theirs ran {theirs_ran} of {count}; {project.repeated()} repeated, at most {twice}")
    assert theirs_ran > count // 20
    assert project.repeated() <= kills * 10


@contextmanager
def running(project: Project, command: list[str], name: str) -> Iterator[Path]:
    """Yields its log."""
    log = project.directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=project.directory,
            env=project.environment | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield log
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
