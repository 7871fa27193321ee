"""Desks with a job that waits, and clusters that are found by whatever a test starts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ...support import Desk
from .clients import JOB, use
from .cluster import Cluster


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("job.sh", JOB)
    return desk


@pytest.fixture
def cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster that tests share, for whatever the test starts."""
    use(cluster, monkeypatch)
    return cluster


@pytest.fixture
def own(slurm: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster that a test may harm."""
    with Cluster({"MessageTimeout": "2"}) as cluster:
        use(cluster, monkeypatch)
        yield cluster
