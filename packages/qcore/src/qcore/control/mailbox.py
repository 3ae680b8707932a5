"""The mailbox: which exchanges and queues carry remote control.

Requests go to the fanout exchange `<control_exchange>.pidbox`; each node consumes from its own queue
`<node>.<control_exchange>.pidbox`. Replies come to `<oid>.reply.<control_exchange>.pidbox`, one queue per
process and thread. A worker serves its end with `mailbox.Node(hostname, handlers=…, state=…, channel=…)`.
"""

from __future__ import annotations

from typing import Any

from qcore.edge import kombu
from qcore.errors import ImproperlyConfigured


def make_mailbox(app: Any) -> Any:
    """A `kombu.pidbox.Mailbox` set up from the app's `control_*` settings.

    Raises:
        ImproperlyConfigured: `control_queue_durable` and `control_queue_exclusive` are both on.
    """
    conf = app.conf
    if conf.control_queue_durable and conf.control_queue_exclusive:
        raise ImproperlyConfigured(
            "control_queue_durable and control_queue_exclusive cannot both be on, as a broker deletes an "
            "exclusive queue with its connection; switch control_queue_exclusive off for durable ones"
        )
    return kombu("kombu.pidbox").Mailbox(
        conf.control_exchange,
        type="fanout",
        clock=app.clock,
        accept=conf.accept_content,
        serializer=conf.task_serializer,
        producer_pool=kombu("kombu.utils.functional").lazy(lambda: app.producer_pool),
        queue_ttl=conf.control_queue_ttl,
        queue_expires=conf.control_queue_expires,
        queue_durable=conf.control_queue_durable,
        queue_exclusive=conf.control_queue_exclusive,
        reply_queue_ttl=conf.control_queue_ttl,
        reply_queue_expires=conf.control_queue_expires,
    )
