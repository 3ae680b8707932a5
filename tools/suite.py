"""tools/test: all checks and tests, side by side where they do not disturb each other, and one summary.

Without arguments: the checks (lint, layers, dependencies, types), the unit tests, the integration tests.
Arguments that are not ours go to pytest, and then only the tests run: `tools/test packages/qcore -k chord`.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import bootstrap

LOGS = bootstrap.HATCH_HOME / "logs"
STEP_SECONDS = 1500.0
CHECKS = ("lint", "layers", "dependencies", "types")
LANES = ("faults", "brokers")
"""Folders of integration tests that take about a third of the time each."""
PYTHONS = ("3.11", "3.12", "3.13")
NOTHING_COLLECTED = 5
"""Exit code of pytest."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the suite."""

    name: str
    argv: tuple[str, ...]
    """Arguments of hatch."""
    env: tuple[tuple[str, str], ...] = ()
    aloud: bool = False
    """Output goes to the terminal as it comes, not only when the step fails."""
    may_be_empty: bool = False
    """No test found is no failure."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a step went."""

    step: Step
    ok: bool
    seconds: float
    closing: str
    """The last line of pytest, or the first sign of the fault."""


def main(argv: Sequence[str]) -> int:
    options, rest = _parse(argv)
    bootstrap.ensure_hatch()
    LOGS.mkdir(parents=True, exist_ok=True)
    stages = plan(options, rest)
    steps = [step for lanes in stages for lane in lanes for step in lane]
    scripts = [step.argv[1] for step in steps if step.argv[0] == "run"]
    for environment in sorted({script.partition(":")[0] for script in scripts}):
        bootstrap.ensure_environment(environment)
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    runner = Runner()
    done = [one for lanes in stages for one in runner.side_by_side(lanes)]
    return report(done, time.monotonic() - started)


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="tools/test",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--fast", action="store_true", help="without the integration tests")
    parser.add_argument("--require", action="store_true", help="fail when a server is missing")
    parser.add_argument(
        "--full", action="store_true", help="also documentation, wheels and every Python there is"
    )
    return parser.parse_known_args(argv)


def plan(options: argparse.Namespace, rest: Sequence[str]) -> list[list[list[Step]]]:
    """Stages, one after the other; each has lanes that run side by side; each lane has steps that follow."""
    paths = [word for word in rest if Path(word.split("::")[0]).exists()]
    given = [word for word in rest if word not in paths]
    checks = [] if rest else [Step(name, ("run", f"check:{name}")) for name in CHECKS]
    if options.full:
        checks += [Step("docs", ("run", "docs:build")), Step("wheels", ("run", "build:wheels"))]
    unit = _tests("unit", "packages", paths, given)
    others = _other_pythons() if options.full and not rest else []
    return [[checks, unit], *_integration(options, paths, given), [others]]


def _integration(
    options: argparse.Namespace, paths: Sequence[str], given: Sequence[str]
) -> list[list[list[Step]]]:
    """One stage with three lanes, since these tests wait a lot; one pytest when some were chosen."""
    if options.fast:
        return []
    script = "integration-required" if options.require else "integration"
    if paths or given:
        return [[_tests(script, "integration", paths, given)]]
    ignored = [word for name in LANES for word in ("--ignore", f"integration/{name}")]
    lanes = {name: [f"integration/{name}"] for name in LANES} | {"others": ["integration", *ignored]}
    return [
        [
            [Step(f"integration {name}", ("run", f"test:{script}", *words), aloud=True)]
            for name, words in lanes.items()
        ]
    ]


def _tests(script: str, folder: str, paths: Sequence[str], given: Sequence[str]) -> list[Step]:
    mine = [str(Path.cwd() / path) for path in paths if _within(path, folder)]
    if paths and not mine:
        return []
    words = [*given, *(mine or [folder])]  # hatch runs it in the root, wherever we are
    return [Step(script, ("run", f"test:{script}", *words), aloud=True, may_be_empty=bool(given))]


