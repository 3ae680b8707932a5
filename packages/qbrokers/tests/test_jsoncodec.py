"""JSON for messages: what kombu writes and reads, faster (EX-54, N-036, N-037, W10-10, W10-11)."""

import math
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.utils import json as kombu_json

from qbrokers import jsoncodec

KINDS = ["msgspec", "standard"]

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=25,
)
typed = (
    st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary()
)


def use_standard(monkeypatch):
    monkeypatch.setattr(jsoncodec, "_fast_encode", None)
    monkeypatch.setattr(jsoncodec, "_fast_decode", None)


@pytest.fixture(params=KINDS, autouse=True)
def library(request, monkeypatch):
    if request.param == "standard":
        use_standard(monkeypatch)
    else:
        pytest.importorskip("msgspec")
    return request.param


def check_both_ways(value):
    ours, theirs = jsoncodec.encode(value), kombu_json.dumps(value)
    assert kombu_json.loads(ours) == kombu_json.loads(theirs)
    assert jsoncodec.decode(theirs) == kombu_json.loads(theirs)
    assert jsoncodec.decode(ours) == kombu_json.loads(theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_data_is_read_the_same_by_both(kind, monkeypatch):
    if kind == "standard":
        use_standard(monkeypatch)

    @settings(max_examples=60)
    @given(plain)
    def check(value):
        check_both_ways(value)

    check()


def test_typed_data_is_read_the_same_by_both():
    @settings(max_examples=60)
    @given(st.lists(typed | plain, max_size=4))
    def check(value):
        check_both_ways(value)

    check()


def test_typed_data_comes_back():
    @settings(max_examples=60)
    @given(st.dictionaries(st.text(max_size=3), typed, max_size=4))
    def check(value):
        assert jsoncodec.decode(jsoncodec.encode(value)) == value

    check()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            datetime(2016, 1, 2, tzinfo=UTC),
            {"__type__": "datetime", "__value__": "2016-01-02T00:00:00+00:00"},
        ),
        (date(2016, 1, 2), {"__type__": "date", "__value__": "2016-01-02"}),
        (time(1, 2), {"__type__": "time", "__value__": "01:02:00"}),
        (Decimal("1.5"), {"__type__": "decimal", "__value__": "1.5"}),
        (uuid.UUID(int=5), {"__type__": "uuid", "__value__": {"hex": uuid.UUID(int=5).hex}}),
        (b"ab", {"__type__": "bytes", "__value__": "ab"}),
        (b"\xff", {"__type__": "base64", "__value__": "/w=="}),
    ],
)
def test_type_objects_on_the_wire(value, text):
    import json

    assert json.loads(jsoncodec.encode([value])) == [text]


@pytest.mark.parametrize(
    "value",
    [
        {1: "int key"},
        {None: 1, True: 2, 1.5: 3},
        2**64,
        -(2**70),
        [10**30, 0.1],
        (1, (2, 3)),
        "\ud800",
        "\u2028",
        ["x" * 100_000],
        0.00012345678901234567,
        1e300,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_corner_cases_are_as_in_kombu(value):
    check_both_ways(value)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_survive(value):
    assert jsoncodec.decode(jsoncodec.encode([value])) == [value]


def test_not_a_number_survives():
    assert math.isnan(jsoncodec.decode(jsoncodec.encode([math.nan]))[0])


@pytest.mark.parametrize("digits", [18, 19, 20, 40])
def test_large_integers_stay_exact(digits):
    value = int("9" * digits)
    assert jsoncodec.decode(str(value)) == value
    assert isinstance(jsoncodec.decode(str(value)), int)


class Person:
    def __json__(self):
        return {"first_name": "Ada", "born": date(1815, 12, 10)}


def test_objects_may_say_what_they_are():
    assert jsoncodec.decode(jsoncodec.encode([Person()])) == [
        {"first_name": "Ada", "born": date(1815, 12, 10)}
    ]


class Money:
    def __init__(self, cents):
        self.cents = cents


def test_registered_types(monkeypatch):
    monkeypatch.setattr(kombu_json, "_encoders", dict(kombu_json._encoders))
    monkeypatch.setattr(kombu_json, "_decoders", dict(kombu_json._decoders))
    kombu_json.register_type(Money, "money", lambda money: money.cents, Money)
    assert jsoncodec.decode(jsoncodec.encode({"price": Money(5)}))["price"].cents == 5


class Colour(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value", [Colour.RED, object(), {1, 2}, 1j, {(1, 2): 3}, {Colour.RED: 1}, {date(2026, 1, 1): 2}]
)
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(TypeError):
        jsoncodec.encode([value])


@pytest.mark.parametrize("value", [Level.LOW, Text("x")])
def test_subclasses_are_their_base(value):
    check_both_ways([value])


def test_data_that_contains_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(RecursionError):
        jsoncodec.encode(loop)


@pytest.mark.parametrize(
    "pair",
    [
        {"__type__": "from the future", "__value__": [1]},
        {"__type__": "datetime"},
        {"__type__": "datetime", "__value__": "2026-01-01", "more": 1},
        {"__type__": ["x"], "__value__": 1},
        {"__type__": None, "__value__": 1},
    ],
)
def test_unknown_type_objects_are_kept(pair):
    import json

    assert jsoncodec.decode(json.dumps([pair])) == [pair]


@pytest.mark.parametrize(
    "value", ['{"__type__": "datetime", "__value__": "soon"}', '{"__type__": "uuid", "__value__": 3}']
)
def test_impossible_type_objects_are_refused(value):
    with pytest.raises((ValueError, TypeError)):
        jsoncodec.decode(value)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda raw: raw.decode()])
def test_every_kind_of_buffer_is_read(wrap):
    assert jsoncodec.decode(wrap(b'{"a": [1, "\xc3\xbc"]}')) == {"a": [1, "ü"]}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1,]", b"nul"])
def test_broken_text_is_refused(body):
    with pytest.raises(ValueError):
        jsoncodec.decode(body)


def test_random_bytes_are_read_as_json_reads_them_or_refused():
    import json

    @given(st.binary() | st.text().map(str.encode))
    def check(body):
        try:
            expected = json.loads(body.decode())
        except ValueError:
            with pytest.raises(ValueError):
                jsoncodec.decode(body)
        else:
            assert repr(jsoncodec.decode(body)) == repr(expected)

    check()
