"""What a client makes of Slurm's answers, on a toy that gives those which are hard to get."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest

import hermes
from hermes import Status
from hermes.timing import Timing

from ...support import LIMIT, Desk, until
from ...support.toy_slurm import ToySlurm, toy_slurm

IMPATIENT = Timing(
    slurm_first_ask=0.2, slurm_last_ask=0.2, slurm_alive=0.5, slurm_settle=0.3, slurm_lost_after=1.0
)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToySlurm:
    return toy_slurm(tmp_path / "toy", monkeypatch)


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("job.sh", 'while [ -e "hold$2" ]; do sleep 0.02; done\necho "$2" >> ran\n')
    return desk


def sweep(desk: Desk, count: int, threads: int = 1) -> None:
    pre = f"PRE\nexecutor: slurm\nthreads: {threads}\n"
    desk.write("x.hermes", f"{pre}EXEC\nPROD([[sh, job.sh, {{n}}]], n=RANGE[0, {count}])\n")


def ran(desk: Desk) -> list[str]:
    path = desk.path / "ran"
    return sorted(path.read_text().split()) if path.exists() else []


def interrupted(desk: Desk, toy: ToySlurm) -> None:
    """A run whose client is gone, and whose jobs are queued."""
    with toy.held(), desk.started("exec", "-f", "x.hermes", "-n", "n") as client:
        until(lambda: toy.accepted(desk))
        client.kill()


def dependencies(toy: ToySlurm) -> list[str]:
    """On what each submission waits."""
    return [(re.findall(r"--dependency=(\S+)", call) or [""])[0] for call in toy.submitted]


def test_a_resumed_run_keeps_to_threads_with_what_it_finds(desk: Desk, toy: ToySlurm) -> None:
    """Its arrays are waited for, though nobody has told it their ids yet."""
    toy.before("scontrol", "echo MaxJobCount = 4; exit 0\n")
    sweep(desk, 3)
    desk.write("hold1")
    interrupted(desk, toy)

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(LIMIT):
            # Nothing else asks in time
            timing = Timing(slurm_first_ask=60.0)
            async with hermes.open_resumed(working_directory=desk.path, timing=timing) as run:
                await desk.until(lambda: len(toy.submitted) == 2)
                (desk.path / "hold1").unlink()
            return run.result

    assert anyio.run(execute).ok
    assert dependencies(toy) == ["", "afterany:1"]
    assert ran(desk) == ["0", "1", "2"]


def test_an_array_that_was_cancelled_as_a_whole_is_not_sent_again(
    desk: Desk, toy: ToySlurm
) -> None:
    sweep(desk, 3)

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(LIMIT), toy.held():
            async with hermes.open_run(
                desk.path / "x.hermes", "n", working_directory=desk.path, root=desk.path,
                timing=IMPATIENT,
            ) as run:  # fmt: skip
                await desk.until(lambda: toy.accepted(desk))
                toy.cancel_whole(1)
            return run.result

    result = anyio.run(execute)
    assert [outcome.status for outcome in result.outcomes] == [Status.CANCELLED] * 3
    assert len(toy.submitted) == 1


def test_commands_that_are_gone_for_a_while_are_waited_for(desk: Desk, toy: ToySlurm) -> None:
    """A module that was unloaded, or a disk that is away."""
    sweep(desk, 2)

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(LIMIT):
            async with hermes.open_run(
                desk.path / "x.hermes", "n", working_directory=desk.path, root=desk.path,
                timing=IMPATIENT,
            ) as run:  # fmt: skip
                with toy.held():
                    await desk.until(lambda: toy.accepted(desk))
                    toy.bin.rename(toy.folder / "away")
                    warnings = run.result.warnings
                    await desk.until(lambda: run.result.warnings != warnings)
                    (toy.folder / "away").rename(toy.bin)
            return run.result

    result = anyio.run(execute)
    assert result.ok
    assert "Slurm does not answer, asking again" in result.warnings[-1]
    assert ran(desk) == ["0", "1"]


def test_what_was_cancelled_while_nobody_followed_is_run_again(desk: Desk, toy: ToySlurm) -> None:
    sweep(desk, 2)
    with toy.held():
        with desk.started("exec", "-f", "x.hermes", "-n", "n") as client:
            until(lambda: toy.accepted(desk))
            client.kill()
        toy.cancel_whole(1)

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(LIMIT):
            async with hermes.open_resumed(working_directory=desk.path, timing=IMPATIENT) as run:
                pass
            return run.result

    assert anyio.run(execute).ok
    assert ran(desk) == ["0", "1"]


@pytest.mark.parametrize("moment", ["before", "opening"])
def test_a_run_that_is_cancelled_at_once_submits_nothing(
    desk: Desk, toy: ToySlurm, moment: str
) -> None:
    sweep(desk, 2)

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(LIMIT):
            async with hermes.open_run(
                desk.path / "x.hermes", "n", working_directory=desk.path, root=desk.path
            ) as run:
                if moment == "opening":
                    await desk.until(lambda: toy.calls("scontrol"))
                run.cancel()
            return run.result

    result = anyio.run(execute)
    assert result.cancelled
    assert toy.submitted == []
