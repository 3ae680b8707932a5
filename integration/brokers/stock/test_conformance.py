"""Amazon SQS and the suite that every transport runs."""

from __future__ import annotations

from typing import Any

import pytest

from qbrokers.testing import Target, TransportConformance

# kombu's HTTP client uses deprecated calls of pycurl.
pytestmark = pytest.mark.filterwarnings("ignore:(socket_all|IOCTLFUNCTION) is deprecated:DeprecationWarning")

LACKS = frozenset(
    {
        "batches", "broadcast", "count header", "delays", "delivery count", "large bodies", "multiple", "priority",
        "renewal", "shared bindings", "topics",
    }
)  # fmt: skip


def lease(seconds: float) -> dict[str, Any]:
    return {"visibility_timeout": int(seconds)}


class TestSQS(TransportConformance):
    @pytest.fixture
    def target(self, sqs_url: str) -> Target:
        options = {
            "is_secure": False,
            "region": "us-east-1",
            "wait_time_seconds": 1,
            "polling_interval": 0.02,
        }
        return Target(sqs_url, "qbrokers.sqs:Transport", options, lacks=LACKS, lease=lease)
