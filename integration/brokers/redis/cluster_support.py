"""A Redis Cluster of the test's own: three masters with a replica each; failover, kills, slots that move."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot
from redis_support import Server, until

NODE_TIMEOUT_SECONDS = 1.0
MANUAL_FAILOVER_SECONDS = 6.0
"""After five seconds a server gives a handover up when it did not come about."""

NAMES = ["queue0", "queue1", "queue2", "queue3", "queue4", "queue5"]


class Cluster:
    """Servers on loopback. The first half are masters at first, each of the rest follows one of them.

    Args:
        folder: Where the servers keep their data.
        masters: How many masters there are.
        replicas: Whether each has a replica. Without, the masters keep their data on disk.
    """

    def __init__(self, folder: Path, masters: int = 3, *, replicas: bool = True) -> None:
        self.servers = []
        for number in range(masters * (2 if replicas else 1)):
            place = folder / f"node{number}"
            place.mkdir()
            self.servers.append(
                Server(
                    place,
                    *("--cluster-enabled", "yes", "--appendonly", "no" if replicas else "yes"),
                    *("--cluster-node-timeout", str(int(NODE_TIMEOUT_SECONDS * 1000))),
                    *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
                )
            )
        self._masters = masters

    @property
    def url(self) -> str:
        """All servers: some may be down when somebody connects."""
        return ";".join(f"rediscluster://127.0.0.1:{server.port}" for server in self.servers)

    def start(self) -> None:
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait()
        masters, replicas = self.servers[: self._masters], self.servers[self._masters :]
        share = 16384 // self._masters
        for number, server in enumerate(masters):
            first, last = number * share, 16383 if server is masters[-1] else (number + 1) * share - 1
            command(server, "CLUSTER", "ADDSLOTSRANGE", first, last)
            command(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            command(server, "CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        until(lambda: all(len(nodes(server)) == len(self.servers) for server in self.servers), 20)
        for master, replica in zip(masters, replicas, strict=False):
            name = command(master, "CLUSTER", "MYID")
            until(lambda name=name, replica=replica: _follow(replica, name), 10)  # type: ignore[misc]
        until(self.is_whole, 20)

    def is_down(self) -> bool:
        """Whether the servers that run take no commands, because a slot has no master."""
        return not any(_is_sound(server) for server in self.servers if server.running)

    def is_whole(self) -> bool:
        """Whether every server that runs sees a sound cluster, and every replica that runs is in step."""
        running = [server for server in self.servers if server.running]
        return all(_is_sound(server) and _is_in_step(server) for server in running)

    def mend(self) -> None:
        """Start again what was killed."""
        for server in self.servers:
            if not server.running:
                server.start()
        until(self.is_whole, 30)

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def masters(self) -> list[Server]:
        return [server for server in self.servers if server.running and role(server) == "master"]

    def master_of(self, queue: str) -> Server:
        """The master that has a queue."""
        slot = key_slot(f"{{{queue}}}".encode())
        for first, last, (_, port, *_), *_ in command(self.masters()[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self.at(int(port))
        raise AssertionError(f"nobody has slot {slot}")

    def at(self, port: int) -> Server:
        return next(server for server in self.servers if server.port == port)

    def replica_of(self, master: Server) -> Server:
        return next(
            server
            for server in self.servers
            if server.running and role(server) != "master" and command(server, "ROLE")[2] == master.port
        )

    def fail_over(self, master: Server) -> Server:
        """The graceful way: the replica of a master takes over when it has everything."""
        replica = self.replica_of(master)
        asked_at = 0.0

        def done() -> bool:
            nonlocal asked_at
            if role(replica) != "master" and time.monotonic() - asked_at > MANUAL_FAILOVER_SECONDS:
                asked_at = time.monotonic()
                command(replica, "CLUSTER", "FAILOVER")
            return role(replica) == "master" and role(master) == "slave"

        until(done, 4 * MANUAL_FAILOVER_SECONDS)
        return replica

    def kill_master(self, master: Server) -> Server:
        """`kill -9`, and wait until the replica has been promoted."""
        replica = self.replica_of(master)
        master.kill()
        until(lambda: role(replica) == "master", 20)
        return replica

    def move(self, queue: str, target: Server, pause_seconds: float = 0.02) -> int:
        """Move the slot of a queue, key by key; returns how many keys there were."""
        slot, source, moved = key_slot(f"{{{queue}}}".encode()), self.master_of(queue), 0
        command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", command(source, "CLUSTER", "MYID"))
        command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", command(target, "CLUSTER", "MYID"))
        while keys := command(source, "CLUSTER", "GETKEYSINSLOT", slot, 1):
            time.sleep(pause_seconds)  # as long as it takes with larger ones
            command(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            moved += 1
        name = command(target, "CLUSTER", "MYID")
        for server in (target, source, *self.masters()):
            command(server, "CLUSTER", "SETSLOT", slot, "NODE", name)
        return moved

    def reshard(self, slots: int) -> None:
        """Move so many slots from one master to another, as an operator does."""
        source, target, *_ = self.masters()
        ends = ["--cluster-from", command(source, "CLUSTER", "MYID")]
        ends += ["--cluster-to", command(target, "CLUSTER", "MYID")]
        words = ["--cluster", "reshard", f"127.0.0.1:{source.port}", *ends, "--cluster-slots", str(slots)]
        done = subprocess.run(
            ["redis-cli", *words, "--cluster-yes"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:]

    def held(self) -> int:
        """Messages in the books of all masters."""
        return sum(self._sizes("unacked.*", "hlen"))

    def waiting(self) -> int:
        """Messages in the lists of the queues and in their delayed sets."""
        lists = sum(self._sizes("{queue*", "llen"))
        return lists + sum(self._sizes("_qbrokers.delayed.*", "zcard"))

    def _sizes(self, pattern: str, size: str) -> list[int]:
        found = []
        for server in self.masters():
            with redis.Redis(port=server.port) as client:
                found += [int(getattr(client, size)(key)) for key in client.scan_iter(pattern)]
        return found


def command(server: Server, *words: Any) -> Any:
    with redis.Redis(port=server.port, decode_responses=True) as client:
        return client.execute_command(*words)


def nodes(server: Server) -> list[str]:
    reply = command(server, "CLUSTER", "NODES")
    found = list(reply) if isinstance(reply, dict) else str(reply).splitlines()
    return [] if "handshake" in json.dumps(reply) else found


def role(server: Server) -> str:
    try:
        return str(command(server, "ROLE")[0])
    except redis.exceptions.ConnectionError:
        return "away"


def _follow(replica: Server, name: str) -> bool:
    try:
        command(replica, "CLUSTER", "REPLICATE", name)
    except redis.exceptions.ResponseError:
        return False  # it has not heard of the master yet
    return True


def _is_sound(server: Server) -> bool:
    reply = command(server, "CLUSTER", "INFO")
    text = json.dumps(reply) if isinstance(reply, dict) else str(reply)
    return "cluster_state:ok" in text.replace('": "', ":")


def _is_in_step(server: Server) -> bool:
    found = command(server, "ROLE")
    return found[0] == "master" or found[3] == "connected"
