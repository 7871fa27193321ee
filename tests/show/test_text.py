"""What people are told about a run, as text: tables of plain values, and the ends of logs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from hermes.language.compiling import compile_file
from hermes.language.plan import Plan
from hermes.model import Outcome, Problem, ProblemKind, RunResult, Status
from hermes.show import text

from ..support import Project

PROBLEM = Problem(ProblemKind.NOT_COPIED, "`-ca x`: no such file or directory")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.0 s"),
        (3.21, "3.2 s"),
        (99.9, "99.9 s"),
        (100.0, "1:40"),
        (247.4, "4:07"),
        (3599.6, "1:00:00"),
        (7390.0, "2:03:10"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain", "plain"),
        (b"10%\r20%\r30%", "30%"),
        (b"done\r", "done"),
        (b"a\tb", "a       b"),
        (b"\x1b[2J", "\\x1b[2J"),
        (b"\xff\x00", "\\xff\\x00"),
        ("ü\N{ROCKET}".encode(), "ü\N{ROCKET}"),
        (b"", ""),
    ],
)
def test_lines_of_logs_are_made_harmless(line: bytes, shown: str) -> None:
    assert text.printable(line) == shown


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (b"", []),
        (b"\n", []),
        (b"one", ["one"]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\n\nthree\nfour\n", ["", "three", "four"]),
        (b"x" * 10**5 + b"\nlast\n", ["x" * (text.TAIL_BYTES - len("\nlast\n")), "last"]),
    ],
)
def test_the_tail_of_a_log(tmp_path: Path, written: bytes, lines: list[str]) -> None:
    log = tmp_path / "log"
    log.write_bytes(written)
    assert text.tail(str(log), 3) == lines
    assert text.tail(str(tmp_path / "none"), 3) == []


def test_the_last_line_is_that_of_the_stream_that_changed_later(tmp_path: Path) -> None:
    assert text.last_line(str(tmp_path)) == ""
    for name, said, when in (("stdout", "out", 1), ("stderr", "err", 2)):
        path = tmp_path / f"{name}.log"
        path.write_text(f"{said}\n")
        os.utime(path, (when, when))
    assert text.last_line(str(tmp_path)) == "err"
    (tmp_path / "stderr.log").write_text("")
    assert text.last_line(str(tmp_path)) == "out"


@pytest.fixture
def plan(project: Project, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Four jobs, in the present directory."""
    monkeypatch.chdir(project.path)
    project.write("job.sh")
    path = project.hermes_file("PROD([[sh, job.sh, --same 1 -n {n}]], n=RANGE[0, 4])")
    return compile_file(path, working_directory=project.path, root=project.path)


def outcome(status: Status, *problems: Problem, exit_code: int | None = None) -> Outcome:
    return Outcome(
        identifier="id",
        script="job",
        directory=None,
        status=status,
        exit_code=exit_code,
        duration=1.0,
        problems=problems,
        argv=("sh", "job.sh", "a b"),
        line=1,
    )


DONE = outcome(Status.FINISHED, exit_code=0)
BAD = outcome(Status.FAILED, exit_code=3)
CANCELLED = outcome(Status.CANCELLED)

RESULT = RunResult(run_id="r", name="study", outcomes=(), cancelled=False, warnings=())


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (replace(RESULT, outcomes=(DONE,) * 4), "4 finished; results in experiments"),
        (
            replace(RESULT, outcomes=(DONE, DONE, BAD, outcome(Status.FINISHED, PROBLEM))),
            "2 finished, 1 failed, 1 finished with problems; results in experiments",
        ),
        (
            replace(RESULT, outcomes=(DONE, CANCELLED), cancelled=True),
            "1 finished, 1 cancelled, 2 never started; results in experiments; "
            "`hermes resume` goes on",
        ),
        (
            replace(RESULT, outcomes=(BAD,), disk_full=True, succeeded_before=1),
            "1 failed, 1 finished before, 2 never started; results in experiments; "
            "make room, then `hermes resume --failed` goes on",
        ),
        (
            replace(RESULT, outcomes=(DONE,), failed_before=1, left=2),
            "1 finished, 1 failed before, 2 still with the cluster; results in experiments",
        ),
        (
            replace(RESULT, outcomes=(DONE,), succeeded_before=1, running_elsewhere=2),
            "1 finished, 1 finished before, 2 in another run; results in experiments",
        ),
    ],
)
def test_summaries(plan: Plan, result: RunResult, told: str) -> None:
    assert text.summary(result, plan, 2.0) == f"study: 4 jobs in 2.0 s: {told}"


