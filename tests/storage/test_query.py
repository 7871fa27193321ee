"""Experiments are read back from their directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import hermes
from hermes import HermesError, Status
from hermes.model import Options, Problem, ProblemKind
from hermes.storage.metadata import StoredFile, now
from hermes.storage.query import experiments_named

from .conftest import Lab, a_job


def test_an_experiment_tells_what_stands_in_its_directory(lab: Lab) -> None:
    with lab.experiment(a_job("-x", options=Options(comments=("one",)))) as begun:
        problem = Problem(ProblemKind.NOT_COPIED, "text")
        file = StoredFile("a", 1, "collected")
        begun.metadata.start, begun.metadata.end, begun.metadata.duration = now(), now(), 0.5
        begun.metadata.status, begun.metadata.exit_code = Status.FAILED, 3
        begun.metadata.files.append(file)
        begun.add_problem(problem)
        begun.write(sync=False)
        os.write(begun.logs[0], b"out \xff\r\n")
        os.write(begun.logs[1], b"err")
        found = hermes.load_experiment(begun.directory)
    assert found.directory == Path(begun.directory)
    assert (found.identifier, found.name, found.script) == (begun.identifier, "test", "job.sh")
    assert (found.status, found.exit_code, found.signal) == (Status.FAILED, 3, None)
    assert (found.argv, found.arguments, found.comments) == (begun.argv, ("-x",), ("one",))
    assert (found.problems, found.files) == ((problem,), (file,))
    assert (found.start, found.end) == (begun.metadata.start, begun.metadata.end)
    assert found.duration == 0.5
    assert (found.stdout, found.stderr) == ("out \N{REPLACEMENT CHARACTER}\r\n", "err")
    assert found.metadata == begun.metadata


def test_a_log_that_is_gone_is_empty_and_a_fifo_in_its_place_is_not_waited_for(lab: Lab) -> None:
    with lab.experiment() as begun:
        os.unlink(f"{begun.directory}/stdout.log")
        os.unlink(f"{begun.directory}/stderr.log")
        os.mkfifo(f"{begun.directory}/stderr.log")
        found = hermes.load_experiment(begun.directory)
        assert found.stdout == ""
        with pytest.raises(OSError, match="not a regular file"):
            _ = found.stderr


def test_a_folder_that_is_no_experiment_is_an_error(lab: Lab) -> None:
    with pytest.raises(HermesError, match="is no experiment directory"):
        hermes.load_experiment(lab.path)
    with pytest.raises(HermesError, match="is no experiment directory"):
        hermes.load_experiment(lab.path / "gone")


def test_experiments_of_a_name_come_from_all_scripts_and_runs_in_order(lab: Lab) -> None:
    made = []
    for script, name in [("b.sh", "n[1]"), ("a.sh", "n[1]"), ("a.sh", "n1"), ("b.sh", "n[1]")]:
        run = lab.run(name=name)
        experiment = run.experiment(a_job(script=script), "key")
        experiment.close_logs()
        run.close(done=True)
        if name == "n[1]":
            made.append(experiment.directory)
    assert [directory for directory, _ in experiments_named(str(lab.experiments), "n[1]")] == made
    # What cannot be read is passed over
    Path(made[0], "hermes.json").write_text("torn")
    found = dict(experiments_named(str(lab.experiments), "n[1]"))
    assert list(found) == made[1:]
    assert all(Path(path).name == metadata.identifier for path, metadata in found.items())
