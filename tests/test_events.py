"""What a run tells while it goes on, in which order."""

from __future__ import annotations

import json
import os
import time
from collections import Counter

import anyio
import pytest

import hermes
from hermes import (
    Event,
    FileCollected,
    JobEnded,
    JobStarted,
    LogChunk,
    RunEnded,
    RunStarted,
    RunWarning,
    Status,
)
from hermes.collection.collector import Collector

from .support import Project
from .support.events import PRINT, told, written

pytestmark = pytest.mark.anyio


async def test_order_and_completeness(project: Project) -> None:
    project.write("print.py", PRINT)
    entry = f"[[{project.PYTHON}, print.py]]".replace("print.py]]", "print.py {size}]]")
    began = time.time()
    async with project.open(f"PROD({entry}, size=[0, 1000, 300000, 0, 70000])", threads=2) as run:
        events = [event async for event in run]
    assert run.result.ok
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert began <= events[0].time <= events[-1].time <= time.time()

    first, *between, last = events
    assert isinstance(first, RunStarted)
    assert (first.run_id, first.name, first.total, first.threads) == (run.run_id, "test", 5, 2)
    assert first.experiments == str(project.experiments_folder)
    assert isinstance(last, RunEnded)
    assert (last.run_id, last.started, last.succeeded, last.cancelled) == (run.run_id, 5, 5, False)
    counts = Counter(type(event) for event in between)
    assert (
        counts[JobStarted],
        counts[JobEnded],
        counts[RunStarted],
        counts[RunEnded],
        counts[RunWarning],
    ) == (5, 5, 0, 0, 0)

    # Of each job: first its start, then what it prints and makes, then its end
    state: dict[str, str] = {}
    for event in between:
        if isinstance(event, JobStarted):
            assert event.identifier not in state
            state[event.identifier] = "running"
        elif isinstance(event, LogChunk | FileCollected):
            assert state[event.identifier] == "running"
        elif isinstance(event, JobEnded):
            assert state[event.outcome.identifier] == "running"
            state[event.outcome.identifier] = "ended"
            assert event.outcome in run.result.outcomes
    assert set(state.values()) == {"ended"}
    assert (
        tuple(event.outcome for event in between if isinstance(event, JobEnded))
        == run.result.outcomes
    )

    started = [event for event in between if isinstance(event, JobStarted)]
    assert sorted(event.index for event in started) == [0, 1, 2, 3, 4]
    assert {event.slot for event in started} == {0, 1}
    for event in started:
        experiment = hermes.load_experiment(event.directory)
        assert experiment.identifier == event.identifier
        assert experiment.argv == event.argv
        assert experiment.arguments == event.arguments
        assert (experiment.script, experiment.metadata.pid) == (event.script, event.pid)
        assert event.log is True
        assert experiment.metadata.hermes_file is not None
        assert event.line == experiment.metadata.hermes_file.line
    indices = {
        event.outcome.identifier: event.index for event in between if isinstance(event, JobEnded)
    }
    assert indices == {event.identifier: event.index for event in started}

    for stream in ("stdout", "stderr"):
        assert told(run, events, stream) == written(run, stream)
    made = [(event.identifier, event.path) for event in between if isinstance(event, FileCollected)]
    assert sorted(made) == sorted((identifier, f"a_{identifier}") for identifier in state)


async def test_events_come_while_the_job_runs(project: Project) -> None:
    async with project.puppet() as job:
        seen: list[Event] = []

        async def listen() -> None:
            async for event in job.run:
                seen.append(event)

        def printed() -> bytes:
            return b"".join(event.data for event in seen if isinstance(event, LogChunk))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await project.until(lambda: any(isinstance(event, JobStarted) for event in seen))
            await job.do("os.write(1, b'no line end')")
            await project.until(lambda: printed() == b"no line end")
            await job.do("open('a_' + identifier, 'w')")
            await project.until(lambda: any(isinstance(event, FileCollected) for event in seen))
            assert job.named("a_@").exists()
            # A file is told of once, whatever happens to it
            await job.do("open('a_' + identifier, 'w').write('x'); os.write(1, b', and more')")
            await project.until(lambda: printed() == b"no line end, and more")
            assert not any(isinstance(event, JobEnded) for event in seen)
            job.end()
    assert isinstance(seen[-1], RunEnded)
    assert sum(isinstance(event, FileCollected) for event in seen) == 1


