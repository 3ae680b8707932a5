"""The Redis Cluster transport keeps the contract of all transports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster_support import Cluster

from qbrokers.testing import Target, TransportConformance


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), replicas=False)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


class TestCluster(TransportConformance):
    @pytest.fixture
    def target(self, cluster: Cluster) -> Target:
        return Target(cluster.url, "qbrokers.redis:ClusterTransport")
