"""A helper thread that watches many tasks in a store that has to be polled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from .record import ResultRecord

logger = logging.getLogger(__name__)

Callback = Callable[[ResultRecord], object]

FIRST_PAUSE_SECONDS = 0.001
LONGEST_PAUSE_SECONDS = 0.1


def pause_after(waited_seconds: float, longest: float, first: float = FIRST_PAUSE_SECONDS) -> float:
    """How long to wait before the next look: a tenth of what was waited so far, from `first` to `longest`.

    So a short task is seen at once, and a long one costs few questions.
    """
    return max(first, min(longest, waited_seconds / 10))


class Watcher:
    """Looks for the watched ids until they are ready; the thread ends when there are none.

    Args:
        look: asks the store for the records of many ids.
    """

    def __init__(self, look: Callable[[Sequence[str]], Mapping[str, ResultRecord]]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._watched: dict[str, list[Callback]] = {}
        self._thread: threading.Thread | None = None

    def add(self, task_id: str, callback: Callback) -> Callable[[], None]:
        """Call `callback(record)` once `task_id` is ready; the returned function stops that."""
        with self._lock:
            self._watched.setdefault(task_id, []).append(callback)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="result-watcher", daemon=True)
                self._thread.start()
        self._woken.set()

        def stop() -> None:
            with self._lock:
                callbacks = self._watched.get(task_id, [])
                if callback in callbacks:
                    callbacks.remove(callback)
                if not callbacks:
                    self._watched.pop(task_id, None)

        return stop

    def close(self) -> None:
        """Drop all callbacks, and wait until the thread has stopped asking the store."""
        with self._lock:
            self._watched.clear()
            thread = self._thread
        self._woken.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)

    def _run(self) -> None:
        waited = 0.0
        while True:
            with self._lock:
                wanted = list(self._watched)
                if not wanted:
                    self._thread = None
                    return
            if self._pass(wanted):
                waited = 0.0
            pause = pause_after(waited, LONGEST_PAUSE_SECONDS)
            if self._woken.wait(pause):
                self._woken.clear()
                waited = 0.0
            else:
                waited += pause

    def _pass(self, wanted: list[str]) -> bool:
        try:
            found = self._look(wanted)
        except Exception:
            logger.warning("looking for results failed; trying again", exc_info=True)
            return False
        ready = [record for record in found.values() if record.ready]
        for record in ready:
            with self._lock:
                callbacks = self._watched.pop(record.task_id, [])
            for callback in callbacks:
                try:
                    callback(record)
                except Exception:
                    logger.exception("a callback of the result of task %s failed", record.task_id)
        return bool(ready)
