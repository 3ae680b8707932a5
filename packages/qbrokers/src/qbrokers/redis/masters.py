"""Asking Sentinels who the master is: the one that heard of the latest failover knows."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

from redis import exceptions, sentinel

ASK_TIMEOUT_SECONDS = 1.0
SILENT_SECONDS = 10.0
"""How long a Sentinel that did not answer is left out, while another one does."""


class Sentinels(sentinel.Sentinel):
    """redis-py's Sentinels, all of which are asked. After a failover, some of them name the old master for a moment.

    Args:
        addresses: Host and port of each.
        sentinel_kwargs: Options of the connections to them.
        options: As redis-py's.
    """

    def __init__(
        self, addresses: list[tuple[str, int]], sentinel_kwargs: Mapping[str, Any], **options: Any
    ) -> None:
        bounds = {"socket_timeout": ASK_TIMEOUT_SECONDS, "socket_connect_timeout": ASK_TIMEOUT_SECONDS}
        super().__init__(addresses, sentinel_kwargs={**bounds, **sentinel_kwargs}, **options)
        self._silent: dict[int, float] = {}

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the master.

        Raises:
            redis.sentinel.MasterNotFoundError: No Sentinel knows one that is up.
        """
        now = monotonic()
        late = {number for number, until in tuple(self._silent.items()) if until > now}
        state = self._newest(service_name, [n for n in range(len(self.sentinels)) if n not in late])
        if state is None:
            state = self._newest(service_name, sorted(late))
        if state is None or not self.check_master_state(state, service_name):
            raise sentinel.MasterNotFoundError(f"no Sentinel names a master for {service_name!r} that is up")
        return str(state["ip"]), int(state["port"])

    def _newest(self, service_name: str, numbers: list[int]) -> Any:
        found = []
        for number in numbers:
            try:
                state = self.sentinels[number].sentinel_masters().get(service_name)  # type: ignore[no-untyped-call]
            except (exceptions.ConnectionError, exceptions.TimeoutError):
                self._silent[number] = monotonic() + SILENT_SECONDS
                continue
            self._silent.pop(number, None)
            if state:
                found.append(state)
        return max(found, key=lambda state: int(state.get("config-epoch", 0)), default=None)
