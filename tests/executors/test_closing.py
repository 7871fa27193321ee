"""What stands in the metadata of a job that has ended."""

from __future__ import annotations

import json

import pytest

import hermes
from hermes.storage.metadata import Summary

from ..support import Project

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("code", "metrics"),
    [
        ("", {}),
        ("echo nothing of interest", {}),
        (
            "echo loss: 0.5; echo loss: 0.25",
            {"loss": Summary(2, 2, 1.0, 0.25, 0.25, 0.5, 0.375)},
        ),
        (
            "echo score > $1.csv; echo 7 >> $1.csv",
            {"score": Summary(1, 1, 0.0, 7.0, 7.0, 7.0, 7.0)},
        ),
        # JSON has no word for these, and large files are read by the first who asks
        ("echo loss: 1; echo loss: nan", None),
        ("echo loss: inf", None),
        ("echo loss: 1; seq 20000", None),
        ("printf '{\"loss\": 1%0400d}' 0 > $1.json", None),
        ('printf \'{"step": 1%0400d, "loss": 2}\\n\' 0 > $1.jsonl', None),
        ("printf '{\"loss\": [-1%0400d]}' 0 > $1.json", None),
        ("for i in $(seq 60); do echo m$i: 1; done", None),
        ("echo loss: 1; for i in $(seq 201); do : > $1.$i; done", None),
    ],
)
async def test_metrics_are_summed_up_at_the_end(
    project: Project, code: str, metrics: dict[str, Summary] | None
) -> None:
    project.write("job.sh", code)
    await project.run("[[sh, job.sh]]")
    experiment = project.experiment()
    assert experiment.metadata.metrics == metrics
    told = json.loads((experiment.directory / "hermes.json").read_bytes())["metrics"]
    assert (told is None) == (metrics is None)
    found = hermes.experiments(root=project.path)
    assert {*found.metrics} >= {*(metrics or {})}
    if "loss" in code or "$i" in code:
        assert found.metrics


async def test_what_cannot_be_summed_up_costs_no_job_its_end(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError

    monkeypatch.setattr("hermes.query.metrics.files.summed_at_end", fail)
    project.write("job.sh", "echo loss: 1")
    result = await project.run("[[sh, job.sh]]")
    assert result.ok
    assert project.experiment().metadata.metrics is None
