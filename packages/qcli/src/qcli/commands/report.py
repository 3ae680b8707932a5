"""`qcli report`: versions and settings, for bug reports."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from qcli.context import CliContext
from qcli.options import global_options

_PACKAGES = (
    "qcore", "qbrokers", "qbackends", "qevents", "qbeat", "qworker", "qcli",
    "kombu", "billiard", "vine", "click", "attrs", "redis", "amqp", "SQLAlchemy",
)  # fmt: skip


@click.command()
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
@global_options
def report(cli: CliContext, as_json: bool) -> None:
    """Show versions, platform and settings; secrets are masked."""
    app = cli.app
    facts: dict[str, Any] = {
        "software": {name: found for name in _PACKAGES if (found := _version(name))},
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "broker": app.connection_for_write().as_uri(),
        "results": str(getattr(app.backend, "url", "")) or "disabled",
    }
    if as_json:
        cli.output.json({**facts, "settings": app.conf.table(with_defaults=False, censored=True)})
        return
    output = cli.output
    output.print("software -> " + " ".join(f"{name}:{found}" for name, found in facts["software"].items()))
    output.print(f"platform -> {facts['platform']}   python -> {facts['python']}")
    output.print(f"broker -> {facts['broker']}   results -> {facts['results']}")
    output.print("\n" + app.conf.humanize(with_defaults=False, censored=True))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
