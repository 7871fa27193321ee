"""Whole runs as programs call them: what is refused, what is told afterwards, and what remains."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import hermes
from hermes import HermesError, JobStarted, Status
from hermes.executors.base import OpenRun, Slot, Todo
from hermes.executors.local import LocalExecutor, LocalPlace
from hermes.executors.local_job import LocalJob
from hermes.storage import provenance, run_folder
from hermes.storage.identifiers import Clock

from .support import IDENTIFIER, Project, is_alive
from .support.jobs import TELL, told

pytestmark = pytest.mark.anyio


# Identifiers


async def test_identifiers_have_the_form_and_name_the_directories(project: Project) -> None:
    project.write("job.sh", 'printf %s "$1"')
    before = datetime.now()
    result = await project.run(*["[[sh, job.sh]]"] * 4, threads=2)
    after = datetime.now()
    identifiers = [outcome.identifier for outcome in result.outcomes]
    assert len(set(identifiers)) == 4
    for outcome in result.outcomes:
        assert IDENTIFIER.fullmatch(outcome.identifier)
        assert outcome.identifier.endswith("_00000")
        assert before <= datetime.strptime(outcome.identifier[:23], "%Y_%m_%d_%H%M%S%f") <= after
        assert outcome.directory == str(
            project.experiments_folder / "job.sh" / "test" / outcome.identifier
        )
        assert (Path(outcome.directory) / "stdout.log").read_text() == outcome.identifier


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    "step",
    [timedelta(), timedelta(microseconds=-1), timedelta(minutes=-10), timedelta(days=-1)],
    ids=str,
)
async def test_identifiers_are_unique_when_the_clock_steps_back(
    project: Project, monkeypatch: pytest.MonkeyPatch, step: timedelta
) -> None:
    class Stepping(datetime):
        last = datetime.now()

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            cls.last += step
            return cls.last

    monkeypatch.setattr(run_folder, "Clock", partial(Clock, now=Stepping.now))
    project.write("job.sh", ': > "a_$1"')
    result = await project.run(*["[[sh, job.sh]]"] * 6, threads=2)
    assert result.ok
    assert len({outcome.identifier for outcome in result.outcomes}) == 6
    assert all(
        IDENTIFIER.fullmatch(outcome.identifier) and outcome.duration >= 0
        for outcome in result.outcomes
    )
    assert all(
        [file.path for file in experiment.files] == [f"a_{experiment.identifier}"]
        for experiment in project.experiments()
    )


@pytest.mark.fault(17)
def test_eight_processes_at_the_same_instant(make_project: Callable[[str], Project]) -> None:
    project = make_project("shared")
    project.write(
        "job.sh", 'printf %s "$1" > "made_$1"; mkdir "dir_$1"; printf %s "$1" > "dir_$1/inside"'
    )
    path = project.hermes_file(*["[[sh, job.sh]]"] * 5, settings={"threads": 2})
    program = f"""\
