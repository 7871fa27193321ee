"""What the program on a node finds out there."""

from __future__ import annotations

import os

import pytest

from hermes.executors.slurm.node import allocated_gpus

from ...storage.conftest import git
from ...support import Desk, until
from .clients import WAIT, check_once, started, sweep
from .cluster import Cluster


@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({}, None),
        # Of the terminal in which it was submitted
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, None),
        ({"SLURM_JOB_GPUS": "", "CUDA_VISIBLE_DEVICES": "0"}, None),
        ({"SLURM_JOB_GPUS": "4,6", "CUDA_VISIBLE_DEVICES": "0,1"}, ("0", "1")),
        ({"SLURM_JOB_GPUS": "4", "CUDA_VISIBLE_DEVICES": "MIG-5"}, ("MIG-5",)),
        ({"SLURM_JOB_GPUS": "4", "ROCR_VISIBLE_DEVICES": "0"}, ("0",)),
        ({"SLURM_JOB_GPUS": "4,6"}, ("4", "6")),
    ],
)
def test_gpus_are_those_of_the_allocation(
    environment: dict[str, str], gpus: tuple[str, ...] | None
) -> None:
    assert allocated_gpus(environment) == gpus


@pytest.mark.cluster
def test_gpus_of_the_allocation_are_told_and_left_as_slurm_has_set_them(
    desk: Desk, cluster: Cluster
) -> None:
    desk.write("job.sh", 'echo "$3 $CUDA_VISIBLE_DEVICES $HIP_VISIBLE_DEVICES $HERMES_GPU_CLAIM."')
    sweep(desk, 1, extra="{gpus}")
    given = {"SLURM_JOB_GPUS": "4,6", "CUDA_VISIBLE_DEVICES": "0,1"}
    told = desk.hermes("exec", "-f", "x.hermes", "--json", env=given).stdout
    assert '"gpus":["0","1"]' in told.replace(" ", "")
    experiment = desk.experiment()
    assert experiment.metadata.gpus == ("0", "1")
    assert experiment.stdout == "0,1 0,1  .\n"


@pytest.mark.cluster
def test_a_job_tells_the_code_that_it_found_when_it_started(desk: Desk, cluster: Cluster) -> None:
    git(desk.path, "init", "--quiet")
    desk.write("hold0", "")
    sweep(desk, 2, threads=1)

    def commit() -> str:
        git(desk.path, "add", "job.sh")
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        git(desk.path, *who, "commit", "--quiet", "--message", "one more")
        return git(desk.path, "rev-parse", "HEAD").strip()

    commits = [commit()]
    with desk.started("exec", "-f", "x.hermes") as client:
        until(lambda: started(desk) == ["0"])
        # Until git has answered: what is changed before that may be told
        until(lambda: desk.experiments()[0].metadata.git.dirty is not None)
        script = desk.path / "job.sh"
        script.write_text(f"# changed\n{script.read_text()}")
        commits.append(commit())
        script.write_text(f"# again\n{script.read_text()}")
        (desk.path / "hold0").unlink()
        client.communicate(timeout=WAIT)
    first, second = desk.experiments()
    assert [each.metadata.git.commit for each in (first, second)] == commits
    assert [each.metadata.git.dirty for each in (first, second)] == [False, True]
    assert "+# again" in (second.directory / "uncommitted.patch").read_text()


ONCE = """\
import os, sys
if "SLURM_ARRAY_TASK_ID" in os.environ and "executors.slurm.node" in str(sys.orig_argv):
    try:
        os.unlink("broken")
    except FileNotFoundError:
        pass
    else:
        print("slurmstepd-n1: error: rmdir(/spool): No such file", file=sys.stderr, flush=True)
        os._exit(1)
"""
"""Slurm fails to start one task, as after a restart of its controller."""


@pytest.mark.cluster
def test_a_job_that_slurm_could_not_start_is_tried_again_once(desk: Desk, cluster: Cluster) -> None:
    desk.write("sitecustomize.py", ONCE)
    desk.write("broken")
    sweep(desk, 2)
    path = os.pathsep.join(filter(None, [str(desk.path), os.environ.get("PYTHONPATH")]))
    told = desk.hermes("exec", "-f", "x.hermes", env={"PYTHONPATH": path}, timeout=WAIT).stderr
    assert "Slurm could not start a job, trying again: slurmstepd-n1: error: rmdir" in told
    check_once(desk, 2)
