"""Cameras."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
from kombu import Connection

from qcore.errors import ImproperlyConfigured
from qcore.events import EventDispatcher
from qevents import Polaroid, State, evcam
from qevents.snapshot import load_camera
from qevents.timer import RepeatingThread


class ManualTimer:
    """A timer that runs what is due when told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], object]]] = []
        self.cancelled = 0

    def call_repeatedly(self, interval: float, function: Callable[[], object]) -> ManualTimer:
        self.calls.append((interval, function))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


class Album(Polaroid):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pictures: list[int] = []
        self.cleanups = 0
        self.taken = threading.Event()

    def on_shutter(self, state: State) -> None:
        self.pictures.append(state.event_count)
        if state.event_count:
            self.taken.set()

    def on_cleanup(self) -> None:
        self.cleanups += 1


class ClearingAlbum(Album):
    clear_after = True


def heartbeat() -> dict[str, Any]:
    now = time.time()
    return {"type": "worker-heartbeat", "hostname": "q@h", "timestamp": now, "local_received": now}


def test_pictures_and_cleanups_follow_the_timer() -> None:
    timer, state = ManualTimer(), State()
    with Album(state, freq=2.0, cleanup_freq=10.0, timer=timer) as album:
        assert [interval for interval, _ in timer.calls] == [2.0, 10.0]
        state.event(heartbeat())
        for _, function in timer.calls:
            function()
        state.event(heartbeat())
    assert album.pictures == [1, 2], "the end of the block takes a last picture"
    assert album.cleanups == 1
    assert timer.cancelled == 2


def test_clear_after_resets_the_counts() -> None:
    state = State()
    album = ClearingAlbum(state, timer=ManualTimer())
    state.event(heartbeat())
    album.capture()
    album.capture()
    assert album.pictures == [1, 0]
    assert state.event_count == 0
    assert not state.workers


def test_maxrate_skips_pictures_without_forgetting_events() -> None:
    state = State()
    album = ClearingAlbum(state, maxrate="1/h", timer=ManualTimer())
    album.capture()
    state.event(heartbeat())
    album.capture()
    assert album.pictures == [0]
    assert state.event_count == 1


def test_signals_announce_pictures() -> None:
    seen: list[Any] = []
    album = Album(State(), timer=ManualTimer())

    def on_shutter(sender: Any = None, **kwargs: Any) -> None:
        seen.append(("shutter", sender))

    def on_cleanup(sender: Any = None, **kwargs: Any) -> None:
        seen.append(("cleanup", sender))

    Polaroid.shutter_signal.connect(on_shutter)
    Polaroid.cleanup_signal.connect(on_cleanup)
    try:
        album.capture()
        album.cleanup()
    finally:
        Polaroid.shutter_signal.disconnect(on_shutter)
        Polaroid.cleanup_signal.disconnect(on_cleanup)
    assert seen == [("shutter", album.state), ("cleanup", album.state)]


def test_threads_take_the_pictures_by_default() -> None:
    state = State()
    state.event(heartbeat())
    with Album(state, freq=0.01) as album:
        assert album.taken.wait(20)
    assert "qevents-timer" not in {thread.name for thread in threading.enumerate()}


def test_a_camera_that_fails_is_logged_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    enough = threading.Event()

    def fail() -> None:
        calls.append(1)
        if len(calls) >= 2:
            enough.set()
        raise ValueError("bad picture")

    with caplog.at_level(logging.ERROR):
        repeating = RepeatingThread(0.01, fail)
        assert enough.wait(20)
        repeating.cancel()
    assert "bad picture" in caplog.text


def test_the_base_class_does_nothing() -> None:
    camera = Polaroid(State(), timer=ManualTimer())
    camera.capture()
    camera.cleanup()
    camera.cancel()


@pytest.mark.parametrize("path", ["qevents.snapshot.Polaroid", "qevents.snapshot:Polaroid"])
def test_cameras_load_by_path(path: str) -> None:
    assert load_camera(path) is Polaroid


@pytest.mark.parametrize(
    "path", ["nowhere.Camera", "qevents.snapshot.Missing", "Camera", "qevents.__version__"]
)
def test_a_bad_path_says_what_to_give(path: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="camera"):
        load_camera(path)


def test_evcam_feeds_a_camera(app: Any, connection: Connection, exchange: str) -> None:
    @contextmanager
    def connection_for_read() -> Any:
        yield connection

    made: list[Album] = []

    class MyCamera(Album):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    app.connection_for_read = connection_for_read
    app.control.broadcast = lambda command, **options: EventDispatcher(
        connection, "q@h", exchange=exchange
    ).send("worker-online")
    evcam(app, MyCamera, timer=ManualTimer(), limit=1, timeout=20)
    assert made[0].pictures == [1]
    assert made[0].app is app
