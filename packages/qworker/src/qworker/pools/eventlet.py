"""The eventlet pool, see `green`; needs the extra `qworker[eventlet]`."""

from __future__ import annotations

from collections.abc import Callable

from .errors import PoolUnavailable
from .green import GreenPool
from .inprocess import Running

try:
    import eventlet  # type: ignore[import-untyped, unused-ignore]
    from eventlet.hubs import get_hub  # type: ignore[import-untyped, unused-ignore]
    from greenlet import getcurrent  # type: ignore[import-untyped, unused-ignore]
except ImportError as error:
    raise PoolUnavailable("eventlet", "eventlet") from error


class Pool(GreenPool):
    """Work in eventlet's green threads."""

    name = "eventlet"

    def _spawn(self, function: Callable[[Running], None], job: Running) -> object:
        return eventlet.spawn(function, job)

    def _call_in_hub(self, callback: Callable[[], None]) -> object:
        return get_hub().schedule_call_global(0, callback)

    def _current_greenlet(self) -> object:
        return getcurrent()
