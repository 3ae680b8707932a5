"""One received task message on its way through the worker.

The body stays encoded: it is decoded in the pool child. What a request needs to be admitted, queued,
acknowledged and reported is in the headers.

Life of a request: made by the strategy of its task type (`reserved`), perhaps held for its eta or a rate limit
(`scheduled`), handed to the pool, accepted by a child (`active`), and ended by exactly one of `on_success`,
`on_failure`, `on_retry`, `on_ignored`, `on_rejected`, `on_timeout` (hard), `on_lost`, `revoked` or `release`.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from qcore.edge import kombu
from qcore.execution.records import Job, Outcome
from qcore.times import make_aware, maybe_iso8601
from qworker import outcomes
from qworker.outcomes import Failure
from qworker.pools.contract import Pool, Work
from qworker.state import ACTIVE, RESERVED

if TYPE_CHECKING:
    from qworker.strategy import TaskStrategy

logger = logging.getLogger(__name__)


class Request:
    """See the module's text; subclass it and name the class in `Task.Request` to get at the hooks.

    Attributes:
        id: Task id.
        name: Task name.
        headers: Protocol 2 headers.
        message: The kombu message.
        tag: Number of this delivery in this worker.
        phase: `reserved`, `scheduled` or `active`.
        eta, expires: Epoch seconds, or None.
        time_start: Epoch seconds at which a child took it, None before.
        worker_pid: Process id of that child.
        acknowledged: True once the message was acknowledged or rejected.
        time_limits: `(hard, soft)` in seconds, each may be None.
        terminating: Signal with which a revoke ends the run, else None.
    """

    __slots__ = (
        "_body",
        "acknowledged",
        "eta",
        "expires",
        "generation",
        "headers",
        "id",
        "message",
        "name",
        "phase",
        "received",
        "strategy",
        "tag",
        "terminating",
        "time_limits",
        "time_start",
        "worker_pid",
    )

    def __init__(
        self,
        message: Any,
        strategy: TaskStrategy,
        headers: dict[str, Any],
        body: bytes | None = None,
        received: float | None = None,
    ) -> None:
        self.message = message
        self.strategy = strategy
        self.headers = headers
        self._body = body
        self.id: str = headers["id"]
        self.name = strategy.name
        self.received = time.time() if received is None else received
        self.tag: int = strategy.consumer.state.next_tag()
        self.generation: int = strategy.consumer.generation
        self.phase = RESERVED
        self.acknowledged = False
        self.time_start: float | None = None
        self.worker_pid: int | None = None
        self.terminating: int | None = None
        self.eta: float | None = None
        self.expires: float | None = None
        limit = headers.get("timelimit")
        self.time_limits: tuple[float | None, float | None] = (
            strategy.limits
            if not limit or limit == [None, None]
            else (limit[0] or strategy.limits[0], limit[1] or strategy.limits[1])
        )

    # -- what it is

    def __str__(self) -> str:
        eta = f" ETA:[{self.eta_datetime}]" if self.eta is not None else ""
        expires = f" expires:[{_datetime(self.expires)}]" if self.expires is not None else ""
        return f"{self.humaninfo()}{eta}{expires}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.humaninfo()} {self.argsrepr} {self.kwargsrepr}>"

    def humaninfo(self) -> str:
        """`name[id]`."""
        return f"{self.name}[{self.id}]"

    @property
    def type(self) -> str:
        """The name in the message."""
        return cast(str, self.headers["task"])

    @property
    def task(self) -> Any:
        """The registered task."""
        return self.strategy.task

    @property
    def app(self) -> Any:
        """The app."""
        return self.strategy.app

    @property
    def hostname(self) -> str:
        """Node name of the worker."""
        return self.strategy.consumer.hostname

    @property
    def root_id(self) -> str | None:
        """Id of the first task of the flow."""
        return self.headers.get("root_id")

    @property
    def parent_id(self) -> str | None:
        """Id of the task that sent this one."""
        return self.headers.get("parent_id")

    @property
    def group(self) -> str | None:
        """Group id."""
        return self.headers.get("group")

    @property
    def group_index(self) -> int | None:
        """Position in the group."""
        return self.headers.get("group_index")

    @property
    def argsrepr(self) -> str:
        """Text form of the positional arguments."""
        return self.headers.get("argsrepr") or ""

    @property
    def kwargsrepr(self) -> str:
        """Text form of the keyword arguments."""
        return self.headers.get("kwargsrepr") or ""

    @property
    def retries(self) -> int:
        """How often the task was retried before."""
        return self.headers.get("retries") or 0

    @property
    def stamps(self) -> dict[str, Any]:
        """Stamp name -> value."""
        stamps = self.headers.get("stamps") or {}
        names = self.headers.get("stamped_headers") or ()
        return {name: stamps.get(name, self.headers.get(name)) for name in names}

    @property
    def stamped_headers(self) -> list[str]:
        """Names of the stamps."""
        return list(self.headers.get("stamped_headers") or ())

    @property
    def correlation_id(self) -> str | None:
        """Property of the message."""
        return self.message.properties.get("correlation_id")  # type: ignore[no-any-return]

    @property
    def reply_to(self) -> str | None:
        """Property of the message."""
        return self.message.properties.get("reply_to")  # type: ignore[no-any-return]

    @property
    def content_type(self) -> str:
        """How the body is serialized."""
        return cast(str, self.message.content_type)

    @property
    def content_encoding(self) -> str:
        """How the body is encoded."""
        return self.message.content_encoding or "utf-8"

    @property
    def body(self) -> bytes:
        """The encoded body, always bytes."""
        if self._body is None:
            body = self.message.body
            if isinstance(body, str):
                self._body = body.encode(
                    "utf-8" if self.content_encoding == "binary" else self.content_encoding
                )
            else:
                self._body = bytes(body) if body is not None else b""
        return self._body

    @property
    def delivery_info(self) -> dict[str, Any]:
        """`exchange`, `routing_key`, `priority`, `redelivered`."""
        message = self.message
        info = message.delivery_info
        return {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key"),
            "priority": message.properties.get("priority"),
            "redelivered": bool(info.get("redelivered") or message.headers.get("redelivered")),
        }

    @property
    def eta_datetime(self) -> datetime | None:
        """The eta in UTC."""
        return None if self.eta is None else _datetime(self.eta)

    @property
    def payload(self) -> Any:
        """The decoded body `[args, kwargs, embed]`; decodes anew, for inspection only."""
        accept = self.strategy.consumer.accept
        return kombu("kombu.serialization").loads(
            self.body, self.content_type, self.content_encoding, accept=accept
        )

    @property
    def args(self) -> Any:
        """The positional arguments, decoded."""
        return self.payload[0]

    @property
    def kwargs(self) -> Any:
        """The keyword arguments, decoded."""
        return self.payload[1]

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What `inspect active` and its like show; with `safe` the arguments are text."""
        args: Any = self.argsrepr
        kwargs: Any = self.kwargsrepr
        if not safe:
            try:
                args, kwargs = self.payload[:2]
            except Exception:
                logger.debug("Cannot decode the arguments of %s", self.humaninfo(), exc_info=True)
        return {
            "id": self.id,
            "name": self.name,
            "args": args,
            "kwargs": kwargs,
            "type": self.type,
            "hostname": self.hostname,
            "time_start": self.time_start,
            "acknowledged": self.acknowledged,
            "delivery_info": self.delivery_info,
            "worker_pid": self.worker_pid,
        }

    # -- running it

    def job(self) -> Job:
        """What travels to the pool child."""
        message = self.message
        properties = message.properties
        info = message.delivery_info
        headers = self.headers
        body = self._body
        if body is None:
            body = message.body
            if body.__class__ is not bytes:
                body = self.body
        if "compression" in headers:  # the transport has decompressed the body already
            headers = {name: value for name, value in headers.items() if name != "compression"}
        get = properties.get
        return Job(
            self.id,
            self.name,
            headers,
            body,
            message.content_type,
            message.content_encoding or "utf-8",
            {
                "correlation_id": get("correlation_id"),
                "reply_to": get("reply_to"),
                "priority": get("priority"),
                "delivery_mode": get("delivery_mode"),
            },
            {
                "exchange": info.get("exchange"),
                "routing_key": info.get("routing_key"),
                "redelivered": bool(info.get("redelivered") or headers.get("redelivered")),
                "priority": get("priority"),
            },
            self.strategy.consumer.hostname,
            self.received,
        )

    def execute_using_pool(self, pool: Pool) -> None:
        """Queue it in the pool."""
        limits = self.time_limits
        pool.submit(Work(self.tag, self.name, self.job(), limits[1], limits[0]))

    def maybe_expire(self, now: float | None = None) -> bool:
        """True when it has expired; it is then flagged as revoked."""
        if self.expires is None or (time.time() if now is None else now) <= self.expires:
            return False
        self.strategy.consumer.state.revoked.add(self.id)
        return True

    def revoked(self) -> bool:
        """True, and the request is done, when it must not run: expired, or revoked by id or stamp."""
        expired = self.maybe_expire()
        if not expired and not self.is_revoked():
            return False
        logger.info("Discarding %s task: %s", "expired" if expired else "revoked", self.humaninfo())
        outcomes.end_as_revoked(self, "expired" if expired else "revoked", expired=expired)
        return True

    def is_revoked(self) -> bool:
        """True when its id or one of its stamps was revoked."""
        state = self.strategy.consumer.state
        if state.revoked and self.id in state.revoked:
            return True
        return bool(state.revoked_stamps) and outcomes.matches_stamps(self, state.revoked_stamps)

    def terminate(self, pool: Pool, signal: int) -> None:
        """Revoke it and end its run with `signal`, at once when it runs."""
        self.terminating = signal
        self.strategy.consumer.state.revoked.add(self.id)
        pool.terminate_job(self.tag, signal)

    def cancel(self, pool: Pool, signal: int) -> None:
        """End its run without revoking it: state RETRY, event task-cancelled; its message comes back."""
        outcomes.cancel(self, pool, signal)

    # -- what the pool reports

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A child has taken it; `time_accepted` is epoch seconds."""
        self.worker_pid = pid
        self.time_start = time_accepted
        self.phase = ACTIVE
        strategy = self.strategy
        if not strategy.acks_late:
            self.acknowledge()
        send = strategy.consumer.send_task_event
        if send is not None:
            send("task-started", uuid=self.id)

    def on_success(self, outcome: Outcome) -> None:
        """The run succeeded."""
        outcomes.succeeded(self, outcome)

    def on_failure(self, exc_info: Failure, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The run failed; the child has stored it already."""
        outcomes.failed(self, exc_info, send_failed_event)

    def on_retry(self, outcome: Outcome) -> None:
        """The task was sent again by the child."""
        outcomes.retried(self, outcome)

    def on_ignored(self, outcome: Outcome) -> None:
        """The task asked for no result."""
        outcomes.ignored(self, outcome)

    def on_rejected(self, outcome: Outcome) -> None:
        """The task rejected its message."""
        outcomes.rejected(self, outcome)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A limit of `timeout` seconds has passed; after a hard one the run is over."""
        outcomes.timed_out(self, soft, timeout)

    def on_lost(self, pid: int, exitcode: int | None) -> None:
        """The process that ran it died."""
        outcomes.lost(self, pid, exitcode)

    # -- the message

    def acknowledge(self) -> None:
        """Tell the broker that the message is done; only the first call counts."""
        if not self.acknowledged:
            self.acknowledged = True
            self.strategy.consumer.ack(self)

    def reject(self, requeue: bool = False) -> None:
        """Give the message back (`requeue`) or drop it; does nothing once it was acknowledged."""
        if not self.acknowledged:
            self.acknowledged = True
            self.strategy.consumer.reject(self, requeue)
            self.send_event("task-rejected", requeue=requeue)

    def release(self) -> None:
        """Give a message that was not started back to its queue, without an event."""
        self.strategy.consumer.release([self])

    def send_event(self, type: str, **fields: Any) -> None:
        """Send a task event about it, when those are on."""
        send = self.strategy.consumer.send_task_event
        if send is not None:
            send(type, uuid=self.id, **fields)


def epoch_seconds(value: Any) -> float:
    """Epoch seconds of a header such as `eta`: ISO-8601 text (UTC without offset), or a number.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, (str, datetime)):
        moment = maybe_iso8601(value)
        if moment is not None:
            return make_aware(moment, UTC).timestamp()
    raise ValueError(f"not a time: {value!r}")


def _datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
