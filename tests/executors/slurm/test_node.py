"""What the program on a node finds out there."""

from __future__ import annotations

import pytest

from hermes.executors.slurm.node import allocated_gpus

from ...support import Desk
from .clients import sweep
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
