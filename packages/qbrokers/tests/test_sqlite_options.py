from __future__ import annotations

import os

import pytest

from qbrokers.errors import BadBrokerURL
from qbrokers.sqlite.options import parse


def test_three_slashes_are_a_relative_path() -> None:
    assert parse("sqlite:///a/b.db", {}).path == os.path.abspath("a/b.db")


def test_four_slashes_are_an_absolute_path() -> None:
    assert parse("sqlite:////var/b.db", {}).path == "/var/b.db"


def test_path_may_have_escaped_characters() -> None:
    assert parse("sqlite:////var/a%20b%3F.db", {}).path == "/var/a b?.db"


def test_heartbeat_is_a_third_of_the_lease() -> None:
    assert parse("sqlite:////b.db?lease_seconds=9", {}).beat_seconds == 3


def test_query_wins_over_transport_options() -> None:
    options = parse(
        "sqlite:////b.db?batch_size=5", {"batch_size": 7, "poll_seconds": 2, "visibility_timeout": 3600}
    )
    assert (options.batch_size, options.poll_seconds) == (5, 2)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("sqlite://b.db", "three slashes"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:////b.db?lease_second=3", "did you mean lease_seconds"),
        ("sqlite:////b.db?lease_seconds=soon", "bad value 'soon' of the option lease_seconds"),
        ("sqlite:////b.db?lease_seconds=0", "lease_seconds"),
        ("sqlite:////b.db?lease_seconds=nan", "lease_seconds: it must be a number"),
        ("sqlite:////b.db?busy_timeout_seconds=inf", "busy_timeout_seconds: it must be a number"),
        ("sqlite:////b.db?durability=best", "durability"),
        ("sqlite:////b.db?lease_seconds=1&heartbeat_seconds=2", "smaller"),
    ],
)
def test_bad_url_says_what_to_do(url: str, advice: str) -> None:
    with pytest.raises(BadBrokerURL, match=advice):
        parse(url, {})


def test_misspelt_transport_option_gets_a_suggestion() -> None:
    with pytest.raises(BadBrokerURL, match="did you mean lease_seconds"):
        parse("sqlite:////b.db", {"lease_secnds": 3})
