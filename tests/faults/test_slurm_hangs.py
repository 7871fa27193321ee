"""Slurm's commands hang: whoever wants to leave leaves all the same, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

import hermes
from hermes.timing import Timing

from ..support import LIMIT, Desk, some, until
from ..support.toy_slurm import HANG, HANG_IN_EARNEST, ToySlurm, toy_slurm

pytestmark = [pytest.mark.fault(34)]

LEAVES = 2.0
"""Seconds in which a run is left."""

FILE = "PRE\nexecutor: slurm\nthreads: 2\nEXEC\nPROD([[sh, job.sh, {n}]], n=RANGE[0, 3])\n"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToySlurm:
    return toy_slurm(tmp_path / "toy", monkeypatch)


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("job.sh", 'echo "$2" >> ran\n')
    desk.write("x.hermes", FILE)
    return desk


def ran(desk: Desk) -> list[str]:
    path = desk.path / "ran"
    return sorted(path.read_text().split()) if path.exists() else []


def told_at_end(client: subprocess.Popen[str], *numbers: signal.Signals) -> str:
    """Sends signals, the second when the first is known to have come; what is told in the end."""
    began = time.monotonic()
    for number in numbers:
        client.send_signal(number)
        # Two within 0.2 s are the same request
        time.sleep(0.25 if len(numbers) > 1 else 0)
    _, told = client.communicate(timeout=LIMIT)
    took = time.monotonic() - began
    assert took < LEAVES + 0.25 * (len(numbers) - 1), f"{took:.1f} s"
    assert "Traceback" not in told, told
    assert client.returncode == -numbers[0]
    return told


SIGNALS = [
    pytest.param((signal.SIGINT,), id="ctrl-c"),
    pytest.param((signal.SIGINT, signal.SIGINT), id="ctrl-c twice"),
    pytest.param((signal.SIGTERM,), id="term"),
]


@pytest.mark.parametrize("signals", SIGNALS)
@pytest.mark.parametrize("command", some(["sbatch --test-only", "scontrol", "sbatch", "squeue"], 2))
def test_a_signal_waits_for_no_command(
    desk: Desk, toy: ToySlurm, command: str, signals: tuple[signal.Signals, ...]
) -> None:
    name, _, only = command.partition(" ")
    toy.before(name, HANG if only or name != "sbatch" else HANG_IN_EARNEST)
    with toy.held(), desk.started("exec", "-f", "x.hermes", "-n", "n") as client:
        until(lambda: toy.hangs)
        told = told_at_end(client, *signals)
    if command == "sbatch --test-only":
        assert told == ""
        assert not desk.experiments_folder.exists()
        return
    if command in ("sbatch", "squeue"):
        assert "3 still with the cluster" in told
    toy.before(name, "")
    desk.hermes("resume", timeout=LIMIT)
    assert ran(desk) == ["0", "1", "2"]
    assert len(desk.experiments()) == 3


@pytest.mark.parametrize("command", ["scontrol", "squeue"])
def test_resuming_waits_for_no_command(desk: Desk, toy: ToySlurm, command: str) -> None:
    with toy.held():
        with desk.started("exec", "-f", "x.hermes", "-n", "n") as client:
            until(lambda: toy.accepted(desk))
            client.kill()
        toy.before(command, HANG)
        with desk.started("resume") as client:
            until(lambda: toy.hangs)
            told_at_end(client, signal.SIGINT)
    toy.before(command, "")
    desk.hermes("resume", timeout=LIMIT)
    assert ran(desk) == ["0", "1", "2"]


@pytest.mark.parametrize("signals", SIGNALS)
@pytest.mark.parametrize("command", some(["scontrol", "scancel", "squeue"], 1))
def test_who_stops_a_run_waits_for_no_command(
    desk: Desk, toy: ToySlurm, command: str, signals: tuple[signal.Signals, ...]
) -> None:
    with toy.held():
        with desk.started("exec", "-f", "x.hermes", "-n", "n") as client:
            until(lambda: toy.accepted(desk))
            client.kill()
        toy.before(command, HANG)
        with desk.started("stop") as client:
            until(lambda: toy.hangs)
            told_at_end(client, *signals)
        toy.before(command, "")
        if signals != (signal.SIGINT,):
            # The rest takes seconds, and once is enough
            return
        told = desk.hermes("stop", timeout=LIMIT).stderr
        assert "Traceback" not in told
        assert set(toy.states.values()) == {"CANCELLED"}
    assert ran(desk) == []
    desk.hermes("resume", timeout=LIMIT)
    assert ran(desk) == ["0", "1", "2"]


@pytest.mark.parametrize("command", ["sbatch", "squeue"])
def test_a_client_whose_command_hangs_leaves_when_its_run_is_stopped(
    desk: Desk, toy: ToySlurm, command: str
) -> None:
    toy.before(command, HANG_IN_EARNEST)
    with toy.held(), desk.started("exec", "-f", "x.hermes", "-n", "n") as client:
        until(lambda: toy.hangs)
        with desk.started("stop") as stop:
            _, told = client.communicate(timeout=LIMIT)
            assert "stopped by `hermes stop`" in told
            assert "Traceback" not in told
            toy.before(command, "")
            stop.communicate(timeout=LIMIT)
        assert stop.returncode == 0
        assert "PENDING" not in toy.states.values()
    assert ran(desk) == []


@pytest.mark.anyio
@pytest.mark.parametrize("command", some(["sbatch --test-only", "scontrol", "sbatch", "squeue"], 2))
async def test_a_host_that_cancels_waits_for_no_command(
    desk: Desk, toy: ToySlurm, anyio_backend_name: str, command: str
) -> None:
    name, _, only = command.partition(" ")
    toy.before(name, HANG if only or name != "sbatch" else HANG_IN_EARNEST)
    options: dict[str, Any] = {"working_directory": desk.path, "root": desk.path}

    async def execute() -> None:
        timing = Timing(slurm_first_ask=0.1)
        await hermes.run_file(desk.path / "x.hermes", "n", timing=timing, **options)

    with anyio.fail_after(LIMIT), toy.held():
        if anyio_backend_name == "trio":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(execute)
                await desk.until(lambda: toy.hangs)
                began = time.monotonic()
                tasks.cancel_scope.cancel()
        else:
            task = asyncio.ensure_future(execute())
            await desk.until(lambda: toy.hangs)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert time.monotonic() - began < LEAVES
    toy.before(name, "")
    desk.hermes("exec", "--resume", "-f", "x.hermes", "-n", "n", timeout=LIMIT)
    if command in ("sbatch", "squeue"):
        # They are with the cluster, or may be, and belong to the run that was left
        desk.hermes("resume", "-n", "n", timeout=LIMIT)
    assert sorted(ran(desk)) == ["0", "1", "2"]
