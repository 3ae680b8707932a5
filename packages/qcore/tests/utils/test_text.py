"""Masking of secrets, and small text helpers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcore.utils import text


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("amqp://me:secret@host:5672//", "amqp://me:**@host:5672//"),
        ("redis://:secret@host/0", "redis://:**@host/0"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("amqp://me:se/c@ret@host//", "amqp://me:**@host//"),
        ("amqp://a:secret@h1//;amqp://b:secret@h2//", "amqp://a:**@h1//;amqp://b:**@h2//"),
        ("redis://h/0?password=secret&x=1", "redis://h/0?password=**&x=1"),
        ("redis://h?ssl_keyfile_password=secret", "redis://h?ssl_keyfile_password=**"),
        ("no url at all", "no url at all"),
    ],
)
def test_passwords_are_masked(url, masked):
    assert text.mask_url(url) == masked


@given(
    st.text(
        alphabet=st.characters(exclude_characters=" ;,\t\n\r@/:*?&", exclude_categories=["Z", "C"]),
        min_size=4,
    )
)
def test_no_password_remains(password):
    assert f":{password}@" not in text.mask_url(f"amqp://user:{password}@host:5672/vhost")


@given(st.text(), st.integers(min_value=3, max_value=50))
def test_shortened_text_fits(value, limit):
    assert len(text.shorten(value, limit)) <= limit


def test_columns_are_aligned():
    assert text.columns([["a", "bb"], ["ccc", "d"]]) == "a    bb\nccc  d"
    assert text.columns([]) == ""


def test_plurals():
    assert text.pluralize(1, "task") == "task"
    assert text.pluralize(2, "task") == "tasks"
    assert text.pluralize(0, "entry", "entries") == "entries"


def test_pretty_is_limited():
    assert text.pretty(list(range(100)), lines=2).endswith("...")


def test_other_helpers():
    assert text.first_line("\n  a\nb") == "a"
    assert text.first_line("") == ""
    assert text.indent("a\nb", 2) == "  a\n  b"
    assert text.dedent("\n   a\n   b\n") == "a\nb"
    assert text.listing(["a", "b"]) == "a, b"
    assert text.listing([]) == "none"
