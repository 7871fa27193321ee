"""Folders and files that somebody removes or spoils while jobs are with Slurm: told in plain words,
and nothing hangs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

import hermes
from hermes import Status
from hermes.timing import Timing

from ..support import LIMIT, Desk, some, until
from ..support.toy_slurm import ToySlurm, toy_slurm

pytestmark = [pytest.mark.fault(34)]

WAIT = "while [ -e hold ]; do sleep 0.02; done\n"
JOB = f'echo "$2" >> ran\ntouch "made_$1"\n{WAIT}echo "$2" >> ended\n'

IMPATIENT = Timing(
    slurm_first_ask=0.2, slurm_last_ask=0.2, slurm_alive=0.5, slurm_settle=0.3, slurm_lost_after=2.0
)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToySlurm:
    return toy_slurm(tmp_path / "toy", monkeypatch)


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("job.sh", JOB)
    pre = "PRE\nexecutor: slurm\nthreads: 2\n"
    desk.write("x.hermes", f"{pre}EXEC\nPROD([[sh, job.sh, {{n}}]], n=RANGE[0, 3])\n")
    return desk


def lines(desk: Desk, name: str) -> list[str]:
    path = desk.path / name
    return sorted(path.read_text().split()) if path.exists() else []


def run_folder(desk: Desk) -> Path:
    (record,) = desk.experiments_folder.glob(".hermes/*/run.json")
    return record.parent


def take_away(folder: Path) -> None:
    """Removes a folder at once, though others may write into it meanwhile."""
    away = folder.rename(folder.parent / "removed")
    shutil.rmtree(away, ignore_errors=True)


REMOVED: dict[str, Callable[[Desk], Path]] = {
    "experiments": lambda desk: desk.experiments_folder,
    "run": run_folder,
    "tasks": lambda desk: run_folder(desk) / "slurm",
}


def execute(desk: Desk, meanwhile: Callable[[], object]) -> hermes.RunResult:
    """A run with something that happens in it."""

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(LIMIT):
            async with hermes.open_run(
                desk.path / "x.hermes", "n", working_directory=desk.path, root=desk.path,
                timing=IMPATIENT,
            ) as run:  # fmt: skip
                await anyio.to_thread.run_sync(meanwhile)
            return run.result

    return anyio.run(execute)


@pytest.mark.parametrize("what", some(REMOVED, 2))
def test_removed_while_jobs_are_queued(desk: Desk, toy: ToySlurm, what: str) -> None:
    def remove() -> None:
        with toy.held():
            until(lambda: toy.accepted(desk))
            take_away(REMOVED[what](desk))

    result = execute(desk, remove)
    assert [outcome.status for outcome in result.outcomes] == [Status.FAILED] * 3
    for outcome in result.outcomes:
        (problem,) = outcome.problems
        assert problem.text.startswith("the node could not start it: ")
    assert lines(desk, "ran") == []


@pytest.mark.parametrize("what", some(REMOVED, 2))
def test_removed_while_a_job_runs(desk: Desk, toy: ToySlurm, what: str) -> None:
    desk.write("hold")

    def remove() -> None:
        until(lambda: lines(desk, "ran") == ["0"])
        take_away(REMOVED[what](desk))
        (desk.path / "hold").unlink()

    result = execute(desk, remove)
    assert len(result.outcomes) == 3
    assert not any(outcome.ok for outcome in result.outcomes)
    assert sum("was removed" in warning for warning in result.warnings) == 1
    # It was not ended, and nothing else began
    assert lines(desk, "ended") == ["0"]
    assert lines(desk, "ran") == ["0"]


def test_removed_while_a_long_job_runs_it_is_let_run(desk: Desk, toy: ToySlurm) -> None:
    desk.write("hold")
    calls = 0

    def remove() -> None:
        nonlocal calls
        until(lambda: lines(desk, "ran") == ["0"])
        take_away(desk.experiments_folder)
        calls = len(toy.calls("squeue"))
        until(lambda: len(toy.calls("squeue")) > calls + 8)
        (desk.path / "hold").unlink()

    execute(desk, remove)
    assert toy.calls("scancel") == []
    assert lines(desk, "ended") == ["0"]


@pytest.mark.parametrize("what", some(REMOVED, 2))
@pytest.mark.parametrize("moment", ["queued", "running"])
def test_removed_and_left(desk: Desk, toy: ToySlurm, what: str, moment: str) -> None:
    desk.write("hold")
    if moment == "queued":
        (toy.folder / "hold").touch()
    with desk.started("exec", "-f", "x.hermes", "-n", "n") as client:
        until(lambda: toy.accepted(desk) if moment == "queued" else lines(desk, "ran"))
        take_away(REMOVED[what](desk))
        client.send_signal(2)
        _, told = client.communicate(timeout=LIMIT)
    assert "Traceback" not in told
    for command in ("stop", "resume"):
        # What is there of it is taken up, or there is nothing to be found
        (desk.path / "hold").unlink(missing_ok=True)
        (toy.folder / "hold").unlink(missing_ok=True)
        with desk.started(command) as other:
            _, told = other.communicate(timeout=LIMIT)
        assert "Traceback" not in told, told
        assert other.returncode in (0, 1, 2)
    # Nothing ran twice, but what was stopped and resumed
    assert len(lines(desk, "ran")) <= 4


def test_what_cannot_be_written_any_more_is_not_submitted(desk: Desk, toy: ToySlurm) -> None:
    """The rest of a run whose folder was removed."""
    desk.write("hold")

    def remove() -> None:
        until(lambda: lines(desk, "ran") == ["0"])
        take_away(desk.experiments_folder)
        (desk.path / "hold").unlink()

    toy.before("scontrol", "echo MaxJobCount = 2; exit 0\n")
    result = execute(desk, remove)
    assert len(result.outcomes) == 3
    texts = [problem.text for outcome in result.outcomes for problem in outcome.problems]
    assert sum("cannot write to `" in text for text in texts) == 2
    assert len(toy.submitted) == 1
    assert not desk.experiments_folder.exists()


def put_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_garbage(path: Path) -> None:
    path.write_bytes(b"\xff{")


SPOILERS = [put_pipe, put_link, put_garbage, Path.mkdir]


def interrupted(desk: Desk, toy: ToySlurm) -> None:
    """A run whose client is gone, and whose jobs are queued."""
    with desk.started("exec", "-f", "x.hermes", "-n", "n") as client:
        until(lambda: toy.accepted(desk))
        client.kill()


@pytest.mark.parametrize("put", some(SPOILERS, 2))
def test_the_list_of_tasks_is_spoiled(
    desk: Desk, toy: ToySlurm, put: Callable[[Path], object]
) -> None:
    with toy.held():
        interrupted(desk, toy)
        tasks = run_folder(desk) / "slurm"
        (tasks / "0.json").unlink()
        put(tasks / "0.json")
        for command in ("resume", "stop"):
            told = desk.hermes(command, tasks.parent.name, code=2, timeout=LIMIT).stderr
            told_last = told.splitlines()[-1]
            assert told_last.startswith(f"error: `{tasks / '0.json'}` ")
    until(lambda: "PENDING" not in toy.states.values())
    assert lines(desk, "ran") == []


def test_a_spoiled_run_keeps_nobody_from_stopping_another(desk: Desk, toy: ToySlurm) -> None:
    with toy.held():
        interrupted(desk, toy)
        spoiled = run_folder(desk) / "slurm" / "0.json"
        text = spoiled.read_bytes()
        spoiled.write_bytes(b"{")
        with desk.started("exec", "-f", "x.hermes", "-n", "other") as client:
            until(lambda: toy.accepted(desk) == 2)
            client.kill()
        assert "(other, " in desk.hermes("stop", timeout=LIMIT).stderr
        assert set(toy.states.values()) == {"CANCELLED", "PENDING"}
    spoiled.write_bytes(text)


@pytest.mark.parametrize("put", some(SPOILERS, 2))
@pytest.mark.parametrize("name", ["0.0.ended", "0.0.running", "0.0.claim"])
def test_a_file_of_a_task_is_spoiled(
    desk: Desk, toy: ToySlurm, name: str, put: Callable[[Path], object]
) -> None:
    desk.write("job.sh", WAIT + JOB)
    desk.write("hold")

    def spoil() -> None:
        until(lambda: desk.experiments() and desk.experiment().metadata.pid)
        path = run_folder(desk) / "slurm" / name
        until(lambda: path.exists() or name.endswith("ended"))
        subprocess.run(["rm", "-rf", path], check=True)
        put(path)
        (desk.path / "hold").unlink()

    result = execute(desk, spoil)
    assert len(result.outcomes) == 3
    assert lines(desk, "ran") == ["0", "1", "2"]
    statuses = [str(each.status) for each in desk.experiments()]
    assert statuses == ["finished"] * 3
