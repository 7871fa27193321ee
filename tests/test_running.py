"""Running jobs: how many at a time, what each gets, how each ends, what is written down about it, and how a run is ended."""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import hermes
from hermes import HermesError, JobEnded, JobStarted, Status
from hermes.executors import processes, starting
from hermes.executors.base import Pending
from hermes.experiments import provenance, store
from hermes.experiments.store import Clock

from .project import Project

pytestmark = pytest.mark.anyio

IDENTIFIER = re.compile(r"\d{4}_\d\d_\d\d_\d{12}_[0-9a-f]{5}")

SUPERVISED = pytest.mark.parametrize("supervise", [True, False], ids=["supervised", "alone"])


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; one that only nobody has fetched yet has."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def in_words(outcome: hermes.Outcome) -> tuple[Status, int | None, int | None]:
    return outcome.status, outcome.exit_code, outcome.signal


# How many at a time


@pytest.mark.fault(18)
async def test_at_most_threads_jobs_are_alive_and_slots_are_unique(project: Project) -> None:
    # A slot's folder can be made only once, so a slot given twice or beyond the limit shows; all wait until three have met
    project.write(
        "job.sh",
        """\
        mkdir "alive/$HERMES_SLOT" || exit 9
        [ "$(ls alive | wc -l)" -le 3 ] || exit 8
        [ "$(ls alive | wc -l)" -lt 3 ] || : > met
        while [ ! -e met ]; do sleep 0.01; done
        echo "$HERMES_SLOT" >> slots
        rmdir "alive/$HERMES_SLOT"
        """,
    )
    (project.path / "alive").mkdir()
    result = await project.run(*["[[sh, job.sh]]"] * 9, threads=3)
    assert [in_words(outcome) for outcome in result.outcomes] == [(Status.FINISHED, 0, None)] * 9
    assert set(
        project.write("slots", (project.path / "slots").read_bytes()).read_text().split()
    ) == {"0", "1", "2"}


async def test_one_at_a_time_is_the_default_and_jobs_start_in_order(project: Project) -> None:
    project.write("job.sh", 'mkdir alive && echo "$2" >> order && rmdir alive')
    result = await project.run("PROD([[sh, job.sh, {n}]], n=RANGE[0, 6])")
    assert result.ok
    assert (project.path / "order").read_text().split() == ["0", "1", "2", "3", "4", "5"]
    assert [experiment.argv[-1] for experiment in project.experiments()] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
    ]


async def test_the_experiment_of_the_next_job_waits_for_no_long_job(project: Project) -> None:
    # While jobs are short the next one is prepared: not for longer than a moment, or its identifier would tell of another time
    project.write(
        "job.sh", 'echo "$1" >> started; [ "$2" != long ] || while [ ! -e go ]; do sleep 0.01; done'
    )
    entries = [f"[[sh, job.sh, {word}]]" for word in ("a", "b", "c", "long", "d", "e")]

    def started() -> list[str]:
        return (
            (project.path / "started").read_text().split()
            if (project.path / "started").exists()
            else []
        )

    async with project.open(*entries) as run:
        await project.until(lambda: len(started()) == 4)
        await project.until(lambda: len(list(project.experiments_folder.glob("job.sh/*/*"))) == 4)
        project.write("go")
    assert run.result.ok
    experiments = project.experiments()
    assert [experiment.argv[-1] for experiment in experiments] == ["a", "b", "c", "long", "d", "e"]
    assert [experiment.identifier for experiment in experiments] == started()


