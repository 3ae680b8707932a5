"""What the global options say, and the app that they lead to."""

from __future__ import annotations

import os
import sys
from typing import Any

from attrs import define, field

from qcli.errors import UsageProblem
from qcli.output import Output


@define
class CliContext:
    """The global options of one run of the command; shared by all sub-commands as `click`'s `obj`."""

    app_name: str | None = None
    broker: str | None = None
    result_backend: str | None = None
    config: str | None = None
    workdir: str | None = None
    no_color: bool | None = None
    quiet: bool = False
    preload: dict[str, Any] = field(factory=dict)
    _app: Any = None
    _entered: bool = False

    @property
    def output(self) -> Output:
        """Where results and news are printed."""
        return Output(color=not self.no_color if self.no_color is not None else None, quiet=self.quiet)

    def override(self, **options: Any) -> None:
        """Global options given after the sub-command win over those before it."""
        for name, value in options.items():
            if value not in (None, False):
                setattr(self, name, value)

    @property
    def app(self) -> Any:
        """The app that `-A` names, else an app of the environment's settings.

        Raises:
            UsageProblem: it cannot be found; the text says what was looked for.
        """
        if self._app is None:
            self._app = self._find()
        return self._app

    @property
    def has_app(self) -> bool:
        """Whether an app was named."""
        return bool(self.app_name)

    def use(self, app: Any) -> None:
        """Serve this app, whatever `-A` says."""
        self._app = app

    def _find(self) -> Any:
        self._enter()
        if self.config:
            os.environ["Q_CONFIG_MODULE"] = self.config
        if self.broker:
            os.environ["Q_BROKER_URL"] = self.broker
        if self.result_backend:
            os.environ["Q_RESULT_BACKEND"] = self.result_backend
        if self.app_name:
            from qcore.loading import find_app

            app = find_app(self.app_name)
        else:
            from qcore import App

            app = App("qcli")
        app.set_current()
        app.set_default()
        return app

    def need_app(self, why: str) -> Any:
        """The app, for a command that is of no use without one.

        Raises:
            UsageProblem: no `-A` was given.
        """
        if not self.app_name:
            raise UsageProblem(
                f"{why} needs to know your app: qcli -A MODULE … (the module that holds the App, such as "
                "`proj` or `proj.q:app`), or set the environment variable Q_APP"
            )
        return self.app

    def _enter(self) -> None:
        """Work in `--workdir`, with that directory importable."""
        if self._entered:
            return
        self._entered = True
        if self.workdir:
            try:
                os.chdir(self.workdir)
            except OSError as exc:
                raise UsageProblem(f"--workdir: {exc.strerror}: {self.workdir}") from exc
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
