from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qworker.consumer.acks import AckWindow


class Channel:
    """Keeps the books as a broker does."""

    def __init__(self, count: int) -> None:
        self.unanswered = set(range(1, count + 1))
        self.frames: list[tuple[int, bool]] = []

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        self.frames.append((tag, multiple))
        self.unanswered -= {other for other in self.unanswered if other <= tag} if multiple else {tag}


def make(count: int) -> tuple[AckWindow, Channel]:
    channel = Channel(count)
    window = AckWindow(channel)
    for tag in range(1, count + 1):
        window.delivered(tag)
    return window, channel


def test_tags_in_order_need_one_frame() -> None:
    window, channel = make(5)
    for tag in (3, 1, 2):
        window.ack(tag)
    window.flush()
    assert channel.frames == [(3, True)]


def test_tags_out_of_order_are_acknowledged_in_the_same_flush() -> None:
    window, channel = make(5)
    window.ack(4)
    window.ack(1)
    window.flush()
    assert channel.unanswered == {2, 3, 5}


def test_a_rejected_tag_does_not_hold_the_window_up() -> None:
    window, channel = make(3)
    window.answered(1)
    channel.unanswered.discard(1)
    window.ack(2)
    window.flush()
    assert channel.frames == [(2, True)]


def test_nothing_is_sent_when_nothing_ended() -> None:
    window, channel = make(3)
    window.flush()
    assert channel.frames == []


@given(st.permutations(range(1, 21)), st.sets(st.integers(0, 19)), st.sets(st.integers(1, 20)))
def test_exactly_what_ended_is_acknowledged(order: list[int], flushes: set[int], rejected: set[int]) -> None:
    window, channel = make(20)
    ended: set[int] = set()
    for position, tag in enumerate(order):
        if tag in rejected:
            window.answered(tag)
            channel.unanswered.discard(tag)
        else:
            window.ack(tag)
        ended.add(tag)
        if position in flushes:
            window.flush()
            assert channel.unanswered == set(range(1, 21)) - ended
    window.flush()
    assert channel.unanswered == set()
    assert not window._open
    assert not window._answered
