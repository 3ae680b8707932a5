"""A master, its replica and the Sentinels that watch them, all of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis
from cluster_support import command, role
from redis_support import Server, app_connection, until

GROUP = "group"
DOWN_AFTER_SECONDS = 0.5


class Watched:
    """One group of servers.

    Args:
        folder: Where the servers keep their data.
        sentinels: How many Sentinels there are.
    """

    def __init__(self, folder: Path, sentinels: int = 3) -> None:
        count = 2 + sentinels
        places = [folder / f"server{number}" for number in range(count)]
        for place in places:
            place.mkdir()
        options = ("--appendonly", "no", "--repl-diskless-sync-delay", "0")
        first = Server(places[0], *options)
        self.servers = [first, Server(places[1], *options, "--replicaof", "127.0.0.1", str(first.port))]
        self.sentinels = [Server(place) for place in places[2:]]

    def start(self) -> None:
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait()
        until(lambda: command(self.servers[1], "ROLE")[3] == "connected", 10)
        quorum = len(self.sentinels) // 2 + 1
        for sentinel in self.sentinels:
            configuration = sentinel.folder / "sentinel.conf"
            configuration.write_text(
                f"port {sentinel.port}\nbind 127.0.0.1\n"
                f"sentinel monitor {GROUP} 127.0.0.1 {self.servers[0].port} {quorum}\n"
                f"sentinel down-after-milliseconds {GROUP} {int(DOWN_AFTER_SECONDS * 1000)}\n"
                f"sentinel failover-timeout {GROUP} 5000\n"
            )
            sentinel.launch_with(configuration)
        for sentinel in self.sentinels:
            sentinel.wait()
        until(lambda: all(self._sees_all(sentinel) for sentinel in self.sentinels), 20)

    def _sees_all(self, sentinel: Server) -> bool:
        with redis.Redis(port=sentinel.port, decode_responses=True) as client:
            state = client.sentinel_master(GROUP)
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == len(self.sentinels) - 1)

    def kill(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.kill()

    def connect(self, **options: Any) -> Any:
        url = ";".join(f"sentinel://127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        settings = {"master_name": GROUP, "lease_seconds": 4, "socket_timeout": 3, **options}
        return app_connection(url, **settings)

    def master(self) -> Server:
        return next(server for server in self.servers if server.running and role(server) == "master")

    def left(self) -> int:
        """Messages in the books and in the queues of the master that the Sentinels name."""
        total = 0
        _, port = command(self.sentinels[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", GROUP)
        with redis.Redis(port=int(port)) as client:
            for key in client.scan_iter():
                if key == b"unacked":
                    total += client.hlen(key)
                elif key.startswith(b"queue"):
                    total += client.llen(key)
                elif key.startswith(b"_qbrokers.delayed."):
                    total += client.zcard(key)
        return total

    def fail_over(self) -> tuple[Server, Server]:
        """As an operator does; returns the old master, which goes on as one until it is told, and the new one."""
        old = self.master()
        new = next(server for server in self.servers if server is not old)
        until(lambda: _asked(self.sentinels[0]), 30)
        until(lambda: role(new) == "master", 30)
        return old, new

    def kill_master(self) -> tuple[Server, Server]:
        """`kill -9`, and wait for the promotion; returns the killed one and the new master."""
        old = self.master()
        new = next(server for server in self.servers if server is not old)
        old.kill()
        until(lambda: role(new) == "master", 30)
        return old, new


def _asked(sentinel: Server) -> bool:
    try:
        command(sentinel, "SENTINEL", "FAILOVER", GROUP)
    except redis.exceptions.ResponseError:
        return False  # it has not looked at the replica since the last failover
    return True
