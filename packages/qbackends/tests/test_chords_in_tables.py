"""Chords in databases that do not end the usual way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from qbackends import relational
from qcore import states
from qcore.app import App
from qcore.backend.chords import unlock
from qcore.backend.record import ResultRecord
from qcore.testing.backends import Chord, request_of, store


@pytest.fixture(params=["db+sqlite", "db+sqlite+pysqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    app = App("chords", broker="memory://", backend=f"{request.param}:///{tmp_path / 'results.db'}")
    yield app
    app.close()


@pytest.fixture
def chord(app: Any) -> Iterator[Chord]:
    chord = Chord(app)
    yield chord
    chord.close()


def test_parts_of_foreign_workers_are_found_by_their_results(app: Any, chord: Chord) -> None:
    chord.start(3)
    chord.part(1, "ours")
    store(app, chord.ids[0], result="theirs")
    app.backend.sweep()
    assert chord.bodies() == []
    store(app, chord.ids[2], result="theirs too")
    app.backend.sweep()
    app.backend.sweep()
    assert chord.bodies() == [["theirs", "ours", "theirs too"]]


def test_a_foreign_failure_fails_the_body(app: Any, chord: Chord) -> None:
    chord.start(2)
    store(app, chord.ids[0], states.FAILURE, ValueError("theirs"))
    app.backend.sweep()
    assert app.backend.get(chord.body_id).status == states.FAILURE


def test_a_chord_whose_finisher_died_is_taken_over(
    app: Any, chord: Chord, monkeypatch: pytest.MonkeyPatch
) -> None:
    chord.start(1)

    class Died(BaseException):
        pass

    def die(self: Any, chord: Any) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(relational.RelationalBackend, "_finish_chord", die)
        with pytest.raises(Died):
            chord.part(0, "value")
    app.backend.sweep()
    assert chord.bodies() == []  # the claim is fresh: its owner may still be at it
    monkeypatch.setattr(relational, "CLAIM_SECONDS", -1.0)
    app.backend.sweep()
    assert chord.bodies() == [["value"]]


def test_expired_results_are_removed(app: Any) -> None:
    old, new = str(uuid4()), str(uuid4())
    store(app, old, result=1)
    app.backend.expires_seconds = -1
    app.backend.cleanup()
    assert not app.backend.exists(old)
    app.backend.expires_seconds = 60
    store(app, new, result=1)
    app.backend.cleanup()
    assert app.backend.exists(new)


def test_the_unlock_task_starts_the_body_when_the_header_is_ready(app: Any, chord: Chord) -> None:
    chord.ids = [str(uuid4()) for _ in range(3)]
    inner = app.GroupResult(str(uuid4()), [app.AsyncResult(i) for i in chord.ids[1:]])
    header = [app.AsyncResult(chord.ids[0]).as_tuple(), inner.as_tuple()]
    for number, task_id in enumerate(chord.ids):
        store(app, task_id, result=number)
    unlock(app.tasks["celery.chord_unlock"], chord.group_id, dict(chord.body), result=header)
    assert chord.bodies() == [[0, [1, 2]]]


def test_the_unlock_task_fails_the_body_with_the_header(app: Any, chord: Chord) -> None:
    chord.ids = [str(uuid4())]
    app.backend.store(ResultRecord.of(request_of(chord.ids[0]), states.FAILURE, ValueError("x")))
    app.backend.flush()
    header = [app.AsyncResult(chord.ids[0]).as_tuple()]
    unlock(app.tasks["celery.chord_unlock"], chord.group_id, dict(chord.body), result=header)
    assert "raised ValueError('x')" in str(app.backend.get(chord.body_id).result)
