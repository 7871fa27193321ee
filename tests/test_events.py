"""What a run tells while it goes on, to whom, and what can be read of it afterwards."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

import hermes
from hermes import (
    Event,
    FileCollected,
    HermesError,
    JobEnded,
    JobStarted,
    LogChunk,
    RunEnded,
    RunStarted,
    RunWarning,
    Status,
)
from hermes.blocking import Bell
from hermes.collection.collector import Collector
from hermes.run import logs, runner
from hermes.run.logs import CHUNK

from .project import LIMIT, Project

pytestmark = pytest.mark.anyio

PRINT = """\
import os, sys
identifier, size = sys.argv[1], int(sys.argv[2])
with open("a_" + identifier, "w"):
    pass
os.write(1, b"first\\n")
while size > 0:
    size -= os.write(1, bytes(range(256)) * min(400, size // 256 + 1))
os.write(2, b"\\xff error\\0")
"""


def told(run: hermes.Run, events: list[Event], stream: str) -> dict[str, bytes]:
    """What log chunks told, by identifier."""
    found = {outcome.identifier: b"" for outcome in run.result.outcomes}
    for event in events:
        if isinstance(event, LogChunk) and event.stream == stream:
            assert 0 < len(event.data) <= CHUNK
            found[event.identifier] += event.data
    return found


def written(run: hermes.Run, stream: str) -> dict[str, bytes]:
    """What the log files hold, by identifier."""
    return {
        outcome.identifier: Path(str(outcome.directory), f"{stream}.log").read_bytes()
        for outcome in run.result.outcomes
    }


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
        assert (experiment.script, experiment.metadata["pid"]) == (event.script, event.pid)
        assert event.log is True
        assert event.line == experiment.metadata["hermes_file"]["line"]
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
        "event": "log_chunk", "time": by_name["log_chunk"]["time"], "identifier": by_name["log_chunk"]["identifier"], "stream": "stdout",
        "data": "\ufffd\0",
    }  # fmt: skip
    assert os.fsencode(by_name["file_collected"]["path"]).startswith(b"\xfe_")
    outcome = by_name["job_ended"]["outcome"]
    assert (outcome["status"], outcome["exit_code"], outcome["signal"]) == ("failed", 1, None)
    assert outcome["argv"][-1] == "\N{ROCKET}"
    assert by_name["run_ended"] == {
        "event": "run_ended", "time": by_name["run_ended"]["time"], "run_id": run.run_id, "started": 2, "succeeded": 0, "cancelled": False
    }  # fmt: skip


# Listeners


async def test_a_listener_that_leaves_early(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # If somebody still waited for it to take what it will not take, the run would not end in time
    monkeypatch.setattr(runner, "UNREAD", 3)
    monkeypatch.setattr(runner, "PATIENCE", 10 * LIMIT)
    project.write("print.py", PRINT)
    with anyio.fail_after(LIMIT):
        async with project.open(*[f"[[{project.PYTHON}, print.py, 300000]]"] * 4) as run:
            async for event in run:
                if isinstance(event, LogChunk):
                    break
    assert run.result.ok
    assert len(run.result.outcomes) == 4


async def test_a_listener_that_fails(project: Project) -> None:
    project.write("job.sh", ': > "a_$1"; while :; do sleep 0.01; done')

    async def fail() -> None:
        async with project.open("[[sh, job.sh]]", grace=20) as run:
            async for event in run:
                if isinstance(event, FileCollected):
                    raise KeyError("mine")

    with pytest.raises(KeyError):
        await fail()
    assert project.experiment().status is Status.CANCELLED
    assert [file.path for file in project.experiment().files] == [
        f"a_{project.experiment().identifier}"
    ]


async def test_a_slow_listener_gets_everything(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "UNREAD", 3)
    project.write("print.py", PRINT)
    events = []
    async with project.open(*[f"[[{project.PYTHON}, print.py, 500000]]"] * 3, threads=3) as run:
        async for event in run:
            events.append(event)
            await anyio.sleep(0.005)
    assert run.result.ok
    for stream in ("stdout", "stderr"):
        assert told(run, events, stream) == written(run, stream)


async def test_a_listener_that_stops_taking_holds_nobody_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "UNREAD", 3)
    monkeypatch.setattr(runner, "PATIENCE", 0.05)
    project.write("print.py", PRINT)
    events: list[Event] = []
    async with project.open(*[f"[[{project.PYTHON}, print.py, 500000]]"] * 3) as run:
        listener = aiter(run)
        events.append(await anext(listener))
        await project.until(lambda: len(run.result.outcomes) == 3)
        events += [event async for event in listener]
    assert run.result.ok
    # Chunks may be missing then, and nothing else; what there is of them is right
    counts = Counter(type(event) for event in events)
    assert (
        counts[RunStarted],
        counts[JobStarted],
        counts[FileCollected],
        counts[JobEnded],
        counts[RunEnded],
    ) == (1, 3, 3, 3, 1)
    logged = written(run, "stdout")
    for identifier, data in told(run, events, "stdout").items():
        assert logged[identifier].startswith(data)


async def test_a_listener_in_another_task_outlasts_the_block(project: Project) -> None:
    project.write("job.sh", 'echo "$2"; while [ ! -e go ]; do sleep 0.01; done; echo done')
    events: list[Event] = []

    async def listen(run: hermes.Run) -> None:
        async for event in run:
            events.append(event)
            if isinstance(event, JobStarted):
                project.write("go")

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks, project.open(*["[[sh, job.sh]]"] * 3) as run:
            tasks.start_soon(listen, run)
            await project.until(lambda: events)
    assert isinstance(events[-1], RunEnded)
    assert told(run, events, "stdout") == written(run, "stdout")


async def test_several_listeners(project: Project) -> None:
    project.write("job.sh", "echo out")
    heard: list[list[Event]] = [[], []]

    async def listen(run: hermes.Run, events: list[Event]) -> None:
        async for event in run:
            events.append(event)

    async with project.open(*["[[sh, job.sh]]"] * 3) as run, anyio.create_task_group() as tasks:
        for events in heard:
            tasks.start_soon(listen, run, events)
    # Trio starts tasks in any order
    second, first = sorted(heard, key=len)
    assert isinstance(first[0], RunStarted)
    assert isinstance(first[-1], RunEnded)
    # Who comes later hears what happens from then on
    assert second
    assert second == first[-len(second) :]


async def test_nobody_has_to_listen(project: Project) -> None:
    project.write("print.py", PRINT)
    async with project.open(*[f"[[{project.PYTHON}, print.py, 300000]]"] * 2) as run:
        pass
    assert run.result.ok
    # And nothing is to be heard when all is over
    with anyio.fail_after(LIMIT):
        assert all(
            isinstance(event, RunStarted | JobStarted) for event in [event async for event in run]
        )
        assert [event async for event in run] == []


async def test_logs_that_are_not_followed(project: Project) -> None:
    project.write("job.sh", "echo out")
    for follow, expected in (("all", {0, 1}), ("shown", {1}), ("none", set[int]())):
        async with project.open(
            "[[sh, job.sh]]", "[[sh, job.sh],[-l false]]", name=follow, follow_logs=follow
        ) as run:
            events = [event async for event in run]
        indices = {
            event.identifier: event.index for event in events if isinstance(event, JobStarted)
        }
        assert {
            indices[event.identifier] for event in events if isinstance(event, LogChunk)
        } == expected
        assert [event.log for event in events if isinstance(event, JobStarted)] == [True, False]
        assert all(data == b"out\n" for data in written(run, "stdout").values())


async def test_a_log_that_the_job_takes_away(project: Project) -> None:
    project.write(
        "job.sh",
        'echo out; rm "$HERMES_EXPERIMENT_DIR/stdout.log" "$HERMES_EXPERIMENT_DIR/stderr.log"; echo more',
    )
    async with project.open(*["[[sh, job.sh]]"] * 3) as run:
        events = [event async for event in run]
    assert run.result.ok
    assert isinstance(events[-1], RunEnded)


async def test_a_log_that_cannot_be_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(path: str, offset: int) -> None:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(logs, "_read", vanish)
    project.write("job.sh", "echo out")
    async with project.open("[[sh, job.sh]]") as run:
        events = [event async for event in run]
    assert run.result.ok
    assert not any(isinstance(event, LogChunk) for event in events)


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
    def fail(self: Collector, bell: Bell) -> None:
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


# Afterwards


async def test_load_experiment(project: Project) -> None:
    project.write("job.sh", 'printf "out \\377"; echo err >&2; : > "a_$1"; exit 7')
    project.write("b.txt", "four")
    (outcome,) = (
        await project.run("[[sh, job.sh, -x 1],[-ca b.txt, -c 'a comment']]", arguments="--std")
    ).outcomes
    experiment = hermes.load_experiment(str(outcome.directory))
    assert experiment.directory == Path(str(outcome.directory))
    assert (experiment.identifier, experiment.name, experiment.script) == (
        outcome.identifier,
        "test",
        "job.sh",
    )
    assert (experiment.status, experiment.exit_code, experiment.signal) == (Status.FAILED, 7, None)
    assert (
        experiment.argv == ("sh", "job.sh", outcome.identifier, "--std", "-x", "1") == outcome.argv
    )
    assert experiment.arguments == ("--std", "-x", "1")
    assert experiment.comments == ("a comment",)
    assert experiment.problems == ()
    assert experiment.stdout == "out \ufffd"
    assert experiment.stderr == "err\n"
    assert experiment.start is not None
    assert experiment.end is not None
    assert experiment.start.tzinfo is not None
    assert experiment.start <= experiment.end
    assert experiment.duration == outcome.duration
    assert [(file.path, file.bytes, file.origin) for file in experiment.files] == [
        ("b.txt", 4, "copied-after"), (f"a_{outcome.identifier}", 0, "collected")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no experiment directory"),
        (b"", "not JSON"),
        (b'{"format": 1', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not written by Hermes"),
        (b'{"format": "1"}', "not written by Hermes"),
        (b'{"format": 99}', "newer Hermes"),
    ],
)
def test_what_is_no_experiment(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "hermes.json").write_bytes(content)
    with pytest.raises(HermesError, match=message):
        hermes.load_experiment(tmp_path)


def test_a_later_version_may_say_more(tmp_path: Path) -> None:
    (tmp_path / "hermes.json").write_text('{"format": 1, "identifier": "x", "unheard_of": [1]}')
    assert hermes.load_experiment(tmp_path).identifier == "x"
    assert hermes.load_experiment(tmp_path).stdout == ""