@pytest.mark.parametrize(
    ("ended", "is_told"),
    [
        (DONE, False),
        (BAD, True),
        (CANCELLED, False),
        (outcome(Status.CANCELLED, PROBLEM), True),
        (outcome(Status.FINISHED, PROBLEM), True),
        (outcome(Status.LOST), True),
    ],
)
def test_failures_are_what_somebody_should_be_told(ended: Outcome, is_told: bool) -> None:
    assert text.is_failure(ended) is is_told


def test_failures_are_told_line_by_line(plan: Plan) -> None:
    assert text.failure(outcome(Status.FAILED, PROBLEM, exit_code=3), "study", plan) == [
        "failed: job id: exit code 3, after 1.0 s",
        "    problem: `-ca x`: no such file or directory",
        "    command: sh job.sh 'a b'",
    ]
    assert text.failure(outcome(Status.FINISHED, PROBLEM), "study", plan)[0] == (
        "problems: job id after 1.0 s"
    )
    assert len(text.failure(CANCELLED, "study", plan)) == 1


def test_jobs_are_told_apart_by_the_arguments_that_differ(plan: Plan) -> None:
    differences = text.Differences(plan)
    jobs = list(plan.jobs)
    assert [differences.of(job.script, job.arguments) for job in jobs] == [
        ["-n 0"], ["-n 1"], ["-n 2"], ["-n 3"],
    ]  # fmt: skip
    # Of a script with one job nothing can be left out
    differences.add("other", ("--x", "1", "2", "-3"))
    assert differences.of("other", ("--x", "1", "2", "-3")) == ["--x 1 2 -3"]


def test_a_long_command_is_shortened(plan: Plan) -> None:
    ended = replace(BAD, status=Status.FAILED, argv=("python", "train.py", *["x" * 100] * 20_000))
    told = "\n".join(text.failure(ended, "name", plan))
    assert len(told) < 3000
    assert "xxx... (2020015 characters)" in told


@pytest.mark.parametrize(
    ("line", "is_told"),
    [
        ("train.py: error: unrecognized arguments: {}", True),
        ("cat: {}: No such file or directory", True),
        ("Error: Got unexpected extra argument ({})", True),
        ("unknown argument {}.", True),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'out/{}/x'", False),
        ("No such file or directory: 'model_{}.pt'", False),
        ("ValueError: bad value, while {} was written", False),
        ("unrecognized arguments: --foo", False),
    ],
)
def test_a_script_that_does_not_know_its_identifier(
    line: str, is_told: bool, plan: Plan, tmp_path: Path
) -> None:
    identifier = "2021_07_25_160008326976_1930e"
    (tmp_path / "stderr.log").write_text(f"usage: x\n{line.format(identifier)}\n")
    ended = replace(
        BAD, status=Status.FAILED, exit_code=2, identifier=identifier, directory=str(tmp_path)
    )
    told = text.failure(ended, "name", plan)
    assert any(text.KEEP_AWAY in each for each in told) == is_told


def test_failures_that_are_alike_are_told_once(plan: Plan, tmp_path: Path) -> None:
    failures = text.Failures(plan)

    def told(number: int, last: str, **changes: object) -> list[str]:
        directory = tmp_path / str(number)
        directory.mkdir()
        identifier = f"2021_07_25_16000832697{number}_1930e"
        (directory / "stderr.log").write_text(f"Traceback\n{last.format(identifier)}\n")
        ended = replace(
            BAD, status=Status.FAILED, exit_code=1, problems=(), identifier=identifier,
            directory=str(directory),
        )  # fmt: skip
        return failures.lines(replace(ended, **changes), "study")

    assert len(told(0, "ValueError: 17 of {}")) > 4
    (again,) = told(1, "ValueError: 3 of {}")
    assert again.startswith("failed: ")
    assert again.endswith(", like 160008326970")
    # Another reason, another exit code, another script
    assert len(told(2, "KeyError: 17 of {}")) > 4
    assert len(told(3, "ValueError: 17 of {}", exit_code=2)) > 4
    assert len(told(4, "ValueError: 17 of {}", script="other")) > 4