def _within(path: str, folder: str) -> bool:
    return Path(path.split("::")[0]).resolve().is_relative_to(bootstrap.ROOT / folder)


def _other_pythons() -> list[Step]:
    """The unit tests on every other supported Python that is installed; says which are not."""
    steps = []
    for version in PYTHONS:
        if version == f"{sys.version_info.major}.{sys.version_info.minor}":
            continue
        python = _find_python(version)
        if python is None:
            print(f"Python {version} is not installed: not tested on it", file=sys.stderr)
            continue
        path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
        steps.append(Step(f"unit {version}", ("test", "-py", version), (("PATH", path),)))
    return steps


def _find_python(version: str) -> Path | None:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [
        *map(Path, os.environ.get("PATH", "").split(os.pathsep)),
        *sorted(pyenv.glob(f"{version}.*/bin")),
    ]
    for python in (place / f"python{version}" for place in places):
        if python.exists() and bootstrap.works(python, "import ssl, sqlite3, ctypes"):
            return python
    return None


class Runner:
    """Runs steps; when it is left early (Ctrl-C, TERM) it ends those that run and starts no more."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def side_by_side(self, lanes: Iterable[Sequence[Step]]) -> list[Done]:
        """Run the lanes at the same time; the steps of a lane follow each other."""
        with ThreadPoolExecutor() as threads:
            try:
                return [done for lane in list(threads.map(self.lane, lanes)) for done in lane]
            except BaseException:
                self._stop()
                raise

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                _end(process)

    def lane(self, steps: Iterable[Step]) -> list[Done]:
        return [self.step(step) for step in steps if not self._stopped]

    def step(self, step: Step) -> Done:
        started = time.monotonic()
        log = LOGS / f"{step.name.replace(' ', '-')}.log"
        process = subprocess.Popen(
            [str(bootstrap.hatch()), *step.argv],
            cwd=bootstrap.ROOT,
            env=bootstrap.environment() | dict(step.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with self._lock:
            self._running.add(process)
        timer = threading.Timer(STEP_SECONDS, _end, [process])
        timer.start()
        lines = _copy(process, log, step.aloud)
        code = process.wait()
        timer.cancel()
        with self._lock:
            self._running.discard(process)
        ok = code == 0 or (code == NOTHING_COLLECTED and step.may_be_empty)
        if not ok and not step.aloud:
            sys.stdout.write(f"--- {step.name} ---\n{''.join(lines)}")
        return Done(step, ok, time.monotonic() - started, _closing(lines, code))


def _copy(process: subprocess.Popen[bytes], log: Path, aloud: bool) -> list[str]:
    """Everything the process writes: to the log, to us, and to the terminal if asked."""
    lines = []
    assert process.stdout is not None
    with log.open("w") as file:
        for raw in process.stdout:
            line = raw.decode(errors="replace")
            lines.append(line)
            file.write(line)
            if aloud:
                sys.stdout.write(line)
                sys.stdout.flush()
    return lines


def _closing(lines: Sequence[str], code: int) -> str:
    """pytest's own count, if there is one."""
    for line in reversed(lines):
        if re.search(r"\d+ (passed|failed|errors?|skipped|deselected).* in [\d.]+", line):
            return line.strip("= \n")
    return "" if code == 0 else f"exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a step's process group: INT lets pytest take down the servers and workers of its fixtures."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(30)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def report(done: Sequence[Done], seconds: float) -> int:
    """Print the summary; 0 when all is well."""
    print("\n" + "=" * 78)
    for one in done:
        mark = "ok    " if one.ok else "FAILED"
        print(f"{mark} {one.step.name:<20} {one.seconds:7.1f} s  {one.closing}")
    for one in done:
        for line in (LOGS / f"{one.step.name.replace(' ', '-')}.log").read_text().splitlines():
            if line.startswith("SERVER MISSING"):
                print(line)
    failed = [one.step.name for one in done if not one.ok]
    print(f"{'FAILED: ' + ', '.join(failed) if failed else 'all well'}, {seconds:.0f} s; logs in {LOGS}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
