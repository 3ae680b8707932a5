"""Answers of an AMQP channel: nothing is acknowledged that was not asked for."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("amqp")

from qbrokers.amqp.settling import ACK, REJECT, Answer, Book


class Server:
    """What a server makes of the frames."""

    def __init__(self) -> None:
        self.open: list[int] = []
        self.acked: list[int] = []
        self.rejected: list[tuple[int, bool]] = []

    def receive(self, answers: list[Answer]) -> None:
        for method, tag, flag in answers:
            assert tag in self.open, f"unknown delivery tag {tag}"
            if method == REJECT:
                self.open.remove(tag)
                self.rejected.append((tag, flag))
                continue
            covered = [each for each in self.open if each <= tag] if flag else [tag]
            self.acked.extend(covered)
            self.open = [each for each in self.open if each not in covered]


def book_of(count: int) -> Book:
    book = Book()
    for tag in range(1, count + 1):
        book.delivered(tag, f"message {tag}")
    return book


def test_run_from_the_start_is_one_frame() -> None:
    book = book_of(5)
    for tag in (3, 1, 2):
        book.ack(tag)
    assert book.take() == [Answer(ACK, 3, True)]


def test_gap_ends_the_run() -> None:
    book = book_of(5)
    for tag in (1, 2, 4, 5):
        book.ack(tag)
    assert book.take() == [Answer(ACK, 2, True), Answer(ACK, 4, False), Answer(ACK, 5, False)]


def test_rejects_come_first_and_in_order() -> None:
    book = book_of(4)
    book.ack(1)
    book.reject(3, False)
    book.reject(2, True)
    book.ack(4)
    assert book.take() == [Answer(REJECT, 3, False), Answer(REJECT, 2, True), Answer(ACK, 4, True)]


def test_tag_of_a_later_message_is_an_error() -> None:
    with pytest.raises(ValueError, match="delivery tag 6"):
        book_of(5).ack(6)


def test_late_answer_after_the_server_took_all_back_is_nothing() -> None:
    book = book_of(3)
    book.clear()
    book.ack(2)
    assert book.take() == []


def test_all_up_to_a_tag_does_not_mean_what_the_channel_holds() -> None:
    book = Book()
    book.delivered(1, "mine", ours=True)
    book.delivered(2, "theirs")
    book.ack(2, multiple=True)
    assert book.take() == [Answer(ACK, 2, False)]
    book.ack(1)
    assert book.take() == [Answer(ACK, 1, False)]


def test_frame_is_that_of_the_protocol() -> None:
    from amqp.serialization import dumps

    payload = b"\x00\x3c\x00\x50" + dumps("Lb", (7, True))
    frame = b"\x01" + (3).to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"
    assert Answer(ACK, 10, True).frame(channel=3, base=3) == frame


@given(st.data())
def test_server_acknowledges_exactly_what_was_asked_for(data: Any) -> None:
    book, server = Book(), Server()
    asked: set[int] = set()
    refused: dict[int, bool] = {}
    held: set[int] = set()
    last = 0
    for _ in range(data.draw(st.integers(1, 40))):
        step = data.draw(
            st.sampled_from(["deliver", "deliver", "hold", "ack", "ack", "all", "reject", "flush"])
        )
        if step in ("deliver", "hold"):
            last += 1
            book.delivered(last, last, ours=step == "hold")
            server.open.append(last)
            if step == "hold":
                held.add(last)
        elif step == "flush":
            server.receive(book.take())
        elif last:
            tag = data.draw(st.integers(1, last))
            fresh = tag not in asked and tag not in refused
            if step == "reject":
                book.reject(tag, tag % 2 == 0)
                if fresh:
                    refused[tag] = tag % 2 == 0
            elif step == "ack":
                book.ack(tag)
                if fresh:
                    asked.add(tag)
            else:
                book.ack(tag, multiple=True)
                asked |= {each for each in range(1, tag + 1) if each not in refused and each not in held}
    server.receive(book.take())
    assert sorted(server.acked) == sorted(asked)
    assert server.rejected == [(tag, refused[tag]) for tag, _ in server.rejected]
    assert {tag for tag, _ in server.rejected} == set(refused)
    assert book.take() == []
    assert len(book) == len(server.open)


def test_thread_that_sends_meets_a_program_that_goes_on() -> None:
    book, server = Book(), Server()
    count = 20_000
    server.open = list(range(1, count + 1))
    finished = threading.Event()
    failures: list[BaseException] = []

    def send() -> None:
        try:
            while not finished.is_set():
                server.receive(book.take())
        except BaseException as exc:
            failures.append(exc)

    sender = threading.Thread(target=send)
    sender.start()
    for tag in range(1, count + 1):
        book.delivered(tag, tag)
        if tag % 3:
            book.ack(tag)
    finished.set()
    sender.join()
    assert failures == []
    server.receive(book.take())
    assert server.open == [tag for tag in range(1, count + 1) if not tag % 3]
