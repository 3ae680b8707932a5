"""Stock Celery works on the same Redis queue beside us during every fault: nothing is lost (W6, B1).

Our worker is killed, stopped, cut off; Celery's is not. Redis is killed and started again, which neither side is
spared. Stock kombu itself loses a message when Redis ends between its BRPOP and the note in `unacked` that follows:
`redis_history` proves of each missing message that this has happened, and it is sent again then. Whatever else is
missing is our fault.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from peers import CELERY, peer_python
from project import Project, wait_until
from proxy import Proxy
from redis_history import History
from redis_server import RedisServer

FAULTS = ("restart", "child", "cut", "main", "freeze", "all", "term")
FREEZE_SECONDS = 1.0
VISIBILITY_SECONDS = 5
"""After so long what stock Celery held when its connection was lost is delivered again."""
LOST_SECONDS = 2.0
"""A message that stock kombu popped is noted in `unacked` long before."""
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def celery_python() -> Path:
    return peer_python("celery", CELERY)


def test_every_fault_beside_celery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, celery_python: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    share_a_queue(tmp_path, celery_python, count=600, faults=list(FAULTS))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
def test_many_faults_beside_celery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, celery_python: Path, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    faults = list(FAULTS) * 4
    random.Random(seed).shuffle(faults)
    share_a_queue(tmp_path, celery_python, count=12_000, faults=faults)


def share_a_queue(directory: Path, python: Path, count: int, faults: list[str]) -> None:
    (directory / "redis").mkdir()
    for name in ("lab_celery.py", "lab_client.py"):
        shutil.copy(HERE / name, directory)
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(directory / "redis"))
        proxy = stack.enter_context(Proxy("127.0.0.1", server.port))
        project = Project(directory, server.url, server.url)
        stack.callback(project.close)
        transport = {"visibility_timeout": VISIBILITY_SECONDS, "eta_hold_seconds": 1}
        project.environment["LAB_TRANSPORT"] = json.dumps(transport)
        run = Mixed(project, server, proxy, python)
        stack.callback(proxy.thaw)
        run.share(stack, count, faults)


class Mixed:
    """Both sides on one queue."""

    def __init__(self, project: Project, server: RedisServer, proxy: Proxy, python: Path) -> None:
        self.project = project
        self.server = server
        self.proxy = proxy
        self.python = python
        self.direct = dict(project.environment)
        bad = f"redis://127.0.0.1:{proxy.port}/0"
        self.project.environment |= {"LAB_BROKER": bad, "LAB_BACKEND": bad}
        self.history = History(server.directory, project.queue)
        self.suspects: dict[bytes, float] = {}
        self.resent = 0
        self.rng = random.Random(len(project.queue))
        self.ours = project.start_worker()

    def share(self, stack: ExitStack, count: int, faults: list[str]) -> None:
        options = ["worker", "-c", "2", "-l", "INFO", "--without-mingle", "--without-gossip"]
        celery = [str(self.python), "-m", "celery", "-A", "lab_celery", *options]
        theirs = stack.enter_context(self.running(celery, "celery"))
        wait_until(lambda: "ready." in theirs.read_text(), "the start of Celery's worker")
        self.ours.wait_ready()
        half = str(count // 2)
        our_client = [sys.executable, "lab_client.py", "lab", "0", half]
        their_client = [str(self.python), "lab_client.py", "lab_celery", half, str(count)]
        clients = [
            stack.enter_context(self.running(command, name))
            for command, name in ((our_client, "our-client"), (their_client, "their-client"))
        ]
        for number, fault in enumerate(faults):
            self.wait_for_effects((number + 1) * count // (len(faults) + 4))
            getattr(self, fault)()
        self.wait_for_effects(count)
        for client in clients:
            self.wait_until(
                lambda log=client: any(end in log.read_text() for end in ("all results", "Error")),
                f"the results of {client.stem}",
            )
            assert "all results" in client.read_text(), client.read_text()[-3000:]
        theirs_ran = theirs.read_text().count("succeeded in")
        most = Counter(self.project.effects()).most_common(1)[0]
        print(
            f"\n{Counter(faults)}: theirs ran {theirs_ran} of {count}; {self.project.repeated()} repeated, at most "
            f"{most[1]} times; stock kombu lost {self.resent}, which were sent again"
        )
        for client in clients:
            print(f"{client.stem}: {client.read_text().splitlines()[-2]}")
        assert set(self.project.effects()) == set(range(count))
        assert "errors 0" in clients[0].read_text()
        assert theirs_ran > count // 20

    # -- faults

    def child(self) -> None:
        self.ours.kill_child(self.rng.choice)

    def main(self) -> None:
        self.ours.kill_main()
        self._next()

    def all(self) -> None:
        self.ours.kill_all()
        self._next()

    def term(self) -> None:
        self.ours.wait_ready()
        assert self.ours.stop() == 0, self.ours.log[-3000:]
        self._next()

    def cut(self) -> None:
        self.proxy.cut()

    def freeze(self) -> None:
        self.proxy.freeze()
        time.sleep(FREEZE_SECONDS)  # the length of the freeze is what is tested
        self.proxy.thaw()

    def restart(self) -> None:
        self.server.kill()
        self.server.start()

    def _next(self) -> None:
        self.ours = self.project.start_worker()

    # -- what stock kombu loses

    def wait_for_effects(self, count: int) -> None:
        self.wait_until(lambda: len(set(self.project.effects())) >= count, f"run {count}")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait, and meanwhile send again what stock kombu has lost."""
        looked = time.monotonic()

        def look() -> bool:
            nonlocal looked
            if condition():
                return True
            if time.monotonic() > looked + LOST_SECONDS / 2:
                self._send_again()
                looked = time.monotonic()
            return False

        try:
            wait_until(look, what, 120)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; of ours\n{self.ours.log[-3000:]}") from exc

    def _send_again(self) -> None:
        lost, now = self.history.lost(), time.monotonic()
        self.suspects = {id: self.suspects.get(id, now) for id in lost}
        with redis.Redis(port=self.server.port) as client:
            for id, since in self.suspects.items():
                if now - since > LOST_SECONDS:
                    client.rpush(*lost[id])
                    self.resent += 1
                    print(f"stock kombu lost {id.decode()}")

    @contextmanager
    def running(self, command: list[str], name: str) -> Iterator[Path]:
        """Yields its log."""
        log = self.project.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.project.directory,
                env=self.direct | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield log
        finally:
            # How Celery shuts down is no matter of ours, and may take long.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(10)
