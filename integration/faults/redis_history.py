"""What a Redis server has done to the lists of a queue, read from its append only file.

Stock kombu takes a message with BRPOP and then writes it into `unacked` with a second command. When the server, or the
connection, ends in between, the message is nowhere: it was popped, and nobody holds it. The file proves that of single
messages. Ours is popped and written down in one transaction.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

TASK_ID = re.compile(rb'\\?"correlation_id\\?": ?\\?"([0-9a-f-]{36})')
Command = list[bytes]


class History:
    """The commands that reached the disk, read as far as they are complete.

    Args:
        directory: Of the server; it must not rewrite its file.
        queue: Name of the queue; lists of its priorities begin with it.
    """

    def __init__(self, directory: Path, queue: str) -> None:
        self._directory = directory
        self._queue = queue.encode()
        self._offset = 0
        self._lists: dict[bytes, deque[bytes]] = defaultdict(deque)
        self._popped: dict[bytes, tuple[bytes, bytes]] = {}

    def lost(self) -> dict[bytes, tuple[bytes, bytes]]:
        """Task id -> (list, message) of the messages that were popped by a command of its own, have been written down
        nowhere since, and are in no list.
        """
        (path,) = self._directory.glob("appendonlydir/*.incr.aof")
        with path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        start = self._offset
        for end, transaction in _transactions(data):
            self._apply(transaction)
            self._offset = start + end
        waiting = {id for content in self._lists.values() for id in map(_id_of, content)}
        return {id: found for id, found in self._popped.items() if id not in waiting}

    def _apply(self, transaction: list[Command]) -> None:
        for name, *arguments in transaction:
            name = name.upper()
            key = arguments[0] if arguments else b""
            if name == b"HSET" and key.endswith(b"unacked"):
                for value in arguments[2::2]:
                    self._popped.pop(_id_of(value), None)
            elif not key.startswith(self._queue):
                continue
            elif name in (b"LPUSH", b"RPUSH"):
                content = self._lists[key]
                (content.extendleft if name == b"LPUSH" else content.extend)(arguments[1:])
            elif name in (b"RPOP", b"LPOP"):
                self._pop(key, name, int(arguments[1]) if len(arguments) > 1 else 1, len(transaction) == 1)
            elif name in (b"DEL", b"UNLINK"):
                self._lists.pop(key, None)

    def _pop(self, key: bytes, name: bytes, count: int, alone: bool) -> None:
        content = self._lists[key]
        for _ in range(min(count, len(content))):
            value = content.pop() if name == b"RPOP" else content.popleft()
            if alone:
                self._popped[_id_of(value)] = (key, value)


def _id_of(value: bytes) -> bytes:
    found = TASK_ID.search(value)
    return found[1] if found else value


def _transactions(data: bytes) -> Iterator[tuple[int, list[Command]]]:
    """Where each ends, and its commands: one, or those between MULTI and EXEC."""
    at, inside = 0, None
    while (read := _command(data, at)) is not None:
        command, at = read
        name = command[0].upper()
        if name == b"MULTI":
            inside = []
        elif name == b"EXEC":
            yield at, inside or []
            inside = None
        elif inside is not None:
            inside.append(command)
        else:
            yield at, [command]


def _command(data: bytes, at: int) -> tuple[Command, int] | None:
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    if data[at : at + 1] == b"#":  # a time stamp
        return [data[at:line]], line + 2
    parts, count = [], int(data[at + 1 : line])
    at = line + 2
    for _ in range(count):
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(data[at + 1 : line])
        end = line + 2 + size
        if len(data) < end + 2:
            return None
        parts.append(data[line + 2 : end])
        at = end + 2
    return parts, at
