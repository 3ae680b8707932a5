"""Every result store that needs a server runs the suite that the others run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from qcore.app import App
from qcore.testing.backends import BackendConformance


def maker(url: str, **fixed: Any) -> Callable[..., Any]:
    return lambda **settings: App(
        "conformance",
        broker=fixed.get("broker", "memory://"),
        backend=url,
        **{**fixed.get("settings", {}), **settings},
    )


class TestRedis(BackendConformance):
    @pytest.fixture
    def make_app(self, redis_url: str) -> Callable[..., Any]:
        return maker(redis_url)


class TestRedisWithPrefixAndPickle(BackendConformance):
    @pytest.fixture
    def make_app(self, redis_url: str) -> Callable[..., Any]:
        settings = {
            "result_backend_transport_options": {
                "global_keyprefix": f"t{uuid4().hex[:6]}",
                "result_chord_ordered": True,
            },
            "result_serializer": "pickle",
            "result_accept_content": ["json", "pickle"],
            "result_compression": "zlib",
        }
        return maker(redis_url, settings=settings)


class TestPostgreSQL(BackendConformance):
    @pytest.fixture
    def make_app(self, postgresql_url: str) -> Callable[..., Any]:
        return maker(f"db+{postgresql_url}")


class TestMariaDB(BackendConformance):
    @pytest.fixture
    def make_app(self, mariadb_url: str) -> Callable[..., Any]:
        return maker(f"db+{mariadb_url}")