import sys, anyio, hermes
from hermes.run import runner
print(flush=True)
sys.stdin.read()
result = anyio.run(hermes.run_file, {str(path)!r}, "test", backend=sys.argv[1])
sys.exit(0 if result.ok and len(result.outcomes) == 5 else result)
"""
    runners = [
        subprocess.Popen(
            [sys.executable, "-c", program, ("asyncio", "trio")[number % 2]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=project.path,
        )
        for number in range(8)
    ]  # fmt: skip
    for runner in runners:
        assert runner.stdout is not None
        runner.stdout.readline()
    for runner in runners:
        assert runner.stdin is not None
        runner.stdin.close()
    for runner in runners:
        assert runner.stdout is not None
        with runner.stdout:
            assert runner.stdout.read() == b""
        assert runner.wait() == 0
    experiments = project.experiments()
    assert len({experiment.identifier for experiment in experiments}) == len(experiments) == 40
    for experiment in experiments:
        own = experiment.identifier
        assert project.tree(experiment.directory, own=True) == {
            f"made_{own}": own,
            f"dir_{own}": "/",
            f"dir_{own}/inside": own,
        }
    assert {path.name for path in project.path.iterdir()} == {"experiments", "job.sh", "x.hermes"}


async def test_nothing_of_what_a_run_needed_for_itself_remains(project: Project) -> None:
    project.write("job.sh", "")
    assert (await project.run("[[sh, job.sh]]")).ok
    assert [path.name for path in (project.experiments_folder / ".hermes").iterdir()] == ["clock"]


@pytest.mark.fault(19)
async def test_what_is_missing_is_told_before_anything_starts(project: Project) -> None:
    project.write("there.sh", "")
    with pytest.raises(HermesError) as caught:
        await project.run(
            "[[no_such_program, x]]", "[[sh, missing.sh]]", "[[sh, there.sh],[-cb missing.txt]]"
        )
    assert "no_such_program" in str(caught.value)
    assert "missing.sh" in str(caught.value)
    assert "missing.txt" in str(caught.value)
    assert not project.experiments_folder.exists()


# The metadata


async def test_metadata_tells_everything(project: Project) -> None:
    project.write("extra.txt", "123")
    project.write("late.txt", "1234")
    project.write("moved.txt", "12345")
    project.write("job.sh", 'printf 123456 > "made_$1"; exit 3')
    options = "-cb extra.txt, -ca late.txt, -ma moved.txt, -ca gone.txt, -c 'one: two', -l false"
    entry = f"[[sh, job.sh, -lr 0.1],[{options}]]"
    result = await project.run(
        entry, settings={"threads": 2}, arguments="-gamma 0.9", comments=["three"]
    )
    (outcome,) = result.outcomes
    assert outcome.directory is not None
    path = project.path / "x.hermes"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    data = json.loads(Path(outcome.directory, "hermes.json").read_bytes())
    start, end = (datetime.fromisoformat(data.pop(name)) for name in ("start", "end"))
    assert start.utcoffset() == end.utcoffset() == datetime.now().astimezone().utcoffset()
    assert start <= end
    assert 0 < data.pop("duration") == outcome.duration
    assert isinstance(data.pop("pid"), int)
    assert re.fullmatch(r"[0-9a-f]{32,}", data.pop("key"))
    assert isinstance(data.pop("boot_id"), str)
    assert data.pop("host") == os.uname().nodename
    assert data.pop("user")
    versions = data.pop("versions")
    assert versions["hermes"] == hermes.__version__
    assert os.path.basename(data.pop("program")) == "sh"
    assert versions["python"] == sys.version.split()[0]
    data.pop("pid_start", None)
    assert data == {
        "format": 1,
        "identifier": outcome.identifier,
        "rerun_of": None,
        "run_id": result.run_id,
        "name": "test",
        "script": "job.sh",
        "argv": ["sh", "job.sh", outcome.identifier, "-gamma", "0.9", "-lr", "0.1"],
        "arguments": ["-gamma", "0.9", "-lr", "0.1"],
        "parameters": {},
        "template": [],
        "python": None,
        "environment": None,
        "slot": 0,
        "gpus": None,
        "options": {
            "copy_before": ["extra.txt"], "copy_after": ["late.txt", "gone.txt"],
            "move_after": ["moved.txt"], "log": False,
            "comments": ["one: two", "three"], "slurm": [], "timeout": None,
            "retries": None, "gpus": None,
        },
        "comments": ["one: two", "three"],
        "working_directory": str(project.path),
        "root": str(project.path),
        "hermes_file": {"path": str(path), "line": 6, "sha256": sha256},
        "settings": {
            "threads": 2, "path_to_experiments": ".", "supervise": True, "identifier": "argument",
            "cwd": "here", "timeout": None, "grace": 10.0, "retries": 0, "max_failures": None,
            "gpus": None, "jobs_per_gpu": 1, "gpu_free": None, "env": [], "freeze": False,
            "notify": None, "executor": "local", "slurm": "", "seed": 0,
        },
        "git": {"commit": None, "branch": None, "dirty": None, "reason": "not a git repository"},
        "frozen": None,
        "status": "failed",
        "exit_code": 3,
        "signal": None,
        "attempts": 1,
        "restarts": 0,
        "files": [
            {"path": "extra.txt", "bytes": 3, "origin": "copied-before"},
            {"path": "late.txt", "bytes": 4, "origin": "copied-after"},
            {"path": "moved.txt", "bytes": 5, "origin": "moved"},
            {"path": f"made_{outcome.identifier}", "bytes": 6, "origin": "collected"},
        ],
        "metrics": {},
        "problems": [{"kind": "not-copied", "text": "`-ca gone.txt`: no such file or directory"}],
        "slurm": None,
    }  # fmt: skip
    assert tuple(map(str, outcome.problems)) == ("`-ca gone.txt`: no such file or directory",)


async def test_a_running_job_has_metadata(project: Project) -> None:
    async with project.puppet() as job:
        experiment = await project.until(lambda: _with_process(job.directory))
        assert experiment.status is Status.RUNNING
        assert (experiment.exit_code, experiment.signal, experiment.end, experiment.duration) == (
            None,
            None,
            None,
            None,
        )
        assert experiment.metadata.pid is not None
        assert is_alive(experiment.metadata.pid)
        assert experiment.start is not None
        assert experiment.metadata.pid_start == provenance.process_start(experiment.metadata.pid)
        assert experiment.metadata.boot_id == provenance.boot_id()
    assert hermes.load_experiment(job.directory).status is Status.FINISHED


def _with_process(directory: Path) -> hermes.Experiment | None:
    experiment = hermes.load_experiment(directory)
    return experiment if experiment.metadata.pid_start is not None else None


async def test_metadata_parses_at_every_moment(project: Project) -> None:
    stop, states, torn = threading.Event(), set[str](), list[str]()

    def read() -> None:
        while not stop.is_set():
            for path in project.experiments_folder.glob("job.sh/*/*/hermes.json"):
                text = path.read_bytes()
                try:
                    states.add(json.loads(text)["status"])
                except ValueError as exc:
                    torn.append(f"{exc}: {text!r}")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        project.write("job.sh", "sleep 0.06")
        result = await project.run(*["[[sh, job.sh]]"] * 8, threads=4)
    finally:
        stop.set()
        reader.join()
    assert result.ok
    assert torn == []
    assert states <= {"running", "finished"}


async def test_the_key_tells_what_a_job_is(project: Project) -> None:
    project.write("job.sh", "")
    entries = [
        "[[sh, job.sh, 1]]",
        "[[sh, job.sh, 1]]",
        "[[sh, job.sh, 2]]",
        "[[sh, job.sh, 1],[-ca job.sh]]",
    ]
    await project.run(*entries, name="a")
    await project.run(*entries, name="b", comments=["another comment"])
    keys = [experiment.metadata.key for experiment in project.experiments()]
    assert keys[:4] == keys[4:]
    assert len(set(keys)) == 4


async def test_re_execution_runs_the_job_again(project: Project) -> None:
    project.write("tell.py", TELL)
    project.write("kept.txt", "kept")
    words = ["{a}", "[64,64]", "a, b", "#no comment", "it's", '"', "", "EXEC", "ü\N{ROCKET}", "//x"]
    entry = (
        f"[[{project.PYTHON}, tell.py, {' '.join(map(hermes.quote, words))}],[-ca kept.txt, -c 'a, "
        f"b', -l false]]"
    )
    assert (
        await project.run(
            entry, arguments="--std 'x y'", settings={"threads": 3, "supervise": "false"}
        )
    ).ok
    first = project.experiment()
    again = first.directory / "re_execution.hermes"
    assert (
        await hermes.run_file(again, "again", working_directory=project.path, root=project.path)
    ).ok
    first, second = project.experiments()
    assert second.name == "again"
    assert [word.replace(second.identifier, first.identifier) for word in second.argv] == list(
        first.argv
    )
    assert told(second)["argv"][2:] == told(first)["argv"][2:] == ["--std", "x y", *words]
    for field in ("settings", "options", "comments", "script", "key"):
        assert getattr(second.metadata, field) == getattr(first.metadata, field)
    assert (second.directory / "kept.txt").read_text() == "kept"
    # And that of the second says the same again
    assert (second.directory / "re_execution.hermes").read_bytes() == again.read_bytes()


async def test_experiments_that_are_no_folder(project: Project) -> None:
    project.write("job.sh", "echo never > executed")
    project.write("experiments", "mine")
    with pytest.raises(HermesError, match="experiments"):
        await project.run("[[sh, job.sh]]")
    assert project.tree(project.path).keys() == {"job.sh", "experiments", "x.hermes"}
    assert (project.path / "experiments").read_text() == "mine"


@pytest.mark.fault(23)
async def test_no_thread_or_descriptor_remains(project: Project) -> None:
    project.write("job.sh", ': > "a_$1"')
    await project.run("[[sh, job.sh]]")
    gc.collect()
    threads, descriptors = threading.active_count(), _descriptors()
    for _ in range(3):
        assert (await project.run(*["[[sh, job.sh]]"] * 2, threads=2)).ok
    gc.collect()
    # Notifications are closed by a thread of their own
    await project.until(lambda: _descriptors() <= descriptors)
    # Worker threads that idle belong to the event loop, which uses them again
    assert threading.active_count() <= threads + 4
    assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))


async def test_a_plan_can_be_run(project: Project) -> None:
    project.write("job.sh", "echo $2")
    plan = hermes.compile_command(
        "sh job.sh {identifier} hello", working_directory=project.path, root=project.path
    )
    async with hermes.open_run(plan) as run:
        started = [event async for event in run if isinstance(event, JobStarted)]
    assert run.result.ok
    assert [event.argv[-1] for event in started] == ["hello"]
    assert project.experiment().stdout == "hello\n"
    assert project.experiment().name == run.name


async def test_the_host_is_left_alone(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    project.write("job.sh", "echo out; echo err >&2")
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    }
    mask, directory, environment = os.umask(0o027), Path.cwd(), dict(os.environ)
    try:
        async with project.open("[[sh, job.sh],[-l false]]") as run:
            assert {number: signal.getsignal(number) for number in handlers} == handlers
            async for _ in run:
                assert Path.cwd() == directory
    finally:
        assert os.umask(mask) == 0o027
    assert run.result.ok
    assert dict(os.environ) == environment
    assert capfd.readouterr() == ("", "")


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/x", "x" * 256, "a\nb", "\x1b[31m"]
)
async def test_unusable_names_are_refused(project: Project, name: str) -> None:
    project.write("job.sh", "")
    before = project.tree(project.path.parent).keys() | {"project/x.hermes"}
    with pytest.raises(HermesError):
        await project.run("[[sh, job.sh]]", name=name)
    assert project.tree(project.path.parent).keys() == before


async def test_what_a_plan_has_already_is_refused_beside_it(project: Project) -> None:
    project.write("job.sh", "")
    plan = hermes.compile_command("sh job.sh", working_directory=project.path, root=project.path)
    with pytest.raises(TypeError, match="give `comments`, `threads` to `compile_file`"):
        await hermes.run_file(plan, comments=["lost"], threads=2)
    assert (await hermes.run_file(plan)).ok


@pytest.mark.parametrize("name", ["ü \N{ROCKET}", "-n", "a b", "x" * 255, "'\"$(x)", "[red]"])
async def test_usable_names_are_used(project: Project, name: str) -> None:
    project.write("job.sh", "")
    assert (await project.run("[[sh, job.sh]]", name=name)).ok
    assert project.experiment().name == name
    assert project.experiment().directory.parent.name == name


async def test_cancel_before_the_first_job(endless: Project) -> None:
    async with endless.open("[[sh, stubborn.sh]]") as run:
        run.cancel()
    assert run.result.cancelled
    assert run.result.outcomes == ()
    assert not run.result.ok
    assert endless.experiments() == []


async def test_two_runs_in_one_loop(project: Project) -> None:
    project.write(
        "job.sh",
        'printf %s "$1" > "made_$1"; : > "here_$3"; while [ ! -e "here_$2" ]; do sleep 0.01; done',
    )
    # Each waits for the other: they go on at the same time
    one = project.hermes_file("[[sh, job.sh, a b]]", name="one")
    two = project.hermes_file("[[sh, job.sh, b a]]", name="two")
    results = []

    async def run(path: Path) -> None:
        results.append(
            await hermes.run_file(path, working_directory=project.path, root=project.path)
        )

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, one)
            tasks.start_soon(run, two)
    assert all(result.ok for result in results)
    assert {result.name for result in results} == {"one", "two"}
    for experiment in project.experiments():
        assert project.tree(experiment.directory, own=True) == {
            f"made_{experiment.identifier}": experiment.identifier
        }


async def test_a_failing_job_stops_nothing(project: Project) -> None:
    project.write("job.sh", "exit $2")
    result = await project.run("PROD([[sh, job.sh, {n}]], n=RANGE[0, 4])")
    assert [outcome.exit_code for outcome in result.outcomes] == [0, 1, 2, 3]
    assert [outcome.argv[-1] for outcome in result.failures] == ["1", "2", "3"]


class FailsAtThird(LocalExecutor):
    """This machine, with a mistake in it that nobody has foreseen."""

    @asynccontextmanager
    async def opened(self, run: OpenRun) -> AsyncIterator[LocalPlace]:
        async with super().opened(run):
            yield _FailingPlace(run)


class _FailingPlace(LocalPlace):
    @asynccontextmanager
    async def job(self, todo: Todo, slot: Slot) -> AsyncIterator[LocalJob]:
        if todo.index == 2:
            raise MemoryError
        async with super().job(todo, slot) as job:
            yield job


async def test_no_job_outlives_a_run_that_fails_itself(project: Project) -> None:
    project.write("job.sh", "exec sleep 30")
    with pytest.raises(BaseExceptionGroup):
        await project.run(*["[[sh, job.sh]]"] * 3, threads=3, executor=FailsAtThird())
    experiments = project.experiments()
    assert [experiment.status for experiment in experiments] == [Status.CANCELLED] * 2
