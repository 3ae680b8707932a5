"""Servers for the integration tests.

`tools/services run -- pytest integration` hands their URLs over in the environment. Without it each server
is looked for when the first test asks: one that listens on its standard loopback port (in a corner of its own
there), else an installed binary.

A missing server never goes unsaid: its tests are reported as "server missing", counted at the end of the run,
and fail with `--require-servers`, which is also what `Q_TEST_REQUIRE=1` means.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from servers import PREFIX_VARIABLE, Servers
from servers.missing import end_without
from servers.session import REQUIRE_VARIABLE

SERVERS = pytest.StashKey[Servers]()
MISSING = re.compile(r"server missing: (\w+)")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-servers", action="store_true", help="fail a test whose server is missing")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SERVERS] = Servers()
    if config.getoption("--require-servers"):
        os.environ[REQUIRE_VARIABLE] = "1"


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[SERVERS].close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the missing servers, each with the number of tests that went without."""
    reports = [report for kind in ("skipped", "error") for report in terminalreporter.stats.get(kind, [])]
    missing = Counter(name for report in reports for name in MISSING.findall(str(report.longrepr))[:1])
    for server, count in sorted(missing.items()):
        terminalreporter.write_line(f"SERVER MISSING: {server}, tests not run: {count}", red=True, bold=True)


def server_url(request: pytest.FixtureRequest, name: str) -> str:
    """The URL of the server called `name` (`redis`, `amqp`, …); the test ends here when there is none."""
    found = request.config.stash[SERVERS].get(name)
    if found.url is None:
        end_without(found.title, os.environ.get(f"{found.variable}_MISSING") or found.how)
    return found.url


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """A Redis database number that this run has to itself."""
    return server_url(request, "redis")


@pytest.fixture(scope="session")
def amqp_url(request: pytest.FixtureRequest) -> str:
    """A RabbitMQ virtual host; its own where we may make one, so give queues unique names all the same."""
    return server_url(request, "amqp")


@pytest.fixture(scope="session")
def postgresql_url(request: pytest.FixtureRequest) -> str:
    """An empty PostgreSQL database, as SQLAlchemy takes it."""
    return server_url(request, "postgresql")


@pytest.fixture(scope="session")
def mariadb_url(request: pytest.FixtureRequest) -> str:
    """An empty MariaDB database, as SQLAlchemy takes it."""
    return server_url(request, "mariadb")


@pytest.fixture(scope="session")
def memcached_url(request: pytest.FixtureRequest) -> str:
    """A memcached server; prefix every key with `test_prefix`."""
    return server_url(request, "memcached")


@pytest.fixture(scope="session")
def faketime_library(request: pytest.FixtureRequest) -> str:
    """Path of the library that sets the clock of a process which is started with it."""
    return server_url(request, "faketime")


@pytest.fixture(scope="session")
def test_prefix(request: pytest.FixtureRequest) -> str:
    """A name that no other run uses: for keys, queues, nodes."""
    return os.environ.get(PREFIX_VARIABLE) or request.config.stash[SERVERS].label
