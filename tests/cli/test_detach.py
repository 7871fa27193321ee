"""`--detach`: a run goes on without the terminal, whatever becomes of that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

import hermes

from ..support import LIMIT, Desk, is_alive, until
from ..support.desk import environment
from ..support.terminal import Terminal

WAITS = """\
import os, sys, time
print("begun", flush=True)
while not os.path.exists("go") and os.path.exists("waits.py"):
    time.sleep(0.01)
sys.exit(os.path.exists("fail"))
"""


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("waits.py", WAITS)
    desk.write("s.hermes", "PRE\nthreads: 2\nEXEC\nPROD([[python, waits.py, {n}]], n=[a, b, c])\n")
    return desk


def one(desk: Desk) -> hermes.RunStatus:
    (run,) = hermes.runs(working_directory=desk.path)
    return run


def let_go(desk: Desk) -> None:
    """Lets the jobs end, and waits until no run is in progress."""
    desk.write("go")
    until(lambda: not any(run.is_in_progress for run in hermes.runs(working_directory=desk.path)))


def test_the_run_goes_on_by_itself(desk: Desk) -> None:
    # As `$(hermes exec --detach ...)`: that waits until nobody has the pipe any more
    done = desk.hermes("exec", "-f", "s.hermes", "-n", "t", "--detach")
    until(lambda: one(desk).pid)
    run = one(desk)
    assert done.stdout == f"{run.run_id}\n"
    assert f"`hermes attach {run.run_id[-8:]}` shows it" in done.stderr
    assert run.pid is not None
    assert os.getsid(run.pid) == run.pid, "a session of its own"
    descriptors = [os.readlink(f"/proc/{run.pid}/fd/{number}") for number in range(3)]
    assert descriptors == ["/dev/null", run.output, run.output]
    until(lambda: len(one(desk).jobs) == 2)
    let_go(desk)
    assert {each.status for each in desk.experiments()} == {hermes.Status.FINISHED}
    assert list(hermes.runs(working_directory=desk.path)) == []
    until(lambda: not is_alive(run.pid or 0))
    # What came of it can be asked by its id, also by scripts that wait for it
    assert "all jobs have finished" in desk.hermes("status", run.run_id).stdout
    assert desk.hermes("attach", run.run_id[-8:]).stdout == ""


def test_what_is_wrong_is_told_before_anything_starts(desk: Desk) -> None:
    said = desk.hermes("exec", "-e", "no-such-program", "--detach", code=2)
    assert "program `no-such-program` was not found" in said.stderr
    assert said.stdout == ""
    desk.write("in_the_way", "")
    said = desk.hermes("exec", "-f", "s.hermes", "--root", "in_the_way", "--detach", code=2)
    assert said.stderr.count("error: ") == 1
    assert not desk.experiments_folder.exists()
    said = desk.hermes("exec", "-e", "printf x", "--detach", "--quiet")
    assert "warning: " in said.stderr
    assert len(said.stderr.splitlines()) == 1
    until(lambda: not hermes.runs(working_directory=desk.path))


def test_how_it_ended_in_failure_is_kept(desk: Desk) -> None:
    desk.write("fail")
    desk.write("go")
    told = json.loads(
        desk.hermes("exec", "-f", "s.hermes", "-n", "t", "--detach", "--json", "-q").stdout
    )
    until(lambda: not one(desk).is_in_progress)
    run = one(desk)
    assert (told["run_id"], told["pid"], told["output"]) == (run.run_id, run.pid, run.output)
    shown = desk.hermes("status", "t").stdout
    assert "t: 3 jobs in " in shown
    assert "3 failed; results in experiments" in shown
    ended = desk.hermes("attach", "t", code=1).stderr
    assert "t: 3 jobs in " in ended
    # Gone on with, without a terminal, too
    os.unlink(desk.path / "fail")
    again = desk.hermes("resume", "--failed", "--detach")
    assert again.stdout == f"{run.run_id}\n"
    until(lambda: not hermes.runs(working_directory=desk.path))
    assert [each.status for each in desk.experiments()].count(hermes.Status.FINISHED) == 3


def test_stop_ends_it(desk: Desk) -> None:
    desk.hermes("exec", "-f", "s.hermes", "-n", "t", "--detach")
    until(lambda: len(one(desk).jobs) == 2)
    desk.hermes("stop")
    run = one(desk)
    assert (run.state, run.left) == (hermes.RunState.UNFINISHED, 3)
    assert "stopped by `hermes stop`" in desk.hermes("status", "t").stdout


@pytest.mark.parametrize("how", ["hangup", "kill the session", "close"])
def test_nothing_that_happens_to_the_terminal_ends_it(desk: Desk, how: str) -> None:
    desk.write("call.sh", "hermes exec -f s.hermes -n t --detach > id\nexec sleep 100\n")
    program = desk.program("bin/hermes", "#!/bin/sh\nexec " + " ".join(desk.command()) + ' "$@"\n')
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    with Terminal(
        ["sh", "call.sh"], desk.path, environment({"PATH": path}), rows=24, columns=100
    ) as terminal:
        terminal.until(lambda: hermes.runs(working_directory=desk.path) and one(desk).jobs)
        terminal.until(
            lambda: (desk.path / "id").read_text() if (desk.path / "id").exists() else ""
        )
        run = one(desk)
        if how == "hangup":
            os.killpg(terminal.pid, signal.SIGHUP)
        elif how == "kill the session":
            subprocess.run(["pkill", "-KILL", "-s", str(terminal.pid)], check=True)
        else:
            terminal.close()
        until(lambda: not is_alive(terminal.pid) or terminal.process.closed)
        assert run.pid is not None
        assert is_alive(run.pid)
        let_go(desk)
    assert [each.status for each in desk.experiments()] == [hermes.Status.FINISHED] * 3


def test_who_gives_up_before_it_has_begun_leaves_no_run_behind(desk: Desk, tmp_path: Path) -> None:
    # A git that takes its time delays the beginning
    (desk.path / ".git").mkdir()
    slow = desk.program("bin/git", f"#!/bin/sh\necho > {tmp_path}/asked\nsleep 2\nexit 1\n")
    path = f"{slow.parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        desk.command("exec", "-f", "s.hermes", "-n", "t", "--detach"),
        cwd=desk.path,
        env=environment({"PATH": path}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until((tmp_path / "asked").exists)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=LIMIT)[0] == ""
    assert process.returncode == -signal.SIGINT
    until(
        lambda: (
            [run.state for run in hermes.runs(working_directory=desk.path)]
            == [hermes.RunState.UNFINISHED]
        )
    )
    assert all(each.status is hermes.Status.CANCELLED for each in desk.experiments())
