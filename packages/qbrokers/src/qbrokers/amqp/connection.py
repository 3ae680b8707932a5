"""The connection: reads many frames at a time, writes many at a time, and never waits for ever."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qbrokers.amqp import channel as channels
from qbrokers.amqp import contract
from qbrokers.amqp.bases import BaseConnection, RecoverableConnectionError
from qbrokers.amqp.delaying import Delays
from qbrokers.amqp.framing import FrameReader, corking_frame_writer
from qbrokers.amqp.heart import FRAME, Heart, interval_for
from qbrokers.amqp.options import Options
from qbrokers.amqp.topology import Topology

if TYPE_CHECKING:
    from qbrokers.amqp.framing import CorkedWriter

logger = logging.getLogger(__name__)

READ_BYTES = 131072


class Connection(BaseConnection):  # type: ignore[misc]
    """A py-amqp connection whose channels buffer their answers; it sends them before it waits."""

    Channel = channels.Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.options = Options.take(kwargs)
        self.topology = Topology()
        self.delays = Delays(self)
        self.writer: CorkedWriter
        self.blocked = False
        """The server takes no messages for now (memory or disk alarm)."""
        self.broken = False
        """The server did not answer in time: no handshake at the end."""
        self.in_loop = False
        self.waiters = 0
        """Callers that wait for a confirmation or another reply."""
        self.handed_out = 0
        """Messages that consumers were given."""
        self.silent = False
        """Set by channels when a frame is no event for the program."""
        self._frames = FrameReader()
        self._seen = 0
        self._closing_by: float | None = None
        self._last_read = 0.0
        self._last_heard = self._last_beat = time.monotonic()
        self._heart: Heart | None = None
        self._loop: Any = None
        self._lock = threading.RLock()
        self._flusher = Flusher(self)
        self._pid = os.getpid()
        kwargs["heartbeat"] = interval_for(kwargs.get("heartbeat") or 0, self.options.silence_seconds)
        super().__init__(*args, frame_writer=corking_frame_writer, **kwargs)

    # -- reading

    def drain_events(self, timeout: float | None = None) -> None:
        """Handle one event, waiting for it if necessary; answers leave before the wait.

        Raises:
            socket.timeout: None came in time.
            OSError: The connection is lost.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            while (frame := self._next_frame()) is not None:
                self.silent = False
                if self.on_inbound_frame(frame) and (self.waiters or not self.silent):
                    return
            seen, handed_out = self._seen, self.handed_out
            self.end_of_tick()
            if self.handed_out != handed_out or (self.waiters and self._seen != seen):
                return  # a wait in there has met what this one is for, or may have
            if self._frames.ready:
                continue
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            self._fill(left)

    def _next_frame(self) -> tuple[int, int, bytes] | None:
        if self.channels is None:
            raise RecoverableConnectionError("the connection is closed")
        frame = self._frames.next()
        if frame is not None:
            self._seen += 1
        return frame

    def _fill(self, timeout: float | None) -> int:
        transport = self.transport
        self._last_read = time.monotonic()
        while True:
            try:
                with transport.having_timeout(timeout) as sock:
                    data = sock.recv(READ_BYTES)
                break
            except TimeoutError:
                if timeout is not None:
                    raise
            except OSError:
                transport.connected = False
                raise
        if not data:
            transport.connected = False
            raise ConnectionResetError("the broker has closed the connection")
        self._last_heard = time.monotonic()
        self._frames.feed(data)
        return len(data)

    def read_available(self) -> None:
        """Handle everything that has arrived, without waiting.

        Raises:
            OSError: The connection is lost.
        """
        self.handle_frames()
        try:
            while self._fill(0) == READ_BYTES:
                self.handle_frames()
        except TimeoutError:
            return
        self.handle_frames()

    def handle_frames(self) -> None:
        """Handle the frames that were read already."""
        while (frame := self._next_frame()) is not None:
            self.on_inbound_frame(frame)

    def read_now_and_then(self) -> None:
        """For programs that only publish: look for what the server says, at most ten times a second."""
        if not self.in_loop and time.monotonic() - self._last_read > 0.1:
            self.read_available()

    # -- heartbeats

    def enter_loop(self, loop: Any) -> None:
        """The program waits in a kombu hub from now on, for all its descriptors at once."""
        self._loop = loop
        self.in_loop = True
        if self.heartbeat and self._heart is None:
            self._heart = Heart(self)

    def leave_loop(self) -> None:
        """The program waits in `drain_events` from now on."""
        self.in_loop = False
        self._loop = None
        heart, self._heart = self._heart, None
        if heart is not None:
            heart.stop()

    def send_heartbeat_when_due(self) -> None:
        """Send a heartbeat when the last one is older than half of the interval."""
        now = time.monotonic()
        if self.connected and now - self._last_beat >= self.heartbeat / 2:
            self._last_beat = now
            self.writer.write(FRAME)

    def heartbeat_tick(self, rate: float = 2) -> None:
        """Send a heartbeat when it is time, and see whether the server still sends; to be called again and again.

        Raises:
            RecoverableConnectionError: Nothing came for two intervals; the connection is closed.
        """
        if not self.heartbeat:
            return
        self.send_heartbeat_when_due()
        silence = time.monotonic() - self._last_heard
        if silence > 2 * self.heartbeat and not self._is_readable():
            self.collect()
            raise RecoverableConnectionError(
                f"the broker has sent nothing for {silence:.0f} s, not even heartbeats"
            )

    def _is_readable(self) -> bool:
        """Whether something came that nobody has read, as the program was busy with other things."""
        poll = select.poll()
        poll.register(self.transport.sock, select.POLLIN)
        return bool(poll.poll(0))

    def is_doubtful(self) -> bool:
        """Whether the server may be gone for all we know: no heartbeats, and it was not heard for a while."""
        limit = self.options.idle_check_seconds
        return bool(limit) and not self.heartbeat and time.monotonic() - self._last_heard > limit

    # -- writing

    @contextmanager
    def corked(self) -> Iterator[None]:
        """Frames written in this block leave together."""
        with self.writer.corked():
            yield

    def own_channels(self) -> list[channels.Channel]:
        """The open channels."""
        return [each for each in (self.channels or {}).values() if each is not self]

    def flush(self) -> None:
        """Send the answers of all channels in one write."""
        with self._lock:
            dirty = [channel for channel in self.own_channels() if channel.book.waiting]
            if dirty:
                with self.corked():
                    for channel in dirty:
                        channel.write_answers()

    def end_of_tick(self) -> None:
        """Before waiting: put messages for later back into the broker, and send the answers."""
        if self.channels is None or not self._handshake_complete:
            return
        self.delays.send_waiting()
        self.flush()

    def answers_wait(self) -> None:
        """A channel has an answer to send."""
        if not self.in_loop:
            self._flusher.wake()

    def _on_blocked(self) -> Any:
        self.blocked = True
        logger.warning("The broker takes no messages for now (connection.blocked); publishing waits.")
        return super()._on_blocked()

    def _on_unblocked(self) -> Any:
        self.blocked = False
        return super()._on_unblocked()

    # -- no wait without an end

    def wait(
        self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False
    ) -> Any:
        """Wait for a reply, no longer than the server is given."""
        with self.reply_expected():
            return super().wait(
                method, callback, self.reply_seconds() if timeout is None else timeout, returns_tuple
            )

    def waited(self) -> None:
        """A wait for a reply is over: let the loop have one more turn at once.

        Messages that came during the wait were handed out, perhaps after what runs at the end of a turn; and what was
        read with the reply makes no descriptor readable any more.
        """
        loop = self._loop
        if loop is not None:
            loop.call_soon(self._handle_the_rest)
            waker = getattr(loop, "_waker", None)  # call_soon wakes the loop only for other threads
            if waker is not None:
                waker.wake()

    def _handle_the_rest(self) -> None:
        if self.connected:
            self.handle_frames()

    def reply_seconds(self) -> float:
        """How long the server has for its next reply."""
        if self._closing_by is not None:
            return max(self._closing_by - time.monotonic(), 0.01)
        return self.options.publish_timeout

    @contextmanager
    def reply_expected(self) -> Iterator[None]:
        """Turn a timeout into the loss of the connection: what comes later would be taken for another reply.

        Raises:
            RecoverableConnectionError: The server did not answer in time.
        """
        self.waiters += 1
        try:
            yield
        except TimeoutError as exc:
            self.broken = True
            raise RecoverableConnectionError("the broker did not answer in time") from exc
        finally:
            self.waiters -= 1
            self.waited()

    @property
    def saying_goodbye(self) -> bool:
        """Whether the connection, or one of its channels, is being closed by us."""
        return self._closing_by is not None

    @contextmanager
    def _closing(self) -> Iterator[None]:
        before = self._closing_by
        self._closing_by = before or time.monotonic() + self.options.close_timeout
        try:
            yield
        finally:
            self._closing_by = before

    def close_channel(self, channel: contract.Channel, close: Callable[[], object]) -> None:
        """Close a channel with a goodbye that does not take long."""
        if self.broken:
            channel.collect()
            return
        with self._closing():
            close()

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Send the answers, and say goodbye; not to a server that has stopped answering."""
        if self._transport is None:
            return
        if self.broken or not self._transport.connected:
            self.collect()
            return
        with self._closing():
            try:
                if self._handshake_complete:
                    self.flush()
                super().close(*args, **kwargs)
            finally:
                if self._transport is not None:
                    self.collect()

    def collect(self) -> None:
        """Drop everything without a word to the server."""
        self.leave_loop()
        if self._pid == os.getpid():  # a fork has no such thread, and perhaps its lock as it was
            self._flusher.stop()
        super().collect()


class Flusher:
    """Sends answers for a program that works long between two waits; a thread that lives while there are any."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._state = threading.Condition()
        self._wanted = False
        self._thread: threading.Thread | None = None
        self._stopped = False

    def wake(self) -> None:
        """There is an answer to send soon."""
        if self._wanted:
            return
        with self._state:
            self._wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="qbrokers-amqp-acks", daemon=True)
                self._thread.start()
            else:
                self._state.notify()

    def _run(self) -> None:
        delay = self._connection.options.ack_delay_seconds
        while self._is_wanted(20 * delay):
            time.sleep(delay)
            self._wanted = False
            try:
                self._connection.flush()
            except Exception:
                # The program itself meets the lost connection at its next call, and handles it there.
                logger.debug("sending acknowledgements in the background failed", exc_info=True)

    def _is_wanted(self, seconds: float) -> bool:
        with self._state:
            if not self._wanted and not self._stopped:
                self._state.wait(seconds)
            if self._wanted and not self._stopped:
                return True
            self._thread = None
            return False

    def stop(self) -> None:
        """End the thread soon."""
        with self._state:
            self._stopped = True
            self._state.notify()
