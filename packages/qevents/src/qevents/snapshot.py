"""Cameras: take a picture of the cluster's state now and then, instead of following every event."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any, Self

from qcore.edge import kombu
from qcore.errors import ImproperlyConfigured
from qcore.signals import Signal
from qcore.times import parse_rate
from qevents.state import State
from qevents.timer import Entry, ThreadTimer, Timer

logger = logging.getLogger(__name__)

DEFAULT_CLEANUP_SECONDS = 3600.0


class Polaroid:
    """Base of cameras: override `on_shutter`.

    As a context manager it takes pictures while the block runs, and a last one at its end.

    Args:
        state: The state that events are fed to.
        freq: Seconds between pictures.
        maxrate: At most so many pictures, as `10/m`; no limit by default.
        cleanup_freq: Seconds between calls of `on_cleanup`.
        timer: Makes the repeated calls; threads by default.
        app: Given to cameras that want it.
    """

    clear_after = False
    """Forget what is over, and the event count, after each picture."""

    shutter_signal = Signal("shutter_signal")
    """Sender: the state, just before `on_shutter`."""

    cleanup_signal = Signal("cleanup_signal")
    """Sender: the state, just before `on_cleanup`."""

    def __init__(
        self,
        state: State,
        freq: float = 1.0,
        maxrate: str | float | None = None,
        cleanup_freq: float = DEFAULT_CLEANUP_SECONDS,
        timer: Timer | None = None,
        app: Any = None,
    ) -> None:
        self.app = app
        self.state = state
        self.freq = freq
        self.cleanup_freq = cleanup_freq
        self.timer: Timer = timer if timer is not None else ThreadTimer()
        pictures_per_second = parse_rate(maxrate)
        self.maxrate: Any = (
            kombu("kombu.utils.limits").TokenBucket(pictures_per_second) if pictures_per_second else None
        )
        self._entries: list[Entry] = []

    def on_shutter(self, state: State) -> None:
        """Do something with the state; no event is taken in meanwhile."""

    def on_cleanup(self) -> None:
        """Throw away what is too old."""

    def install(self) -> None:
        """Start taking pictures."""
        self._entries = [
            self.timer.call_repeatedly(self.freq, self.capture),
            self.timer.call_repeatedly(self.cleanup_freq, self.cleanup),
        ]

    def cancel(self) -> None:
        """Stop, with a last picture of what came in since the one before."""
        if self._entries:
            entries, self._entries = self._entries, []
            for entry in entries:
                entry.cancel()
            self.capture()

    def capture(self) -> None:
        """Take a picture now, within `maxrate`."""
        if self.maxrate is None or self.maxrate.can_consume():
            self.state.freeze_while(self.shutter, clear_after=self.clear_after)

    def shutter(self) -> None:
        """Tell the signal, then call `on_shutter`."""
        logger.debug("Shutter: %s", self.state)
        self.shutter_signal.send(sender=self.state)
        self.on_shutter(self.state)

    def cleanup(self) -> None:
        """Tell the signal, then call `on_cleanup`."""
        logger.debug("Cleanup")
        self.cleanup_signal.send(sender=self.state)
        self.on_cleanup()

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel()


def load_camera(path: str) -> type[Polaroid]:
    """The camera class called `package.module.Class` or `package.module:Class`.

    Raises:
        ImproperlyConfigured: There is none.
    """
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        camera = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(
            f"cannot load the camera {path!r} ({exc}): give it as package.module.Class"
        ) from exc
    if not callable(camera):
        raise ImproperlyConfigured(f"the camera {path!r} is no class")
    return camera  # type: ignore[no-any-return]  # duck-typed cameras are welcome


def evcam(
    app: Any,
    camera: str | type[Polaroid],
    freq: float = 1.0,
    maxrate: str | float | None = None,
    cleanup_freq: float = DEFAULT_CLEANUP_SECONDS,
    timer: Timer | None = None,
    limit: int | None = None,
    timeout: float | None = None,
) -> None:
    """Feed the cluster's events to a camera until interrupted.

    Args:
        app: The app whose broker is listened to.
        camera: Class, or its path.
        freq, maxrate, cleanup_freq, timer: As `Polaroid` takes them.
        limit: Number of messages after which to stop.
        timeout: Seconds without any event after which to stop.

    Raises:
        TimeoutError: Nothing came for `timeout` seconds.
    """
    camera_class = load_camera(camera) if isinstance(camera, str) else camera
    state = app.events.State()
    cam = camera_class(state, freq=freq, maxrate=maxrate, cleanup_freq=cleanup_freq, timer=timer, app=app)
    with app.connection_for_read() as connection, cam:
        receiver = app.events.Receiver(connection, handlers={"*": state.event})
        try:
            receiver.capture(limit=limit, timeout=timeout)
        except KeyboardInterrupt:
            return
