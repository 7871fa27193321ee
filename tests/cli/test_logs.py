"""`hermes logs`: what jobs have printed, as lines or as bytes, until now or until they end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import anyio
import pytest

import hermes
from hermes.show.printed import BLOCK, blocks

from ..query.simple import experiment
from ..support import Desk
from ..support.sweeps import sweep
from ..support.waiting import LIMIT, until

OUT = b"one\x1b[31m\n\xff two\r\x1b]0;x\x07three\ttabs\nno end"
ERR = b"first\nTraceback\n"


@pytest.fixture
def printed(desk: Desk) -> list[Path]:
    """Three experiments that have printed something; the second has failed."""
    folders = []
    for number in range(3):
        status = hermes.Status.FAILED if number == 1 else hermes.Status.FINISHED
        folder = experiment(desk.path / "experiments", number, status=status)
        (folder / "stdout.log").write_bytes(OUT if number == 2 else b"out %d\n" % number * 3)
        (folder / "stderr.log").write_bytes(ERR)
        folders.append(folder)
    return folders


@pytest.mark.usefixtures("printed")
def test_lines_and_bytes(desk: Desk) -> None:
    done = desk.hermes("logs")
    lines = ["one\\x1b[31m", "\\x1b]0;x\\x07three     tabs", "no end", "first", "Traceback"]
    assert done.stdout.splitlines() == lines
    assert done.stderr == "2026_11_20_120000000002_1930e  train  test  finished\n"
    assert desk.hermes("logs", "--stderr", "--tail", "1").stdout == "Traceback\n"
    assert desk.hermes("logs", "--stdout", "--tail", "2").stdout.splitlines() == lines[1:3]
    for arguments, data in ((["0002"], OUT + ERR), (["-f", "--stdout"], OUT)):
        raw = subprocess.check_output(
            desk.command("logs", "--raw", *arguments), cwd=desk.path, stderr=subprocess.DEVNULL
        )
        assert raw == data


def test_those_of_a_filter_have_their_names(desk: Desk, printed: list[Path]) -> None:
    several = desk.hermes("logs", "status = finished", "0001", "--tail", "1").stdout
    assert several.splitlines() == [
        "120000000000 | out 0",
        "120000000000 ! Traceback",
        "120000000001 | out 1",
        "120000000001 ! Traceback",
        "120000000002 | no end",
        "120000000002 ! Traceback",
    ]
    assert desk.hermes("logs", "--failed", "--stdout").stdout == "out 1\n" * 3
    done = desk.hermes("logs", "status = lost")
    assert (done.stdout, done.stderr) == ("", "no such experiment\n")
    # What a job has put in place of its logs is not waited for
    (printed[1] / "stdout.log").unlink()
    os.mkfifo(printed[1] / "stdout.log")
    (printed[1] / "stderr.log").unlink()
    done = desk.hermes("logs", "--failed")
    assert (done.stdout, done.stderr) == ("", "nothing was printed\n")


def test_the_last_lines_of_a_large_log(tmp_path: Path) -> None:
    lines = [b"%d " % number + b"x" * (number * 997 % 20_000) for number in range(100)]
    for text in (b"\n".join(lines), b"\n".join([*lines, b""])):
        (tmp_path / "stdout.log").write_bytes(text)
        assert len(text) > 5 * BLOCK
        for count in (0, 1, 2, 17, 99, 100, 101):
            found = b"".join(blocks(str(tmp_path), "stdout", count))
            kept = lines[100 - count :] if count <= 100 else lines
            assert found.rstrip(b"\n") == b"\n".join(kept), count


def test_following_ends_when_the_jobs_end_whoever_executes_them(desk: Desk) -> None:
    sweep(desk, "0, 3", threads=2)
    for code in "03":
        desk.write(f"hold{code}")
    with desk.started("exec", "-f", "s.hermes") as run:
        until(lambda: len(list(desk.path.glob("early_*"))) == 2)
        # Both were started at the same time, so either may have the later identifier
        made = sorted(desk.experiments(), key=lambda each: each.identifier)
        first, last = (each.argv[-1] for each in made)
        with (
            desk.started("logs", "-f", "status = running") as both,
            desk.started("logs", "-f", "--stdout", "argv contains 3") as wrong,
        ):
            assert wrong.communicate(timeout=LIMIT)[1].startswith("error: no experiment has")
            assert both.stdout is not None
            told = {both.stdout.readline().partition(" | ")[2] for _ in range(2)}
            assert told == {"started 0\n", "started 3\n"}
            (desk.path / f"hold{first}").unlink()
            until(lambda: any(each.status != "running" for each in desk.experiments()))
            # Its job goes on without the runner, and is followed to its end all the same
            run.kill()
            run.wait()
            with desk.started("logs", "--follow") as one:
                assert one.stdout is not None
                assert one.stdout.readline() == f"started {last}\n"
                assert both.poll() is None
                (desk.path / f"hold{last}").unlink()
                assert one.wait(LIMIT) == 0
                assert one.stderr is not None
                assert "runs no more; `hermes resume` finds out how it ended" in one.stderr.read()
            assert both.wait(LIMIT) == 0


@pytest.mark.usefixtures("printed")
def test_nobody_listens_any_more(desk: Desk) -> None:
    for arguments in (("logs", "--failed"), ("logs", "-f")):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            desk.command(*arguments), cwd=desk.path, stdout=write, stderr=subprocess.PIPE,
            check=False,
        )  # fmt: skip
        os.close(write)
        assert done.returncode == -signal.SIGPIPE
        assert b"Traceback" not in done.stderr


@pytest.mark.anyio
@pytest.mark.usefixtures("printed")
async def test_leaving_early(desk: Desk) -> None:
    found = list(hermes.experiments(root=desk.path))
    with anyio.fail_after(LIMIT):
        async with hermes.follow_logs(found) as chunks:
            async for chunk in chunks:
                assert chunk.data
                break
        async with hermes.follow_logs(found) as chunks:
            told = [chunk async for chunk in chunks]
    data = b"".join(each.data for each in told if each.identifier == found[0].identifier)
    assert sorted(data) == sorted(OUT + ERR)
