"""Slurm's commands hang: whoever wants to leave leaves all the same, and nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from ..support import LIMIT, Desk, until
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


def is_submitted(toy: ToySlurm) -> bool:
    return len(toy.states) == 3


SIGNALS = [
    pytest.param((signal.SIGINT,), id="ctrl-c"),
    pytest.param((signal.SIGINT, signal.SIGINT), id="ctrl-c twice"),
    pytest.param((signal.SIGTERM,), id="term"),
]


@pytest.mark.parametrize("signals", SIGNALS)
@pytest.mark.parametrize("command", ["sbatch --test-only", "scontrol", "sbatch", "squeue"])
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
