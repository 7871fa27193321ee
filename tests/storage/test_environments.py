"""The Python that executes a job, and its packages."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hermes.model import PLACEHOLDER, Job
from hermes.storage.metadata import Environment, Metadata, Packages, decoded, read_metadata
from hermes.storage.run_folder import RunFolder
from hermes.timing import Timing

from .conftest import Lab, a_job

FAKE = """#!/bin/sh
echo asked >> {counted}
{body}
"""


def a_python_job(*words: str) -> Job:
    """A job of these words, the last of which is the script."""
    return replace(a_job(), argv=(*words, PLACEHOLDER), position=len(words) - 1)


def started(run: RunFolder, job: Job) -> Metadata:
    experiment = run.experiment(job, "key")
    experiment.close_logs()
    experiment.complete()
    experiment.write(sync=False)
    return read_metadata(experiment.directory)


def begun(lab: Lab, *words: str) -> Metadata:
    run = lab.run()
    found = started(run, a_python_job(*words))
    run.close(done=True)
    return found


def packages_of(lab: Lab, environment: Environment | None) -> dict[str, Any]:
    assert environment is not None
    path = lab.experiments / ".hermes/environments" / str(environment.digest) / "environment.json"
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def fake(lab: Lab, body: str, name: str = "bin/python") -> str:
    return str(lab.program(name, FAKE.format(counted=lab.path / "counted", body=body)))


def normal(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def test_packages_are_those_that_the_interpreter_finds(lab: Lab) -> None:
    metadata = begun(lab, sys.executable, "job.sh")
    assert (metadata.program, metadata.python) == (sys.executable, platform.python_version())
    assert metadata.environment is not None
    assert metadata.environment.interpreter == sys.executable
    found = packages_of(lab, metadata.environment)
    assert found["format"] == 1
    assert (found["python"], found["implementation"]) == (metadata.python, "CPython")
    expected = {normal(each.metadata["Name"]): each.version for each in distributions()}
    assert {normal(name): version for name, version in found["packages"].items()} == expected


def test_old_kinds_of_packages_and_those_that_are_found_first(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.write("lib/one-1.0-py3.8.egg-info", "Name: one\nVersion: 1.0\n")
    lab.write("lib/two.egg-info/PKG-INFO", "Metadata-Version: 2.1\nName: two\nVersion: 2.0rc1\n")
    lab.write("lib/three-3.0.egg-info/dependency_links.txt")
    lab.write("lib/anyio-99.dist-info/METADATA")
    lab.write("lib/json.dist-info")
    monkeypatch.setenv("PYTHONPATH", f"{lab.path}/lib:{lab.path}/none")
    found = packages_of(lab, begun(lab, sys.executable, "job.sh").environment)["packages"]
    chosen = {name: found[name] for name in ("one", "two", "three", "anyio", "json")}
    assert chosen == {"one": "1.0", "two": "2.0rc1", "three": "3.0", "anyio": "99", "json": ""}


def test_what_stands_in_the_working_directory_is_not_imported(lab: Lab) -> None:
    for name in ("json", "platform", "io", "os"):
        lab.write(f"{name}.py", f"raise SystemExit('{name}')")
    assert begun(lab, sys.executable, "job.sh").python == platform.python_version()


def test_once_a_run_and_once_for_all_runs_of_the_same_packages(lab: Lab) -> None:
    python = fake(lab, f'exec "{sys.executable}" "$@"')
    run = lab.run()
    jobs = [a_python_job(python, "job.sh"), a_python_job("nice", python, "job.sh")]
    found = [started(run, job).environment for job in jobs * 3]
    run.close(done=True)
    assert (lab.path / "counted").read_text() == "asked\n"
    assert len(set(found)) == 1
    assert begun(lab, python, "job.sh").environment == found[0]
    assert (lab.path / "counted").read_text() == "asked\n" * 2
    assert len(os.listdir(lab.experiments / ".hermes/environments")) == 1


@pytest.mark.parametrize("first", ["#!{python}\n", "#!/usr/bin/env -S python -u\n"])
def test_behind_launchers_and_first_lines(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    (lab.path / "bin").mkdir()
    (lab.path / "bin/python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{lab.path}/bin", prepend=os.pathsep)
    lab.program("bin/torchrun", first.format(python=f"{lab.path}/bin/python"))
    for words in (("nice", "python", "job.sh"), ("env", "A=1", "torchrun", "job.sh")):
        environment = begun(lab, *words).environment
        assert environment is not None
        assert environment.interpreter == f"{lab.path}/bin/python"


@pytest.mark.parametrize("words", [("sh", "job.sh"), ("env", "-i", "sh", "job.sh")])
def test_a_job_without_python(lab: Lab, words: tuple[str, ...]) -> None:
    metadata = begun(lab, *words)
    assert (metadata.python, metadata.environment) == (None, None)
    assert not (lab.experiments / ".hermes/environments").exists()


def test_a_launcher_that_chooses_the_python(lab: Lab) -> None:
    metadata = begun(lab, "conda", "run", "python", "job.sh")
    assert metadata.python is None
    assert metadata.environment == Environment(reason="`conda` chooses the Python")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("exit 3", "does not tell"),
        ("echo Python 2.7.18", "does not tell"),
        ("echo '{\"python\": 3}'", "does not tell"),
        ("printf '\\377'", "does not tell"),
        ("sleep 30 & wait", "longer than 0.3 s"),
    ],
)
def test_an_interpreter_that_is_of_no_use(lab: Lab, body: str, reason: str) -> None:
    python = fake(lab, body)
    lab.timing = Timing(packages=0.3 if "sleep" in body else 10.0)
    began = time.monotonic()
    metadata = begun(lab, python, "job.sh")
    assert time.monotonic() - began < 10
    assert metadata.python is None
    assert metadata.environment is not None
    assert (metadata.environment.interpreter, metadata.environment.digest) == (python, None)
    assert reason in (metadata.environment.reason or "")
    assert metadata.problems == []


def test_packages_that_cannot_be_written(lab: Lab) -> None:
    lab.write("experiments/.hermes/environments", "a file")
    metadata = begun(lab, sys.executable, "job.sh")
    assert metadata.python == platform.python_version()
    assert metadata.environment is not None
    assert "could not be written" in (metadata.environment.reason or "")


def test_experiments_that_a_job_has_moved_are_not_made_again(lab: Lab) -> None:
    python = fake(lab, f'until test -e {lab.path}/moved; do :; done; exec "{sys.executable}" "$@"')
    run = lab.run()
    experiment = run.experiment(a_python_job(python, "job.sh"), "key")
    experiment.close_logs()
    lab.experiments.rename(lab.path / "moved")
    while not experiment.take_in():
        time.sleep(0.01)
    assert "could not be written" in (getattr(experiment.metadata.environment, "reason", "") or "")
    assert not lab.experiments.exists()
    run.close(done=False)


def test_no_start_waits_for_it_and_a_closed_run_ends_it(lab: Lab) -> None:
    python = fake(lab, f"echo $$ > {lab.path}/pid; exec sleep 30")
    run = lab.run()
    began = time.monotonic()
    experiment = run.experiment(a_python_job(python, "job.sh"), "key")
    experiment.close_logs()
    assert time.monotonic() - began < 5
    environment = read_metadata(experiment.directory).environment
    assert environment is not None
    assert "not told" in (environment.reason or "")
    pid = lab.path / "pid"
    while not (pid.exists() and pid.read_text().strip()):
        time.sleep(0.01)
    run.close(done=True)
    while Path(f"/proc/{pid.read_text().strip()}").exists():
        time.sleep(0.01)
    experiment.complete()
    experiment.write(sync=False)
    assert time.monotonic() - began < 10


def test_packages_of_format_1_stay_readable() -> None:
    (path,) = (Path(__file__).parent / "data/format1").glob("**/environment.json")
    found = decoded(path.read_bytes(), Packages, file="environment.json", path=str(path))
    assert (found.python, found.implementation) == ("3.11.7", "CPython")
    assert found.packages == {"numpy": "1.26.4", "typing_extensions": "4.9.0"}