async def test_the_directory_is_final_when_the_end_is_told(project: Project) -> None:
    project.write("job.sh", 'echo out; : > "a_$1"; exit 3')
    project.write("copied.txt")
    ended = 0
    async with project.open(*["[[sh, job.sh],[-ca copied.txt]]"] * 4, threads=2) as run:
        async for event in run:
            if isinstance(event, JobEnded):
                ended += 1
                experiment = hermes.load_experiment(str(event.outcome.directory))
                assert (experiment.status, experiment.exit_code) == (Status.FAILED, 3)
                assert {file.path for file in experiment.files} == {
                    "copied.txt",
                    f"a_{experiment.identifier}",
                }
                assert project.leftovers(experiment.identifier) == []
    assert ended == 4


async def test_a_job_that_could_not_be_started_ends_too(project: Project) -> None:
    project.write("bad.sh")
    project.write("good.sh")
    project.write("experiments/bad.sh", "in its place")
    async with project.open("[[sh, bad.sh]]", "[[sh, good.sh]]") as run:
        events = [event async for event in run]
    ended = {event.index: event.outcome for event in events if isinstance(event, JobEnded)}
    assert ended.keys() == {0, 1}
    assert not ended[0].ok
    assert ended[1].ok
    assert [event.index for event in events if isinstance(event, JobStarted)] == [1]
    last = events[-1]
    assert isinstance(last, RunEnded)
    assert (last.started, last.succeeded) == (1, 1)


async def test_events_as_json(project: Project) -> None:
    project.write("job.sh", 'printf "\\377\\000"; : > "$(printf "\\376")_$1"; exit 1')
    async with project.open("[[sh, job.sh, {a}]]", "[[sh, job.sh, '\N{ROCKET}']]") as run:
        events = [event async for event in run]
    lines = [json.dumps(event.as_json()) for event in events]
    assert all("\n" not in line for line in lines)
    data = [json.loads(line) for line in lines]
    assert {each["event"] for each in data} == {
        "run_started",
        "job_started",
        "log_chunk",
        "file_collected",
        "job_ended",
        "run_ended",
    }
    assert all(isinstance(each["time"], float) for each in data)
    by_name = {each["event"]: each for each in data}
    assert by_name["run_started"]["total"] == 2
    assert by_name["log_chunk"] == {
        "event": "log_chunk", "time": by_name["log_chunk"]["time"],
        "identifier": by_name["log_chunk"]["identifier"], "stream": "stdout",
        "data": "\ufffd\0",
    }  # fmt: skip
    assert os.fsencode(by_name["file_collected"]["path"]).startswith(b"\xfe_")
    (outcome,) = [
        each["outcome"] for each in data if each["event"] == "job_ended" and each["index"] == 1
    ]
    assert (outcome["status"], outcome["exit_code"], outcome["signal"]) == ("failed", 1, None)
    assert outcome["argv"][-1] == "\N{ROCKET}"
    assert by_name["run_ended"] == {
        "event": "run_ended", "time": by_name["run_ended"]["time"], "run_id": run.run_id,
        "started": 2, "succeeded": 0, "cancelled": False, "ok": False, "counts": {"failed": 2},
        "go_on": "",
    }  # fmt: skip


async def test_collected_files_are_told_to_those_who_want_to_know(project: Project) -> None:
    project.write("job.sh", 'echo > "made_$1"')
    for wanted in (True, False):
        async with project.open("[[sh, job.sh]]", follow_files=wanted) as run:
            events = [event async for event in run]
        assert run.result.ok
        assert [type(event) for event in events].count(FileCollected) == wanted
    assert all(
        len(project.tree(experiment.directory, own=True)) == 1
        for experiment in project.experiments()
    )


async def test_warnings_are_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Collector, watcher: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Collector, "_watch", fail)
    project.write("job.sh", "while [ ! -e go ]; do sleep 0.01; done")
    warnings = []
    async with project.open("[[sh, job.sh]]") as run:
        async for event in run:
            if isinstance(event, RunWarning):
                warnings.append(event.message)
                project.write("go")
    assert run.result.ok
    assert warnings == list(run.result.warnings)
    assert len(warnings) == 1
    assert "Too many open files" in warnings[0]
