"""Frozen code on a real cluster: nodes run the copy, wherever the client is by then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hermes import Status

from ...support import Desk, until
from ...support.frozen import copy_of, entry, prepare, work_on
from .clients import WAIT
from .cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


def test_nodes_run_the_code_with_which_the_run_began(
    desk: Desk, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    prepare(desk)
    desk.hermes_file(entry(desk), settings={"freeze": True, "executor": "slurm", "threads": 1})
    with desk.started("exec", "-f", "x.hermes", "-n", "test") as client:
        until(lambda: (desk.control / "started0").exists())
        copy = copy_of(desk)
        work_on(desk)
        client.kill()
        client.communicate()
    with desk.started("resume") as client:
        (desk.control / "go").touch()
        _, told = client.communicate(timeout=WAIT)
        assert client.returncode == 0, told
    assert len(desk.experiments()) == 3
    for experiment in desk.experiments():
        assert experiment.status is Status.FINISHED
        assert experiment.stdout == f"then then True {copy}\n"
        model = f"model_{experiment.identifier}"
        stored = desk.tree(experiment.directory, own=True)
        assert stored[f"results/{model}"] == stored[model] == "then untracked"
        assert desk.leftovers(experiment.identifier) == []
        metadata = experiment.metadata
        assert (metadata.git.dirty, metadata.working_directory) == (True, str(desk.path))
        patch = Path(experiment.directory, "uncommitted.patch").read_text()
        assert "+VALUE = 'then'" in patch
    assert sorted((desk.path / "all.txt").read_text()) == ["0", "1", "2"]
    assert not copy.parent.exists()
