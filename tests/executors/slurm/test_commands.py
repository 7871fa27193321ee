"""How Slurm's commands are called, and how their output is read. No cluster is needed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from hermes.errors import HermesError
from hermes.executors.slurm.commands import (
    Commands,
    Limits,
    NoAnswerError,
    NotTakenError,
    Row,
    parse_duration,
    parse_limits,
    parse_queue,
    parse_submitted,
    require_slurm,
)
from hermes.executors.slurm.refusals import Meaning

from ...support import Desk, until

HEADING = "JOBID|STATE|REASON|RESTART_COUNT|NODELIST|NAME\n"
QUEUE = f"""\
{HEADING}3_0|CANCELLED|None|0|n2|hermes-a
3_6|PENDING|JobArrayTaskLimit|0||hermes-a
3_5|PENDING|JobArrayTaskLimit,JobHeldAdmin|1||hermes-a
3_1|OUT_OF_MEMORY|OutOfMemory|0|n1|hermes-a
3_2|NODE_FAIL|NodeDown|0|n1|a|b, "c"
3_[7-9%3]|PENDING|Priority|0||hermes-a
4|COMPLETED|None|0|n1|job.sh
5_1|CANCELLED by 1000|launch failed requeued held|0|n1|hermes-a
"""
"""Of Slurm 22.05; a list of tasks that is not taken apart says nothing of any of them."""


def row(array: str, task: int | None, *rest: str, restarts: int = 0) -> Row:
    state, reason, nodes, name = rest
    return Row(
        array=array, task=task, state=state, reason=reason, restarts=restarts, nodes=nodes,
        name=name,
    )  # fmt: skip


def test_the_queue_is_read() -> None:
    assert parse_queue(QUEUE) == [
        row("3", 0, "CANCELLED", "None", "n2", "hermes-a"),
        row("3", 6, "PENDING", "JobArrayTaskLimit", "", "hermes-a"),
        row("3", 5, "PENDING", "JobArrayTaskLimit,JobHeldAdmin", "", "hermes-a", restarts=1),
        row("3", 1, "OUT_OF_MEMORY", "OutOfMemory", "n1", "hermes-a"),
        row("3", 2, "NODE_FAIL", "NodeDown", "n1", 'a|b, "c"'),
        # No array, or one that was cancelled as a whole
        row("4", None, "COMPLETED", "None", "n1", "job.sh"),
        row("5", 1, "CANCELLED", "launch failed requeued held", "n1", "hermes-a"),
    ]
    assert parse_queue(HEADING) == []
    for no_answer in ("", "Have a nice day\n", "slurm_load_jobs error: Invalid job id specified\n"):
        assert parse_queue(no_answer) is None


def test_the_configuration_is_read() -> None:
    lines = (
        "Configuration data as of 2026-11-22T17:22:43",
        "MaxArraySize            = 11",
        "MaxJobCount = 9",
        "MessageTimeout          = 5 sec",
    )
    assert parse_limits("\n".join(lines)) == Limits(11, 9, 5.0)
    fewer = "SchedulerParameters     = bf_interval=1,max_array_tasks=7,defer"
    assert parse_limits("\n".join([*lines, fewer])) == Limits(7, 9, 5.0)
    assert parse_limits("") == Limits(1001, 10_000, 10.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:29", 29),
        ("1:00", 60),
        ("2:03:04", 7384),
        ("1-00:00:01", 86401),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_durations_are_read(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "job"),
    [
        ("Submitted batch job 123\n", "123"),
        ("Submitted batch job 123 on cluster far\n", "123"),
        ("You have 2 jobs.\n2\nSubmitted batch job 123\n97\n", "123"),
        # A wrapper that prints as with `--parsable`
        ("123\n", "123"),
        ("123;cluster\n", "123"),
        ("Welcome to the cluster!\n2 news\n\n123\n", "123"),
        ("", None),
        ("Submitted batch job\n", None),
    ],
)
def test_the_id_of_a_submitted_job_is_found_among_banners(text: str, job: str | None) -> None:
    assert parse_submitted(text) == job


# Calling them


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with commands that are found first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def not_taken(program: Path, script: str) -> NotTakenError:
    put(program, "sbatch", script)
    with pytest.raises(NotTakenError) as caught:
        Commands().submit([])
    return caught.value


FAILED = 'echo "sbatch: error: Batch job submission failed: Invalid qos specification" >&2'


@pytest.mark.parametrize(
    ("script", "meaning", "said"),
    [
        (f"{FAILED}; exit 1", Meaning.REFUSED, "Invalid qos specification"),
        # A banner's number is no id
        (f"echo 42; {FAILED}; exit 1", Meaning.REFUSED, "Invalid qos specification"),
        ("echo 'no quota for you'; exit 1", Meaning.REFUSED, "no quota for you"),
        ("exit 1", Meaning.UNCLEAR, "it said nothing"),
        ("echo what", Meaning.UNCLEAR, "what"),
        ("echo Terminated >&2; exit 143", Meaning.UNCLEAR, "Terminated"),
        ("echo Killed >&2; kill -9 $$", Meaning.UNCLEAR, "Killed"),
        # What a site does behind the real command has failed
        ("echo Submitted batch job 42; echo oops >&2; exit 1", Meaning.UNCLEAR, "oops"),
    ],
)
def test_a_submission_that_is_not_confirmed(
    program: Path, script: str, meaning: Meaning, said: str
) -> None:
    error = not_taken(program, script)
    assert (error.meaning, error.said.rpartition("failed: ")[2]) == (meaning, said)


def test_a_submission_is_accepted(program: Path) -> None:
    put(program, "sbatch", "echo 'Have a nice day'; echo Submitted batch job 42")
    assert Commands().submit([]) == "42"


def test_what_a_command_leaves_behind_holds_up_nothing(program: Path) -> None:
    put(program, "sbatch", "echo Submitted batch job 42; sleep 20 & exit 0")
    before = time.monotonic()
    assert Commands().submit([]) == "42"
    assert time.monotonic() - before < 5


def test_a_command_that_cannot_be_called_gives_no_answer(program: Path) -> None:
    (program / "squeue").write_text("no program")
    with pytest.raises(NoAnswerError, match="cannot be called: Permission denied"):
        Commands().call([str(program / "squeue")], 5)
    put(program, "squeue", "exit 0")
    with pytest.raises(NoAnswerError, match="cannot be called: Argument list too long"):
        Commands().call(["squeue", "x" * 2**18], 5)


def test_as_many_jobs_as_there_are_can_be_asked_about(program: Path) -> None:
    put(program, "squeue", f"echo '{HEADING.strip()}'; echo '7_1|PENDING|None|0||x'")
    names = [f"hermes-20261125-195000-0a1b2c3d-{number}" for number in range(5000)]
    assert len(Commands().queue(names)) == 5


def test_the_environment_does_not_change_what_is_asked(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-3")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    put(program, "sbatch", 'echo "sbatch: error: $SBATCH_ACCOUNT$SBATCH_ARRAY_INX" >&2; exit 1')
    with pytest.raises(NotTakenError, match=r"^mine$"):
        Commands().submit([])


def test_a_command_that_hangs_is_given_up(program: Path) -> None:
    # With a child that holds its pipes
    put(program, "squeue", "sleep 60 & wait")
    before = time.monotonic()
    with pytest.raises(NoAnswerError, match="`squeue` did not answer"):
        Commands().call(["squeue"], 0.2)
    assert time.monotonic() - before < 5


def test_commands_under_way_are_abandoned(program: Path, tmp_path: Path) -> None:
    put(program, "squeue", f"touch {tmp_path}/called; sleep 60 & wait")
    commands, errors = Commands(), []

    def ask() -> None:
        try:
            commands.queue(["x"])
        except NoAnswerError as exc:
            errors.append(exc)

    asking = threading.Thread(target=ask)
    asking.start()
    until((tmp_path / "called").exists)
    commands.abandon()
    asking.join(5)
    assert len(errors) == 1
    with pytest.raises(NoAnswerError):
        commands.queue(["x"])


def test_without_slurm_that_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HermesError, match="there is no Slurm here"):
        require_slurm()


def test_own_options_cannot_be_given(desk: Desk) -> None:
    for option in (
        "--array=0-3",
        "-a 1",
        "--wrap=x",
        "-o x",
        "--job-name y",
        "--dependency=afterok:1",
    ):
        desk.write("x.hermes", f"EXEC\n[[sh, job.sh],[-s '{option}']]\n")
        told = desk.hermes("exec", "-f", "x.hermes", code=2).stderr
        assert "is what Hermes itself gives to `sbatch`" in told
        assert "--> x.hermes:2:" in told
    desk.write("x.hermes", "PRE\nslurm: -p 'a\nEXEC\n[[sh, job.sh]]\n")
    assert "cannot be split into words" in desk.hermes("exec", "-f", "x.hermes", code=2).stderr
    desk.write("x.hermes", "PRE\nexecutor: cloud\nEXEC\n[[sh, job.sh]]\n")
    assert "expected `local` or `slurm`" in desk.hermes("exec", "-f", "x.hermes", code=2).stderr
