"""Envelopes on their way in and out, without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.json import loads as kombu_loads

from qbrokers import jsoncodec
from qbrokers.redis import messages, settling
from qbrokers.redis.options import Options

TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def envelope(**headers: Any) -> dict[str, Any]:
    return {
        "body": "e30=",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "q"},
            "body_encoding": "base64",
            "priority": 0,
        },
    }


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_what_is_encoded_is_decoded_again_and_stock_kombu_reads_it(value: dict[str, Any]) -> None:
    raw = jsoncodec.encode(value)
    assert jsoncodec.decode(raw) == value
    if "__type__" not in raw.decode():
        assert kombu_loads(raw.decode()) == value


def test_values_json_has_no_word_for_are_written_as_kombu_writes_them() -> None:
    value = {"at": datetime(2026, 1, 2, tzinfo=UTC), "id": UUID(int=7), "raw": b"\xff", "big": 2**70}
    raw = jsoncodec.encode(value)
    assert json.loads(raw)["id"]["__type__"] == "uuid"
    assert jsoncodec.decode(raw) == value


def test_a_first_delivery_has_count_zero_and_is_not_redelivered() -> None:
    opened = messages.open_envelope(jsoncodec.encode(envelope()))
    assert opened["headers"]["x-delivery-count"] == 0
    assert opened["properties"]["delivery_info"]["redelivered"] is False


def test_each_counted_return_adds_one_and_an_uncounted_one_changes_nothing() -> None:
    raw = jsoncodec.encode(envelope(task="t"))
    once, _ = messages.returned(raw, counted=True)
    twice, _ = messages.returned(once, counted=True)
    opened = messages.open_envelope(twice)
    assert opened["headers"] == {"task": "t", "x-delivery-count": 2, "redelivered": True}
    assert opened["properties"]["delivery_info"]["redelivered"] is True
    assert messages.returned(twice, counted=False)[0] == twice


def test_a_message_that_stock_restored_counts_as_delivered_once() -> None:
    sent = envelope(redelivered=True)
    assert messages.open_envelope(jsoncodec.encode(sent))["headers"]["x-delivery-count"] == 1


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"[]", b'"text"', b"{}", b'{"properties": 1}', b'{"body": NaN']
)
def test_what_is_no_envelope_is_refused(raw: bytes) -> None:
    with pytest.raises(messages.BadEnvelope):
        messages.open_envelope(raw)


def test_priorities_of_our_api_fall_on_stock_steps_in_the_right_order() -> None:
    numbers = []
    for priority in range(10):
        properties: dict[str, Any] = {}
        messages.mark_priority(properties, priority, Options())
        numbers.append(properties["priority"])
    assert numbers[0] == 0, "a normal message looks like one of a stock client"
    assert numbers[1:] == [9, 9, 9, 8, 7, 6, 5, 4, 3]


def test_a_priority_comes_back_as_it_was_given_and_stock_numbers_stay() -> None:
    sent = envelope()
    messages.mark_priority(sent["properties"], 7, Options())
    assert messages.open_envelope(jsoncodec.encode(sent))["properties"]["priority"] == 7
    stock = envelope()
    stock["properties"]["priority"] = 6
    assert messages.open_envelope(jsoncodec.encode(stock))["properties"]["priority"] == 6


def test_kombus_own_meaning_of_priorities_can_be_kept() -> None:
    properties: dict[str, Any] = {}
    messages.mark_priority(properties, 6, Options(highest_priority=0))
    assert properties == {"priority": 6}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"eta": "2026-01-02T03:04:05+00:00"}, 1767323045.0),
        ({"eta": "2026-01-02T03:04:05"}, 1767323045.0),
        ({"eta": "2026-01-02T04:04:05+01:00"}, 1767323045.0),
        ({"eta": "soon"}, None),
        ({"eta": None}, None),
        ({}, None),
    ],
)
def test_eta_is_read_as_celery_writes_it(headers: dict[str, Any], expected: float | None) -> None:
    assert messages.eta_of(envelope(**headers)) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (b'[{"a": 1},"","celery"]', (b'{"a": 1}', "", "celery")),
        (b'[{"a": 1}, "news", "usa.#"]', (b'{"a": 1}', "news", "usa.#")),
        (b'[\xff garbage","","q\\"u"]', (b'\xff garbage"', "", 'q"u')),
        (b'[{"a": ","},"",""]', (b'{"a": ","}', "", "")),
    ],
)
def test_an_entry_of_the_books_is_split_from_its_end(entry: bytes, expected: tuple[bytes, str, str]) -> None:
    assert settling._split(entry) == expected
