"""Jobs on this machine: what they get, what is kept of them, and what cannot be started."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import hermes
from hermes import ProblemKind, Status

from ..support import Project, is_alive
from ..support.endless import check_ended, ready
from ..support.jobs import SUPERVISED, TELL, in_words, told

pytestmark = pytest.mark.anyio


@SUPERVISED
async def test_what_a_job_gets(
    project: Project, monkeypatch: pytest.MonkeyPatch, supervise: bool
) -> None:
    odd = {
        "BASH_FUNC_x%%": "() {  echo 'x y'\n}", "with space": "a b", "a.b": "'\"$(echo)`",
        "-n": "1", "9": "digit", "ü": "ü",
        "IFS": "/", "LINES2": "one\ntwo\n", "EMPTY": "", "BYTES": "\udcff\udc80",
        "LC_ALL": "C.UTF-8",
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
            "HERMES_GRACE": "10",
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
    ) == ["journal", "lock", "progress", "run.json"]


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
        "before.sh": 0, "shebang": 127, "text": 0, "empty": 0, "binary": 126, "gone": 127,
        "changed": 126, "folder": 126, "good.sh": 0
    }  # fmt: skip
    for experiment in project.experiments():
        # Without `#!` a text is a script for the shell, as `execvp` and every shell see it
        if experiment.script not in ("before.sh", "good.sh", "text", "empty"):
            assert experiment.status is Status.FAILED
            # Why is told somewhere: by the shell that tried, or as a problem
            assert experiment.stderr or experiment.problems


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
        assert tuple(map(str, first.problems)) == (f"left processes behind: {pid}",)
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
pieces = (
    (1, b"a\\0b"), (2, b"\\xff\\xfe"), (1, b"\\r\\nno end"), (2, b"x\\r"), (1, long),
    (2, b"\\x1b[31m"), (1, b"end"),
)
for fd, data in pieces:
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
        "for i in 1 2 3 4 5 6; do echo $i & wait; sh -c 'echo in $0' $i; echo again $i >> "
        "/dev/stdout; done",
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
    assert "could not be made" in bad.problems[0].text
    assert (project.experiments_folder / place).read_text() == "mine"
    assert not (project.path / "executed").exists()


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


async def test_a_busy_system_is_asked_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0
    real = anyio.open_process

    async def refuse(*arguments: Any, **options: Any) -> Any:
        nonlocal refused
        if refused < 3:
            refused += 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return await real(*arguments, **options)

    monkeypatch.setattr(anyio, "open_process", refuse)
    project.write("job.sh", "")
    assert (await project.run("[[sh, job.sh]]")).ok
    assert refused == 3


async def test_a_path_named_like_a_full_disk_is_only_missing(project: Project) -> None:
    project.write("job.sh", "")
    result = await project.run('[[sh, job.sh],[-ca "No space left on device"]]', "[[sh, job.sh]]")
    first, second = sorted(result.outcomes, key=lambda outcome: outcome.identifier)
    assert (first.status, first.exit_code) == (Status.FINISHED, 0)
    assert [problem.kind for problem in first.problems] == [ProblemKind.NOT_COPIED]
    assert second.ok
    assert not result.disk_full


async def test_cancel_is_followed_by_copies_and_moves(endless: Project) -> None:
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
