"""Limited `repr` (N-019, N-162, 4ARG-07, W4-14)."""

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcore.utils.saferepr import saferepr

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(plain)
def test_small_values_read_like_repr(value):
    assert saferepr(value, maxlen=None, maxlevels=100) == repr(value)


@given(plain, st.integers(min_value=0, max_value=60))
def test_the_text_is_never_longer_than_asked_for(value, maxlen):
    assert len(saferepr(value, maxlen=maxlen)) <= maxlen


@pytest.mark.parametrize(
    "value", [(1,), (), set(), frozenset(), frozenset({1}), {1: "a"}, "it's", b"\xff", Decimal("1.5"), 1 + 2j]
)
def test_forms_of_builtin_types(value):
    assert saferepr(value) == repr(value)


def test_nesting_is_cut():
    assert saferepr([[[[[1]]]]], maxlevels=3) == "[[[[...]]]]"
    assert saferepr({"a": {"b": {"c": {"d": 1}}}}, maxlevels=1) == "{'a': {'b': ...}}"


def test_long_containers_are_cut():
    assert saferepr(list(range(1000)), maxlen=20).endswith("...")


def test_long_text_keeps_its_quotes_inside_a_short_limit():
    assert saferepr(["x" * 100, 1], maxlen=200) == f"['{'x' * 100}', 1]"


def test_recursive_containers_end():
    loop = []
    loop.append(loop)
    assert saferepr(loop) == "[<recursion on list>]"
    nested = {}
    nested["me"] = nested
    assert saferepr(nested) == "{'me': <recursion on dict>}"


def test_the_same_object_twice_is_no_recursion():
    inner = [1]
    assert saferepr([inner, inner]) == "[[1], [1]]"


class Broken:
    def __repr__(self):
        raise ValueError("no")


class VeryBroken:
    def __repr__(self):
        class Bad(Exception):
            def __str__(self):
                raise RuntimeError

        raise Bad


@pytest.mark.parametrize("value", [Broken(), VeryBroken()])
def test_objects_that_cannot_show_themselves(value):
    assert f"<unrepresentable {type(value).__name__}" in saferepr([value])


def test_integers_beyond_the_limit_of_the_interpreter():
    assert saferepr(10**10_000) == "<int too large to show>"


class Listlike(list):
    def __repr__(self):
        return "<mine>"


def test_subclasses_show_themselves():
    assert saferepr([Listlike([1])]) == "[<mine>]"


def test_huge_values_are_not_represented_as_a_whole():
    huge = {"body": "x" * 50_000_000, "more": [b"y" * 50_000_000]}
    started = time.perf_counter()
    saferepr(huge)
    assert time.perf_counter() - started < 0.1
