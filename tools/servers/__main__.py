"""tools/services: run a command with the URLs of test servers in its environment."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from servers import NAMES, PREFIX_VARIABLE, Found, Servers
from servers.session import REQUIRE_VARIABLE


def main(argv: Sequence[str]) -> int:
    """Returns the command's exit code; 3 when `--require` misses a server."""
    options = _parse(argv)
    servers = Servers(install=not options.no_install, own=options.own)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        found = servers.get_all(options.only)
        _report(found)
        missing = [server.title for server in found if server.url is None]
        if missing and options.require:
            print(f"services: missing and required: {', '.join(missing)}", file=sys.stderr)
            return 3
        return _run(options.command, _environment(found, servers.label, options.require))
    finally:
        servers.close()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/services", description=__doc__)
    commands = parser.add_subparsers(dest="action", required=True)
    run = commands.add_parser("run", help="run a command with the servers")
    run.add_argument("--require", action="store_true", help="fail when a server cannot be had")
    run.add_argument("--own", action="store_true", help="start servers of our own, even where one listens")
    run.add_argument("--no-install", action="store_true", help="never call apt")
    run.add_argument("--only", type=_names, default=list(NAMES), metavar="NAME,…", help=", ".join(NAMES))
    run.add_argument("command", nargs="+", help="after --")
    return parser.parse_args(argv)


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in NAMES:
            raise argparse.ArgumentTypeError(f"unknown server {name!r}; there are {', '.join(NAMES)}")
    return names


def _report(found: Sequence[Found]) -> None:
    for server in found:
        state = server.url or "MISSING"
        print(f"services: {server.title:<11} {state}  ({server.how})", file=sys.stderr)


def _environment(found: Sequence[Found], label: str, require: bool) -> dict[str, str]:
    urls = {server.variable: server.url for server in found if server.url is not None}
    missing = {f"{server.variable}_MISSING": server.how for server in found if server.url is None}
    flags = {REQUIRE_VARIABLE: "1"} if require else {}
    return {**os.environ, **urls, **missing, **flags, PREFIX_VARIABLE: label}


def _run(command: Sequence[str], env: dict[str, str]) -> int:
    """The command gets the terminal's Ctrl-C itself; a TERM to us is passed on to it."""
    try:
        child = subprocess.Popen(command, env=env)
    except OSError as error:
        print(f"services: {command[0]}: {error}", file=sys.stderr)
        return 127
    try:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
