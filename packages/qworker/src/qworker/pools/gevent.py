"""The gevent pool, see `green`; needs the extra `qworker[gevent]`."""

from __future__ import annotations

from collections.abc import Callable

from .errors import PoolUnavailable
from .green import GreenPool
from .inprocess import Running

try:
    import gevent  # type: ignore[import-untyped, unused-ignore]
    from greenlet import getcurrent  # type: ignore[import-untyped, unused-ignore]
except ImportError as error:
    raise PoolUnavailable("gevent", "gevent") from error


class Pool(GreenPool):
    """Work in gevent's greenlets."""

    name = "gevent"

    def _spawn(self, function: Callable[[Running], None], job: Running) -> object:
        return gevent.spawn(function, job)

    def _call_in_hub(self, callback: Callable[[], None]) -> object:
        return gevent.get_hub().loop.run_callback(callback)

    def _current_greenlet(self) -> object:
        return getcurrent()
