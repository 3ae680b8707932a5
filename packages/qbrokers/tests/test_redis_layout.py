"""Names, options and publishing commands of the Redis transport, without a server."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from qbrokers.errors import BadBrokerURL
from qbrokers.redis.keys import ClusterKeys, Keys
from qbrokers.redis.options import Options
from qbrokers.redis.publishing import Limits, put
from qbrokers.redis.settling import BACK, Settlement, commands

SEP = "\x06\x16"


def message(**properties: Any) -> dict[str, Any]:
    return {"body": "", "headers": {}, "properties": {"delivery_info": {}, "priority": 0, **properties}}


def test_queues_bear_the_names_that_stock_kombu_gives_them() -> None:
    keys = Keys("pre:")
    assert keys.lists("celery") == ["pre:celery", *(f"pre:celery{SEP}{step}" for step in (3, 6, 9))]
    assert keys.list_for("celery", 5) == f"pre:celery{SEP}3"
    assert keys.binding_member("celery", None, "celery") == f"celery{SEP}{SEP}celery"
    assert keys.unacked("") == "pre:unacked"


def test_channels_bear_the_names_that_stock_kombu_gives_them() -> None:
    keys = Keys(fanout_prefix="/0.")
    assert keys.channel("celeryev", "worker.*") == "/0.celeryev/worker.*"
    assert keys.channel("celery.pidbox", "") == "/0.celery.pidbox"
    assert Keys(fanout_patterns=False).channel("celeryev", "worker.*") == "celeryev"


def test_in_a_cluster_all_keys_of_a_queue_share_its_hash_tag() -> None:
    keys = ClusterKeys()
    group = keys.group("q")
    names = [
        *keys.lists("q"),
        keys.delayed("q"),
        keys.dead("q"),
        keys.unacked(group),
        keys.unacked_index(group),
    ]
    names += [keys.owners(group), keys.fence(group, "o")]
    assert all("{q}" in name for name in names)
    assert keys.queue("q.dead") == keys.dead("q"), "what was put aside can be consumed like any queue"


@pytest.mark.parametrize("steps", [[], [3, 0], [0, 0]])
def test_priority_steps_that_make_no_sense_are_refused(steps: list[int]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        Keys(steps=steps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lease_seconds": 0}, "lease_seconds must be a number of seconds above 0, not 0"),
        ({"lease_seconds": "soon"}, "lease_seconds must be"),
        ({"lease_seconds": float("inf")}, "lease_seconds must be"),
        ({"lease_seconds": True}, "lease_seconds must be"),
        ({"lease_seconds": 3, "heartbeat_seconds": 3}, "shorter than"),
        ({"claim_limit": 10_000}, "claim_limit must be a whole number from 1 to 500"),
        ({"claim_limit": 1.5}, "claim_limit must be a whole number"),
        ({"queue_order_strategy": "random"}, "one of round_robin, sorted, priority"),
        ({"highest_priority": 5}, "must be one of 9, 0"),
        ({"visibility_timeout": 0}, "visibility_timeout must be"),
        ({"socket_timeout": -1}, "socket_timeout must be"),
        ({"poll_seconds": -1}, "poll_seconds must be"),
        ({"priority_steps": "0369"}, "priority_steps must be a list"),
        ({"priority_steps": [0, 99]}, "priority_steps must be a list"),
        ({"priority_steps": 5}, "priority_steps must be a list"),
        ({"sep": ""}, "sep must be text that is not empty"),
        ({"global_keyprefix": 5}, "global_keyprefix must be text"),
        ({"fanout_prefix": "{nix}"}, "fanout_prefix must be"),
        ({"fanout_patterns": "maybe"}, "fanout_patterns must be true or false"),
        ({"sentinel_kwargs": 5}, "sentinel_kwargs must be a mapping"),
        ({"wait_replicas": 1, "wait_timeout": 9}, "shorter than"),
        ({"lease_secnds": 3}, "did you mean lease_seconds"),
        ({"visibilty_timeout": 3}, "did you mean visibility_timeout"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadBrokerURL, match=words):
        Options.of(options)


def test_options_may_be_written_as_text() -> None:
    options = Options.of({"lease_seconds": "12", "claim_limit": "5", "fanout_patterns": "no"})
    assert (options.lease_seconds, options.claim_limit, options.fanout_patterns) == (12, 5, False)


def test_options_of_others_are_left_alone_and_none_means_the_default() -> None:
    options = Options.of(
        {"visibility_timeout": 60, "max_retries": 3, "socket_timeout": None, "wait_time_seconds": 5}
    )
    assert (options.visibility_timeout, options.socket_timeout, options.heartbeat) == (60, 8, 10)


def test_one_message_is_one_push() -> None:
    ((name, key, _),) = put(Keys(), "q", message(), None)
    assert (name, key) == (b"LPUSH", "q")


def test_a_message_for_later_goes_to_the_delayed_set() -> None:
    ((name, key, due, member),) = put(Keys(), "q", message(eta_timestamp=4e9, priority=6), None)
    assert (name, key, due) == (b"ZADD", "_qbrokers.delayed.q", 4_000_000_000_000)
    assert member.startswith(b"6:{")


def test_limits_follow_the_push() -> None:
    names = [command[0] for command in put(Keys(), "q", message(), Limits(expires_ms=1000, max_length=5))]
    assert names == [b"LPUSH", b"LTRIM", *[b"PEXPIRE"] * 4]
    assert Limits.of({"x-max-priority": 9}) is None


def test_many_settlements_are_few_commands() -> None:
    settlements = [Settlement(f"o:{i}", "") for i in range(100)]
    settlements += [Settlement(f"o:{i}", "", BACK, "q", 0, b"{}") for i in range(100, 200)]
    made = commands(settlements, Keys())
    assert [command[0] for _, command in made] == [b"HDEL", b"ZREM", b"EVALSHA"]


def test_importing_the_package_imports_neither_kombu_nor_redis() -> None:
    code = "import qbrokers, sys; sys.exit(bool({'kombu', 'redis', 'hiredis'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