@pytest.mark.parametrize("count", [20, 60])
async def test_short_jobs_need_no_threads_of_their_own(
    project: Project, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    project.write("job.sh", "")
    calls = []
    run_sync = anyio.to_thread.run_sync

    async def counted(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        calls.append(function)
        return await run_sync(function, *arguments, **options)

    monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
    result = await project.run(f"PROD([[sh, job.sh, {{n}}]], n=RANGE[0, {count}])", threads=2)
    assert result.ok
    # A busy machine can make a job so long that it is finished with more patience
    long = sum(outcome.duration >= 0.05 for outcome in result.outcomes)
    assert len(calls) < 20 + long


async def test_a_large_sweep_starts_at_once(project: Project) -> None:
    project.write("job.sh", "")
    async with project.open(
        "PROD([[sh, job.sh, {a} {b}]], a=RANGE[0, 1000], b=RANGE[0, 1000])"
    ) as run:
        async for event in run:
            if isinstance(event, JobEnded):
                run.cancel()
    assert run.plan.count == 10**6
    assert run.result.cancelled
    assert len(run.result.outcomes) < 100


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

    monkeypatch.setattr(store, "datetime", Stepping)
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
def test_clocks_of_one_root_share_what_they_gave(tmp_path: Path) -> None:
    clocks = [Clock(str(tmp_path), "1930e") for _ in range(4)]
    given: list[list[str]] = [[] for _ in clocks]

    def take(clock: Clock, into: list[str]) -> None:
        into += [clock.identifier() for _ in range(200)]

    threads = [threading.Thread(target=take, args=pair) for pair in zip(clocks, given, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for clock in clocks:
        clock.close()
    assert len({identifier for each in given for identifier in each}) == 800
    # Each clock's own sort in the order in which it gave them
    assert given == [sorted(each) for each in given]


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    "content", [b"", b"\0\xff nonsense", b"9999_99_99_999999999999", b"x" * 1000]
)
def test_a_damaged_clock_file_does_no_harm(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clock").write_bytes(content)
    clock = Clock(str(tmp_path), "00000")
    first, second = clock.identifier(), clock.identifier()
    clock.close()
    assert first < second
    assert IDENTIFIER.fullmatch(first)


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
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=project.path,
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


# What a job gets

TELL = """\
import json, os, sys
with open(os.environ["HERMES_EXPERIMENT_DIR"] + "/told.json", "w") as file:
    json.dump({
        "environment": {name.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
                        for name, value in os.environb.items()},
        "argv": sys.argv, "stdin": sys.stdin.read(), "group": os.getpgrp(), "session": os.getsid(0), "cwd": os.getcwd(),
    }, file)
"""


def told(experiment: hermes.Experiment) -> Any:
    return json.loads((experiment.directory / "told.json").read_text())


@SUPERVISED
async def test_what_a_job_gets(
    project: Project, monkeypatch: pytest.MonkeyPatch, supervise: bool
) -> None:
    odd = {
        "BASH_FUNC_x%%": "() {  echo 'x y'\n}", "with space": "a b", "a.b": "'\"$(echo)`", "-n": "1", "9": "digit", "ü": "ü",
        "IFS": "/", "LINES2": "one\ntwo\n", "EMPTY": "", "BYTES": "\udcff\udc80", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    for name, value in odd.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    inherited = dict(os.environ)
    project.write("tell.py", TELL)
    async with project.open(
        *[f"[[{project.PYTHON}, tell.py]]"] * 2, threads=2, settings={"supervise": supervise}
    ) as run:
        pass
    assert run.result.ok
    first, second = project.experiments()
    for experiment in (first, second):
        environment = told(experiment)["environment"]
        own = {
            "HERMES_IDENTIFIER": experiment.identifier,
            "HERMES_EXPERIMENT_DIR": str(experiment.directory),
            "HERMES_NAME": "test",
            "HERMES_RUN_ID": run.run_id,
            "PYTHONUNBUFFERED": "1",
        }
        assert environment.pop("HERMES_SLOT") in ("0", "1")
        # A shell is free to set these
        for name in ("PWD", "OLDPWD", "SHLVL", "_"):
            environment.pop(name, None)
            inherited.pop(name, None)
        assert environment == inherited | own
        assert told(experiment)["stdin"] == ""
        assert told(experiment)["argv"] == ["tell.py", experiment.identifier]
        assert told(experiment)["cwd"] == str(project.path)
    groups = {told(experiment)["group"] for experiment in (first, second)}
    assert len(groups | {os.getpgrp()}) == 3
    assert os.getsid(0) not in {told(experiment)["session"] for experiment in (first, second)}


async def test_a_value_of_pythonunbuffered_is_kept(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    project.write("job.sh", 'printf "<%s>" "${PYTHONUNBUFFERED-unset}"')
    await project.run("[[sh, job.sh]]")
    assert project.experiment().stdout == "<>"


@SUPERVISED
async def test_words_go_to_the_system_as_they_are(project: Project, supervise: bool) -> None:
    words = [
        "$HOME",
        "*",
        "a  b",
        "",
        "-x",
        "'",
        '"',
        "\\",
        "ü\N{ROCKET}",
        "$(echo no)",
        ";",
        "|",
        "a\nb",
        "--",
        "=",
        "x=y",
    ]
    project.write("tell.py", TELL)
    entry = f"[[{project.PYTHON}, tell.py, {' '.join(map(hermes.quote, words))}]]"
    result = await project.run(entry, settings={"supervise": supervise}, arguments="-gamma '0.9 9'")
    assert result.ok
    experiment = project.experiment()
    assert told(experiment)["argv"] == ["tell.py", experiment.identifier, "-gamma", "0.9 9", *words]
    assert list(experiment.argv[-len(words) :]) == words
    assert list(experiment.arguments) == ["-gamma", "0.9 9", *words]


@SUPERVISED
async def test_a_program_whose_path_looks_like_a_variable(
    project: Project, monkeypatch: pytest.MonkeyPatch, supervise: bool
) -> None:
    monkeypatch.setenv("a.b", "1")
    project.program("lr=0.1/train", '#!/bin/sh\necho "$0 $2"\n')
    result = await project.run("[[./lr=0.1/train, x]]", settings={"supervise": supervise})
    assert result.ok
    assert project.experiment().stdout == "./lr=0.1/train x\n"


async def test_the_identifier_is_put_where_the_job_wants_it(project: Project) -> None:
    project.write("job.sh", 'echo "$@"')
    await project.run("[[sh, job.sh, --id={identifier} -x]]", arguments="-y")
    experiment = project.experiment()
    assert experiment.stdout == f"-y --id={experiment.identifier} -x\n"


# How jobs end

CODES = (0, 1, 2, 3, 100, 126, 127, 128, 137, 139, 143, 168, 200, 255)
SIGNALS = (
    1,
    2,
    3,
    6,
    9,
    11,
    13,
    14,
    15,
    24,
    *((signal.SIGRTMIN + 6,) if sys.platform == "linux" else ()),
)


@SUPERVISED
@pytest.mark.parametrize("program", ["sh, ", "./"], ids=["by name", "by path"])
async def test_exit_codes_and_signals_are_exact(
    project: Project, supervise: bool, program: str
) -> None:
    project.program("exit.sh", '#!/bin/sh\nexit "$2"')
    project.program("kill.sh", '#!/bin/sh\nulimit -c 0; kill -"$2" $$; exit 77')
    entries = [f"[[{program}exit.sh, {code}]]" for code in CODES] + [
        f"[[{program}kill.sh, {number:d}]]" for number in SIGNALS
    ]
    result = await project.run(*entries, threads=2, settings={"supervise": supervise})
    found = {
        (outcome.script, int(outcome.argv[-1])): in_words(outcome) for outcome in result.outcomes
    }
    expected: dict[tuple[str, int], tuple[Status, int | None, int | None]] = {
        ("exit.sh", code): (Status.FINISHED if code == 0 else Status.FAILED, code, None)
        for code in CODES
    }
    expected |= {("kill.sh", number): (Status.FAILED, None, number) for number in SIGNALS}
    assert found == expected
    assert all(outcome.problems == () for outcome in result.outcomes)
    for experiment in project.experiments():
        assert experiment.stderr == ""
        assert (experiment.status, experiment.exit_code, experiment.signal) == expected[
            experiment.script, int(experiment.argv[-1])
        ]
    assert not result.ok
    assert len(result.failures) == len(entries) - 1
    # What the jobs left behind is read and gone; the run can be resumed, for some have failed
    assert sorted(
        path.name for path in (project.experiments_folder / ".hermes" / result.run_id).iterdir()
    ) == ["lock", "run.json"]


async def test_nothing_of_what_a_run_needed_for_itself_remains(project: Project) -> None:
    project.write("job.sh", "")
    assert (await project.run("[[sh, job.sh]]")).ok
    assert [path.name for path in (project.experiments_folder / ".hermes").iterdir()] == ["clock"]


@pytest.mark.fault(19)
@SUPERVISED
async def test_a_program_that_cannot_be_executed_harms_itself_alone(
    project: Project, supervise: bool
) -> None:
    project.program("shebang", "#!/no/such/interpreter\n")
    project.program("text", "echo this is no program\n")
    project.program("empty", "")
    project.program("binary", b"\x7fELF\x02\x01\x01" + bytes(100))
    project.program("gone", "#!/bin/sh\n")
    project.program("changed", "#!/bin/sh\n")
    project.program("folder", "#!/bin/sh\n")
    project.write("before.sh", "rm gone folder; chmod 644 changed; mkdir folder")
    project.write("good.sh", "echo good")
    programs = ["./shebang", "./text", "./empty", "./binary", "./gone", "./changed", "./folder"]
    result = await project.run(
        "[[sh, before.sh]]",
        *[f"[[{program}]]" for program in programs],
        "[[sh, good.sh]]",
        settings={"supervise": supervise},
    )
    codes = {outcome.script: outcome.exit_code for outcome in result.outcomes}
    assert codes == {
        "before.sh": 0, "shebang": 127, "text": 0, "empty": 0, "binary": 126, "gone": 127, "changed": 126, "folder": 126, "good.sh": 0
    }  # fmt: skip
    for experiment in project.experiments():
        # Without `#!` a text is a script for the shell, as `execvp` and every shell see it
        if experiment.script not in ("before.sh", "good.sh", "text", "empty"):
            assert experiment.status is Status.FAILED
            # Why is told somewhere: by the shell that tried, or as a problem
            assert experiment.stderr or experiment.problems


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


@pytest.mark.fault(6)
@SUPERVISED
async def test_a_daemon_that_holds_the_output_does_not_hold_the_job(
    project: Project, supervise: bool
) -> None:
    project.write("job.sh", "sleep 1000 &\necho $! > daemon.pid; echo done")
    project.write("next.sh", "echo next")
    result = await project.run(
        "[[sh, job.sh]]", "[[sh, next.sh]]", settings={"supervise": supervise}
    )
    pid = int((project.path / "daemon.pid").read_text())
    try:
        first, second = sorted(result.outcomes, key=lambda outcome: outcome.line)
        assert in_words(first) == (Status.FINISHED, 0, None)
        assert first.problems == (f"left processes behind: {pid}",)
        assert second.ok
        assert not result.ok
        # It is told of, not ended
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    experiment = project.experiments()[0]
    assert experiment.stdout == "done\n"
    assert experiment.problems == first.problems


# Logs

PRINT = """\
import os
long = bytes(range(256)) * 300
for fd, data in (1, b"a\\0b"), (2, b"\\xff\\xfe"), (1, b"\\r\\nno end"), (2, b"x\\r"), (1, long), (2, b"\\x1b[31m"), (1, b"end"):
    while data:
        data = data[os.write(fd, data):]
"""


@pytest.mark.fault(7)
@SUPERVISED
async def test_logs_hold_the_output_byte_for_byte(project: Project, supervise: bool) -> None:
    project.write("print.py", PRINT)
    result = await project.run(f"[[{project.PYTHON}, print.py]]", settings={"supervise": supervise})
    assert result.ok
    directory = project.experiment().directory
    assert (directory / "stdout.log").read_bytes() == b"a\0b\r\nno end" + bytes(
        range(256)
    ) * 300 + b"end"
    assert (directory / "stderr.log").read_bytes() == b"\xff\xfex\r\x1b[31m"


async def test_logs_are_complete_at_any_moment(project: Project) -> None:
    async with project.puppet() as job:
        for number in range(5):
            await job.do(f"os.write(1, b'{number}')")
            # No waiting: it is there as soon as the job has printed it
            assert (job.directory / "stdout.log").read_bytes() == b"01234"[: number + 1]
        await job.do("os.write(2, b'e'); os.system('printf child')")
        assert (job.directory / "stdout.log").read_bytes() == b"01234child"
        assert (job.directory / "stderr.log").read_bytes() == b"e"


async def test_logs_of_children_keep_in_order(project: Project) -> None:
    # Those that open it anew, too
    project.write(
        "job.sh",
        "for i in 1 2 3 4 5 6; do echo $i & wait; sh -c 'echo in $0' $i; echo again $i >> /dev/stdout; done",
    )
    await project.run("[[sh, job.sh]]")
    assert project.experiment().stdout == "".join(
        f"{number}\nin {number}\nagain {number}\n" for number in range(1, 7)
    )


@SUPERVISED
async def test_a_silent_job_has_empty_logs(project: Project, supervise: bool) -> None:
    project.write("job.sh", "")
    await project.run("[[sh, job.sh]]", settings={"supervise": supervise})
    directory = project.experiment().directory
    assert (directory / "stdout.log").read_bytes() == (directory / "stderr.log").read_bytes() == b""


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
    assert versions["python"] == sys.version.split()[0]
    data.pop("pid_start", None)
    assert data == {
        "format": 1,
        "identifier": outcome.identifier,
        "run_id": result.run_id,
        "name": "test",
        "script": "job.sh",
        "argv": ["sh", "job.sh", outcome.identifier, "-gamma", "0.9", "-lr", "0.1"],
        "arguments": ["-gamma", "0.9", "-lr", "0.1"],
        "options": {
            "copy_before": ["extra.txt"], "copy_after": ["late.txt", "gone.txt"], "move_after": ["moved.txt"], "log": False,
            "comments": ["one: two", "three"],
        },
        "comments": ["one: two", "three"],
        "working_directory": str(project.path),
        "root": str(project.path),
        "hermes_file": {"path": str(path), "line": 6, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "settings": {"threads": 2, "path_to_experiments": ".", "supervise": True, "executor": "local", "slurm": ""},
        "git": {"commit": None, "branch": None, "dirty": None, "reason": "not a git repository"},
        "status": "failed",
        "exit_code": 3,
        "signal": None,
        "attempts": 1,
        "files": [
            {"path": "extra.txt", "bytes": 3, "origin": "copied-before"},
            {"path": "late.txt", "bytes": 4, "origin": "copied-after"},
            {"path": "moved.txt", "bytes": 5, "origin": "moved"},
            {"path": f"made_{outcome.identifier}", "bytes": 6, "origin": "collected"},
        ],
        "problems": ["`-ca gone.txt`: no such file or directory"],
    }  # fmt: skip
    assert outcome.problems == ("`-ca gone.txt`: no such file or directory",)


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
        assert is_alive(experiment.metadata["pid"])
        assert experiment.start is not None
        assert experiment.metadata["pid_start"] == provenance.process_start(
            experiment.metadata["pid"]
        )
        assert experiment.metadata["boot_id"] == provenance.boot_id()
    assert hermes.load_experiment(job.directory).status is Status.FINISHED


def _with_process(directory: Path) -> hermes.Experiment | None:
    experiment = hermes.load_experiment(directory)
    return experiment if "pid_start" in experiment.metadata else None


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
    keys = [experiment.metadata["key"] for experiment in project.experiments()]
    assert keys[:4] == keys[4:]
    assert len(set(keys)) == 4


async def test_re_execution_runs_the_job_again(project: Project) -> None:
    project.write("tell.py", TELL)
    project.write("kept.txt", "kept")
    words = ["{a}", "[64,64]", "a, b", "#no comment", "it's", '"', "", "EXEC", "ü\N{ROCKET}", "//x"]
    entry = f"[[{project.PYTHON}, tell.py, {' '.join(map(hermes.quote, words))}],[-ca kept.txt, -c 'a, b', -l false]]"
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
        assert second.metadata[field] == first.metadata[field]
    assert (second.directory / "kept.txt").read_text() == "kept"
    # And that of the second says the same again
    assert (second.directory / "re_execution.hermes").read_bytes() == again.read_bytes()


# Provenance


@pytest.fixture
def repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project under version control, with one commit."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    git(project, "init", "--quiet", "--initial-branch", "trunk")
    project.write("job.sh", "")
    project.write(".gitignore", "ignored\n*.hermes\n")
    project.write("data.bin", bytes(range(256)))
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "first")
    return project


def git(project: Project, *words: str) -> str:
    # No background work that outlives the test
    command = ["git", "-c", "gc.auto=0", "-c", "core.fsmonitor=false", *words]
    return subprocess.run(
        command, cwd=project.path, check=True, capture_output=True, text=True
    ).stdout.strip()


async def test_a_clean_tree(repository: Project) -> None:
    result = await repository.run("[[sh, job.sh]]")
    assert result.ok
    experiment, commit = repository.experiment(), git(repository, "rev-parse", "HEAD")
    assert experiment.metadata["git"] == {"commit": commit, "branch": "trunk", "dirty": False}
    assert experiment.identifier.endswith(f"_{commit[-5:]}")
    assert not (experiment.directory / "uncommitted.patch").exists()


async def test_untracked_files_and_experiments_alone_are_not_dirty(repository: Project) -> None:
    repository.write("new.txt", "new")
    await repository.run("[[sh, job.sh]]")
    git(repository, "add", "--force", "experiments")
    git(repository, "commit", "--quiet", "--message", "experiments too")
    (tracked,) = repository.experiments()
    (tracked.directory / "stdout.log").write_text("changed by hand")
    await repository.run("[[sh, job.sh]]")
    for experiment in repository.experiments():
        assert experiment.metadata["git"]["dirty"] is False
        assert not (experiment.directory / "uncommitted.patch").exists()


@pytest.mark.fault(21)
async def test_a_dirty_tree_is_kept_as_a_patch(
    repository: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Configuration that would spoil the patch
    config = tmp_path / "gitconfig"
    config.write_text(
        "[color]\n\tui = always\n[diff]\n\texternal = false\n\tnoprefix = true\n\trelative = true\n\tsubmodule = log\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    repository.write("job.sh", "echo dirty")
    repository.write("data.bin", bytes(range(255, -1, -1)))
    repository.write("staged.txt", "no end of line")
    git(repository, "add", "staged.txt")
    repository.write("new\nline.txt", "untracked")
    repository.write("ignored", "ignored")
    await repository.run(*["[[sh, job.sh]]"] * 2)
    experiment, other = repository.experiments()
    assert experiment.metadata["git"]["dirty"] is True
    patch = experiment.directory / "uncommitted.patch"
    assert patch.read_bytes() == (other.directory / "uncommitted.patch").read_bytes()
    assert b"untracked" in patch.read_bytes()
    assert b"line.txt" in patch.read_bytes()
    assert b"# untracked: ignored" not in patch.read_bytes()
    # Put onto a fresh copy, it gives what was executed
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git(repository, "clone", "--quiet", str(repository.path), str(tmp_path / "copy"))
    git(Project(tmp_path / "copy"), "apply", "--whitespace=nowarn", str(patch))
    for name in ("job.sh", "data.bin", "staged.txt"):
        assert (tmp_path / "copy" / name).read_bytes() == (repository.path / name).read_bytes()


async def test_a_dirty_tree_seen_from_a_folder_in_it(repository: Project) -> None:
    git(repository, "config", "diff.relative", "true")
    repository.write("sub/job.sh", "")
    repository.write("data.bin", "changed outside of the folder")
    result = await repository.run("[[sh, job.sh]]", working_directory=repository.path / "sub")
    assert result.ok
    assert repository.experiment().metadata["git"]["dirty"] is True
    assert b"data.bin" in (repository.experiment().directory / "uncommitted.patch").read_bytes()


@pytest.mark.fault(21)
async def test_a_repository_without_a_commit(repository: Project) -> None:
    git(repository, "update-ref", "-d", "HEAD")
    assert (await repository.run("[[sh, job.sh]]")).ok
    experiment = repository.experiment()
    assert experiment.identifier.endswith("_00000")
    assert experiment.metadata["git"]["commit"] is None
    assert "no commit" in experiment.metadata["git"]["reason"]


@pytest.mark.fault(21)
async def test_a_commit_without_a_branch(repository: Project) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    assert (await repository.run("[[sh, job.sh]]")).ok
    assert repository.experiment().metadata["git"]["branch"] is None
    assert repository.experiment().metadata["git"]["dirty"] is False


@pytest.mark.fault(21)
async def test_a_corrupt_repository(repository: Project) -> None:
    (repository.path / ".git" / "HEAD").write_bytes(b"\0\xff")
    assert (await repository.run("[[sh, job.sh]]")).ok
    metadata = repository.experiment().metadata["git"]
    assert metadata["commit"] is None
    assert metadata["reason"]


def _without_objects(git_folder: Path) -> None:
    for path in git_folder.glob("objects/*/*"):
        path.chmod(0o644)
        path.write_bytes(b"")


def _moved_away(git_folder: Path) -> None:
    git_folder.rename(git_folder.with_name("moved"))
    git_folder.write_text("gitdir: /no/such/folder\n")


DAMAGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "empty objects": (_without_objects, True),
    "bad index": (lambda git_folder: (git_folder / "index").write_bytes(b"\0" * 100), True),
    "bad configuration": (lambda git_folder: (git_folder / "config").write_bytes(b"[[["), False),
    "bad branch": (
        lambda git_folder: (git_folder / "refs" / "heads" / "trunk").write_bytes(b"\xff"),
        False,
    ),
    "no HEAD": (lambda git_folder: (git_folder / "HEAD").unlink(), False),
    "moved away": (_moved_away, False),
}
"""What can happen to a repository, and whether its commit is still known then."""


@pytest.mark.fault(21)
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_repository(repository: Project, damage: str) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    harm, is_known = DAMAGES[damage]
    harm(repository.path / ".git")
    assert (await repository.run("[[sh, job.sh]]")).ok
    metadata = repository.experiment().metadata["git"]
    assert metadata["commit"] == (commit if is_known else None)
    assert metadata["dirty"] is None
    assert metadata["reason"]


@pytest.mark.fault(21)
async def test_a_repository_of_somebody_else(
    repository: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert (await repository.run("[[sh, job.sh]]")).ok
    assert "dubious ownership" in repository.experiment().metadata["git"]["reason"]


@pytest.mark.fault(21)
async def test_a_bare_repository(repository: Project, tmp_path: Path) -> None:
    git(repository, "clone", "--quiet", "--bare", str(repository.path), str(tmp_path / "bare.git"))
    bare = Project(tmp_path.resolve() / "bare.git")
    bare.write("job.sh", "")
    assert (await bare.run("[[sh, job.sh]]")).ok
    assert bare.experiment().metadata["git"] == {
        "commit": None,
        "branch": None,
        "dirty": None,
        "reason": "not a git repository",
    }


@pytest.mark.fault(21)
async def test_git_whose_children_hold_its_output(
    repository: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.program("bin/git", "#!/bin/sh\nsleep 5 &\nwait\n")
    monkeypatch.setenv("PATH", f"{repository.path}/bin", prepend=os.pathsep)
    monkeypatch.setattr(provenance, "GIT_LIMIT", 0.2)
    began = time.monotonic()
    assert (await repository.run("[[sh, job.sh]]")).ok
    assert time.monotonic() - began < 5
    assert "longer than" in repository.experiment().metadata["git"]["reason"]


@pytest.mark.fault(21)
async def test_without_git(repository: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository.path))
    (repository.path / "sh").symlink_to("/bin/sh")
    assert (await repository.run("[[sh, job.sh]]")).ok
    assert "not installed" in repository.experiment().metadata["git"]["reason"]


@pytest.mark.fault(21)
@pytest.mark.parametrize("what", ["slow", "broken", "unusable"])
async def test_git_that_is_of_no_use(
    repository: Project, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    text = {
        "slow": "#!/bin/sh\nexec sleep 1000\n",
        "broken": "#!/bin/sh\necho oh no >&2; exit 3\n",
        "unusable": "#!/no/such/program\n",
    }
    repository.program("bin/git", text[what])
    (repository.path / "bin" / "sleep").symlink_to("/bin/sleep")
    (repository.path / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", f"{repository.path}/bin")
    monkeypatch.setattr(provenance, "GIT_LIMIT", 0.2)
    assert (await repository.run("[[sh, job.sh]]")).ok
    experiment = repository.experiment()
    assert experiment.identifier.endswith("_00000")
    assert experiment.metadata["git"]["commit"] is None
    reason = experiment.metadata["git"]["reason"]
    assert {"slow": "longer than", "broken": "oh no", "unusable": "git"}[what] in reason


async def test_git_is_asked_once_per_run(
    repository: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shlex.quote(str(shutil.which("git")))
    repository.program(
        "bin/git",
        f'#!/bin/sh\necho "$*" >> {shlex.quote(str(repository.path))}.asked\nexec {real} "$@"\n',
    )
    monkeypatch.setenv("PATH", f"{repository.path}/bin", prepend=os.pathsep)
    asked = Path(f"{repository.path}.asked")
    assert (await repository.run("[[sh, job.sh]]")).ok
    once = asked.read_text().count("\n")
    asked.unlink()
    assert (await repository.run(*["[[sh, job.sh]]"] * 5)).ok
    assert asked.read_text().count("\n") == once


# Places that cannot be used


@pytest.mark.fault(9)
@pytest.mark.parametrize("place", ["bad.sh", "bad.sh/test"])
async def test_a_place_that_is_taken_harms_that_job_alone(project: Project, place: str) -> None:
    project.write("bad.sh", "echo never > executed")
    project.write("good.sh", "")
    (project.experiments_folder / place).parent.mkdir(parents=True)
    (project.experiments_folder / place).write_text("mine")
    result = await project.run("[[sh, good.sh, 1]]", "[[sh, bad.sh]]", "[[sh, good.sh, 2]]")
    # A job without a place ends while the one before it is still being finished
    bad, good, other = sorted(result.outcomes, key=lambda outcome: outcome.argv)
    assert good.ok
    assert other.ok
    assert bad.status is Status.FAILED
    assert bad.directory is None
    assert "could not be made" in bad.problems[0]
    assert (project.experiments_folder / place).read_text() == "mine"
    assert not (project.path / "executed").exists()


async def test_experiments_that_are_no_folder(project: Project) -> None:
    project.write("job.sh", "echo never > executed")
    project.write("experiments", "mine")
    with pytest.raises(HermesError, match="experiments"):
        await project.run("[[sh, job.sh]]")
    assert project.tree(project.path).keys() == {"job.sh", "experiments", "x.hermes"}
    assert (project.path / "experiments").read_text() == "mine"


@pytest.mark.fault(9)
async def test_an_experiment_directory_that_vanishes_harms_that_job_alone(project: Project) -> None:
    project.write(
        "bad.sh",
        'printf %s "$1" > "made_$1"; rm -r "$HERMES_EXPERIMENT_DIR"; printf x > "later_$1"',
    )
    project.write("good.sh", 'printf %s "$1" > "made_$1"')
    result = await project.run("[[sh, good.sh]]", "[[sh, bad.sh]]", "[[sh, good.sh]]")
    good, bad, other = sorted(result.outcomes, key=lambda outcome: outcome.identifier)
    assert good.ok
    assert other.ok
    assert bad.status is Status.FAILED
    assert bad.problems
    # Nowhere else to be, so they are where the job left them
    assert project.leftovers(bad.identifier) == [
        f"later_{bad.identifier}",
        f"made_{bad.identifier}",
    ]
    assert (project.path / f"made_{bad.identifier}").read_text() == bad.identifier


@pytest.mark.fault(9)
@pytest.mark.usefixtures("forbidding")
async def test_an_experiments_folder_that_is_read_only(project: Project) -> None:
    project.write("job.sh", "")
    project.experiments_folder.mkdir(mode=0o555)
    with pytest.raises(HermesError, match="experiments"):
        await project.run("[[sh, job.sh]]")


@pytest.mark.fault(18)
async def test_a_run_that_finds_no_room_leaves_nothing_open(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "has_room", lambda _folder: False)
    gc.collect()
    descriptors = _descriptors()
    for _ in range(2):
        with pytest.raises(HermesError, match="No space left"):
            await project.run("[[sh, -c, true]]")
    # Earlier tests may still be closing theirs
    assert _descriptors() <= descriptors


async def test_a_busy_system_is_asked_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0
    real = processes._popen

    def refuse(*arguments: Any) -> Any:
        nonlocal refused
        if refused < 3:
            refused += 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real(*arguments)

    monkeypatch.setattr(processes, "_popen", refuse)
    project.write("job.sh", "")
    assert (await project.run("[[sh, job.sh]]")).ok
    assert refused == 3


# Ending a run

STUBBORN = """\
trap '' TERM
printf %s "$1" > "made_$1"
echo $$ > "$1.pid"
: > "ready_$1"
while :; do sleep 0.01; done
"""

STUBBORN_CHILD = """\
(trap '' TERM; : > child_ready; while :; do sleep 0.01; done) &
echo $! > "$1.pid"
printf %s "$1" > "made_$1"
while [ ! -e child_ready ]; do sleep 0.01; done
: > "ready_$1"
wait
"""

OBEDIENT = """\
trap 'echo "said $1"; printf %s late > "late_$1"; exit 5' TERM
echo $$ > "$1.pid"
printf %s "$1" > "made_$1"
: > "ready_$1"
while :; do sleep 0.01; done
"""


@pytest.fixture
def endless(project: Project) -> Iterator[Project]:
    """A project with jobs that do not end by themselves; none survives the test."""
    project.write("stubborn.sh", STUBBORN)
    project.write("child.sh", STUBBORN_CHILD)
    project.write("obedient.sh", OBEDIENT)
    yield project
    for file in project.path.rglob("*.pid"):
        text = file.read_text().strip()
        if text and is_alive(int(text)):
            os.kill(int(text), signal.SIGKILL)


def ready(project: Project, count: int) -> Callable[[], bool]:
    return lambda: len(list(project.path.glob("ready_*"))) == count


def pids(project: Project) -> list[int]:
    # Those that are collected already are in two places
    return sorted({int(file.read_text()) for file in project.path.rglob("*.pid")})


def check_ended(project: Project, count: int) -> None:
    """Nothing is alive, and everything has come home."""
    experiments = project.experiments()
    assert len(experiments) == count
    assert len(pids(project)) == count
    assert not any(is_alive(pid) for pid in pids(project))
    for experiment in experiments:
        assert experiment.status is Status.CANCELLED
        assert (
            experiment.directory / f"made_{experiment.identifier}"
        ).read_text() == experiment.identifier
        assert project.leftovers(experiment.identifier) == []
        assert experiment.problems == ()
        assert experiment.end is not None
        assert experiment.duration is not None


@pytest.mark.fault(5, 23)
@SUPERVISED
async def test_cancelled_by_the_host(endless: Project, supervise: bool) -> None:
    entries = [
        "[[sh, stubborn.sh]]",
        "[[sh, child.sh]]",
        "[[sh, obedient.sh]]",
        "[[sh, obedient.sh, never started]]",
    ]
    path = endless.hermes_file(*entries, settings={"supervise": supervise, "threads": 3})
    options: dict[str, Any] = {
        "working_directory": endless.path,
        "root": endless.path,
        "grace": 0.3,
    }
    returned = False
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            nonlocal returned
            await hermes.run_file(path, "test", **options)
            returned = True

        tasks.start_soon(run)
        await endless.until(ready(endless, 3))
        tasks.cancel_scope.cancel()
    assert not returned
    check_ended(endless, 3)
    by_script = {experiment.script: experiment for experiment in endless.experiments()}
    assert by_script["stubborn.sh"].signal == signal.SIGKILL
    assert by_script["child.sh"].signal == signal.SIGTERM
    # An obedient job may do its last things, and they are kept
    obedient = by_script["obedient.sh"]
    assert obedient.exit_code == 5
    assert obedient.stdout == f"said {obedient.identifier}\n"
    assert (obedient.directory / f"late_{obedient.identifier}").read_text() == "late"
    # The loop is as good as before
    assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    endless.write("next.sh", "")
    assert (await endless.run(*["[[sh, next.sh]]"] * 4, threads=3)).ok


async def test_cancelled_before_the_first_job(endless: Project) -> None:
    async with endless.open("[[sh, stubborn.sh]]") as run:
        run.cancel()
    assert run.result.cancelled
    assert run.result.outcomes == ()
    assert not run.result.ok
    assert endless.experiments() == []


async def test_cancelled_by_the_run(endless: Project) -> None:
    events = []
    with anyio.fail_after(30):
        async with endless.open(*["[[sh, obedient.sh]]"] * 3, threads=2, grace=20) as run:
            await endless.until(ready(endless, 2))
            run.cancel()
            async for event in run:
                events.append(event)
    # Nothing is raised: the block asked for it
    assert run.result.cancelled
    check_ended(endless, 2)
    assert [outcome.status for outcome in run.result.outcomes] == [Status.CANCELLED] * 2
    ended = events[-1]
    assert isinstance(ended, hermes.RunEnded)
    assert (ended.cancelled, ended.started, ended.succeeded) == (True, 2, 0)


@SUPERVISED
async def test_a_job_that_has_just_ended_is_not_cancelled(
    project: Project, supervise: bool
) -> None:
    project.write("job.sh", "while [ ! -e go ]; do sleep 0.01; done")
    async with project.open("[[sh, job.sh]]", settings={"supervise": supervise}) as run:
        pid = await project.until(
            lambda: [
                each.metadata["pid"] for each in project.experiments() if "pid" in each.metadata
            ]
        )
        project.write("go")
        # The loop is held up meanwhile, so the run has not heard of it
        while is_alive(pid[0]):
            time.sleep(0.005)  # noqa: ASYNC251
        run.cancel()
    assert project.experiment().status is Status.FINISHED


@SUPERVISED
async def test_killed_by_the_run(endless: Project, supervise: bool) -> None:
    with anyio.fail_after(30):
        async with endless.open(
            "[[sh, stubborn.sh]]",
            "[[sh, child.sh]]",
            threads=2,
            grace=1000,
            settings={"supervise": supervise},
        ) as run:
            await endless.until(ready(endless, 2))
            run.kill()
    check_ended(endless, 2)
    assert [outcome.signal for outcome in run.result.outcomes] == [signal.SIGKILL] * 2


async def test_killed_while_being_cancelled(endless: Project) -> None:
    with anyio.fail_after(30):
        async with endless.open("[[sh, stubborn.sh]]", grace=1000) as run:
            await endless.until(ready(endless, 1))
            run.cancel()
            await anyio.lowlevel.checkpoint()
            run.kill()
    check_ended(endless, 1)


async def test_killed_while_a_job_is_being_started(
    endless: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = processes._popen
    runs: list[hermes.Run] = []

    def kill_meanwhile(*arguments: Any) -> Any:
        process = real(*arguments)
        anyio.from_thread.run(endless.until, ready(endless, 1))
        anyio.from_thread.run_sync(runs[0].kill)
        return process

    monkeypatch.setattr(processes, "_popen", kill_meanwhile)
    with anyio.fail_after(30):
        async with endless.open("[[sh, stubborn.sh]]", grace=1000) as run:
            runs.append(run)
    check_ended(endless, 1)


@pytest.mark.fault(23)
async def test_an_exception_in_the_body(endless: Project) -> None:
    async def fail() -> None:
        async with endless.open("[[sh, obedient.sh]]", "[[sh, child.sh]]", threads=2, grace=0.3):
            await endless.until(ready(endless, 2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    check_ended(endless, 2)
    endless.write("next.sh", "")
    assert (await endless.run("[[sh, next.sh]]")).ok


@pytest.mark.fault(23)
async def test_an_exception_in_a_sibling_task(endless: Project) -> None:
    path = endless.hermes_file("[[sh, obedient.sh]]")

    async def run() -> None:
        await hermes.run_file(path, "test", working_directory=endless.path, root=endless.path)

    async def fail() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await endless.until(ready(endless, 1))
            raise ValueError("mine")

    with pytest.raises(ExceptionGroup) as caught:
        await fail()
    assert [type(each) for each in caught.value.exceptions] == [ValueError]
    check_ended(endless, 1)


async def test_a_stopped_job_is_ended_too(endless: Project) -> None:
    async with endless.open("[[sh, obedient.sh]]", grace=20) as run:
        await endless.until(ready(endless, 1))
        (pid,) = pids(endless)
        os.kill(pid, signal.SIGSTOP)
        run.cancel()
    check_ended(endless, 1)


async def test_files_are_copied_and_moved_after_a_cancelled_job(endless: Project) -> None:
    endless.write("copied.txt", "copied")
    async with endless.open("[[sh, obedient.sh],[-ca copied.txt, -ma moved.txt]]", grace=20) as run:
        await endless.until(ready(endless, 1))
        endless.write("moved.txt", "moved")
        run.cancel()
    check_ended(endless, 1)
    directory = endless.experiment().directory
    assert (directory / "copied.txt").read_text() == "copied"
    assert (directory / "moved.txt").read_text() == "moved"
    assert not (endless.path / "moved.txt").exists()


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


# Runs beside each other, and beside the host's own work


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


@pytest.mark.parametrize("name", ["ü \N{ROCKET}", "-n", "a b", "x" * 255, "'\"$(x)", "[red]"])
async def test_usable_names_are_used(project: Project, name: str) -> None:
    project.write("job.sh", "")
    assert (await project.run("[[sh, job.sh]]", name=name)).ok
    assert project.experiment().name == name
    assert project.experiment().directory.parent.name == name


async def test_no_job_outlives_a_run_that_fails_itself(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = starting.Starter.prepare

    def fail_at_third(starter: starting.Starter, pending: Pending) -> starting.Running:
        if pending.index == 2:
            # Nobody has foreseen it
            raise MemoryError
        return prepare(starter, pending)

    project.write("job.sh", "exec sleep 30")
    monkeypatch.setattr(starting.Starter, "prepare", fail_at_third)
    with pytest.raises(BaseExceptionGroup):
        await project.run(*["[[sh, job.sh]]"] * 3, threads=3)
    experiments = project.experiments()
    assert [experiment.status for experiment in experiments] == [Status.CANCELLED] * 2
