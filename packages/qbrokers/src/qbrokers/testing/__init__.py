"""What every transport of qbrokers must do, as tests: subclass `TransportConformance` and give it a target.

    from qbrokers.testing import Target, TransportConformance

    class TestMyTransport(TransportConformance):
        @pytest.fixture
        def target(self, tmp_path):
            return Target("sqlite:///" + str(tmp_path / "broker.db"), "qbrokers.sqlite:Transport")

It needs pytest, and takes about ten seconds.
"""

from .batches import BatchConformance
from .consuming import ConsumingConformance
from .harness import CAPABILITIES, Target, collect, drain_until, is_silent
from .loop import LoopConformance
from .recovery import RecoveryConformance
from .routing import RoutingConformance


class TransportConformance(
    ConsumingConformance, RoutingConformance, BatchConformance, RecoveryConformance, LoopConformance
):
    """The whole suite."""


__all__ = [
    "CAPABILITIES",
    "BatchConformance",
    "ConsumingConformance",
    "LoopConformance",
    "RecoveryConformance",
    "RoutingConformance",
    "Target",
    "TransportConformance",
    "collect",
    "drain_until",
    "is_silent",
]
