"""Output of all sizes and kinds, more of it than fits into memory."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..support import Desk, MakeDesk, check_always, environment, times

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="looks for processes in /proc"
)

PRINT = """\
number=0
while [ $number -lt "$2" ]; do cat block; number=$((number + 1)); done
"""
"""A job that prints the file `block` as often as its argument says."""

HOLD = "while [ ! -e go ]; do sleep 0.01; done\n"

BLOCKS = {
    "lines": b"".join(
        b"epoch %05d  loss 0.123456  accuracy 0.987654  \xf0\x9f\x9a\x80\n" % number
        for number in range(19_000)
    ),
    "bytes": bytes(range(256)) * 2 + random.Random(7).randbytes(999_488),
    "one line": b"x" * 1_000_000,
}
"""About 1 MB each of what a job may print."""

LISTENING = """\
import anyio, hermes
async def main():
    async with hermes.open_run("x.hermes", "x") as run:
        async for event in run:
            if isinstance(event, hermes.LogChunk):
                await anyio.sleep(0.002)
    print(open("/proc/self/status").read())
anyio.run(main)
"""
"""Takes what a job prints more slowly than the job prints it."""


@pytest.fixture
def make_desk(make_desk: MakeDesk) -> MakeDesk:
    """Their scripts are there."""

    def make(name: str) -> Desk:
        desk = make_desk(name)
        desk.write("print.sh", PRINT)
        desk.write("hold.sh", HOLD)
        return desk

    return make


@pytest.mark.fault(7)
@pytest.mark.timeout(times(60, 1200))
@pytest.mark.parametrize("where", ["not shown", "/dev/null", "pipe"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_any_output_is_kept_as_it_is_without_filling_the_memory(
    make_desk: MakeDesk, kind: str, where: str
) -> None:
    blocks = {
        "lines": times({"not shown": 64, "/dev/null": 32, "pipe": 1}[where], 1000),
        "bytes": times(1, 100),
        "one line": times(8, 100),
    }[kind]
    silent, desk = make_desk("silent"), make_desk("desk")
    desk.write("block", BLOCKS[kind])
    usual = peak_memory(silent, 0, where)
    grown = peak_memory(desk, blocks, where) - usual
    log = desk.experiments()[0].directory / "stdout.log"
    expected = hashlib.sha256()
    for _ in range(blocks):
        expected.update(BLOCKS[kind])
    with log.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == expected.digest()
    # pytest keeps the folders of some runs
    log.unlink()
    assert grown <= 20_000_000


def peak_memory(desk: Desk, blocks: int, where: str) -> int:
    """Bytes that the runner needed at most to run a job that prints so many blocks, and to show
    that.
    """
    desk.hermes_file(
        f"[[sh, print.sh, {blocks}],[-l {str(where == 'not shown').lower()}]]", "[[sh, hold.sh]]"
    )
    with subprocess.Popen(["wc", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        stdout = reader.stdin if where == "pipe" else subprocess.DEVNULL
        with desk.started("exec", "-f", "x.hermes", stdout=stdout) as runner:
            assert runner.stderr
            told = ""
            # Then everything has been shown
            while not told.endswith("finished\n") and "[1/2]" not in told:
                line = runner.stderr.readline()
                assert line, told
                told += line
            peak = peak_told(Path(f"/proc/{runner.pid}/status").read_text())
            desk.write("go")
            told += runner.stderr.read()
        assert runner.returncode == 0
        shown, _ = reader.communicate()
    assert int(shown) >= (blocks * 900_000 if where == "pipe" else 0)
    check_always(desk, told)
    return peak


def peak_told(status: str) -> int:
    """Bytes of memory that a process has needed at most, as the system tells."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.mark.fault(7)
@pytest.mark.timeout(times(60, 300))
def test_a_listener_slower_than_the_job_does_not_fill_the_memory(make_desk: MakeDesk) -> None:
    peaks = []
    for blocks in (0, times(40, 500)):
        desk = make_desk(f"desk{blocks}")
        desk.write("block", BLOCKS["lines"])
        desk.write("listening.py", LISTENING)
        desk.hermes_file(f"[[sh, print.sh, {blocks}]]")
        done = subprocess.run(
            [sys.executable, "listening.py"],
            cwd=desk.path,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(peak_told(done.stdout))
        check_always(desk, done.stderr)
        (desk.experiment().directory / "stdout.log").unlink()
    assert peaks[1] - peaks[0] <= 20_000_000
