from collections.abc import Callable
from typing import Any

import pytest

from qcore.app import App
from qcore.testing.backends import BackendConformance


class TestMemory(BackendConformance):
    shared = False

    @pytest.fixture
    def make_app(self) -> Callable[..., Any]:
        return lambda **settings: App("conformance", broker="memory://", backend="memory://", **settings)


class TestCompressedMemory(BackendConformance):
    shared = False

    @pytest.fixture
    def make_app(self) -> Callable[..., Any]:
        return lambda **settings: App(
            "conformance",
            broker="memory://",
            backend="memory://",
            **{"result_compression": "zlib", **settings},
        )
