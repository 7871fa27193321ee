"""`hermes attach`: the live display of a run that another process executes."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import hermes

from ..support import LIMIT, Desk, is_alive, until
from ..support.desk import environment
from ..support.terminal import Terminal

CTRL_Z = b"\x1a"

WORK = """\
import os, sys, time
name, told = sys.argv[-1], 0
while not os.path.exists("go-" + name) and os.path.exists(sys.argv[0]):
    if os.path.exists("say-" + name):
        os.unlink("say-" + name)
        told += 1
        print("word", told, flush=True)
    time.sleep(0.01)
sys.exit(os.path.exists("fail-" + name))
"""
"""A job that prints a word for each file `say-NAME`, and ends when there is a file `go-NAME`."""


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("work.py", WORK)
    desk.write(
        "s.hermes", "PRE\nthreads: 2\nEXEC\nPROD([[python, work.py, {n}]], n=[a, b, c, d])\n"
    )
    return desk


@contextmanager
def in_progress(desk: Desk, *options: str) -> Iterator[int]:
    """A run of which two jobs have begun; gives the id of its process."""
    with desk.started("exec", "-f", "s.hermes", "-n", "t", *options) as process:
        until(lambda: [len(run.jobs) for run in hermes.runs(working_directory=desk.path)] == [2])
        yield process.pid
        for name in "abcd":
            desk.write(f"go-{name}")
        process.communicate(timeout=LIMIT)


def say(desk: Desk, job: str) -> None:
    desk.write(f"say-{job}")
    until(lambda: not (desk.path / f"say-{job}").exists())


def test_it_shows_the_run_to_its_end_and_exits_as_it_does(desk: Desk) -> None:
    desk.write("fail-b")
    with in_progress(desk), desk.terminal("attach", "t", columns=120) as terminal:
        terminal.shows(r"^attached to .* \(t, began .*, in progress\)")
        terminal.shows(r"^━+  0/4 done  2 running  0 failed  \d+\.\d s$")
        say(desk, "a")
        terminal.shows(r"^work  a  \d+\.\d s  word 1$")
        desk.write("go-b")
        terminal.shows(r"^failed: work .*: exit code 1, after ")
        terminal.shows(r"run again: hermes exec -f .* -n t$")
        terminal.shows(r"1/4 done  2 running  1 failed  .*, about .* left$")
        # Changed from elsewhere
        desk.hermes("pause", "-q")
        terminal.shows(r"running  paused  1 failed")
        desk.hermes("continue", "-q")
        # A second one, and one that comes later, know as much
        with desk.terminal("attach", columns=120) as second:
            second.shows(r"1/4 done  2 running  1 failed")
            second.shows(r"^exit code 1  \d{12}  work  \d+\.\d s  b$")
            for name in "acd":
                desk.write(f"go-{name}")
            for each in (terminal, second):
                assert each.end() == 1
                shown = [line for line in each.screen.lines if line]
                assert shown[-1].startswith("t: 4 jobs in ")
                assert shown[-1].endswith(": 1 failed, 3 finished; results in experiments")
                assert "━" not in each.screen.text
                assert each.screen.cursor_shown
    # It has ended: what can be told of it is told, with the same exit code
    ended = desk.hermes("attach", "t", code=1).stderr.splitlines()
    assert ended[-1].endswith(": 1 failed, 3 finished; results in experiments")
    assert "no run of" in desk.hermes("attach", code=2).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_leaving_ends_nothing(desk: Desk, number: signal.Signals) -> None:
    with in_progress(desk) as runner:
        with desk.terminal("attach") as terminal:
            terminal.shows("2 running")
            if number == signal.SIGINT:
                # As Ctrl-C: to all that are in the foreground of this terminal
                terminal.process.sendintr()
            elif number == signal.SIGTERM:
                os.kill(terminal.pid, number)
            else:
                terminal.close()
            assert terminal.end() == 128 + number
            if number != signal.SIGHUP:
                terminal.shows(r"^left: `t` goes on; `hermes attach [0-9a-f]{8}` shows it again$")
                assert terminal.screen.cursor_shown
        assert is_alive(runner)
        (run,) = hermes.runs(working_directory=desk.path)
        assert (run.is_in_progress, len(run.jobs)) == (True, 2)
    assert [each.status for each in desk.experiments()] == [hermes.Status.FINISHED] * 4


def test_a_suspended_one_goes_on_where_the_run_is_then(desk: Desk) -> None:
    attach = " ".join(desk.command("attach"))
    desk.write(
        "shell.sh",
        f"set -m\n{attach}\necho back\nwhile [ ! -e on ]; do sleep 0.05; done\nfg\n"
        "echo back again\nwhile [ ! -e on2 ]; do sleep 0.05; done\nfg\nexit $?\n",
    )
    with (
        in_progress(desk),
        Terminal(["bash", "shell.sh"], desk.path, environment(), 24, 120) as terminal,
    ):
        terminal.shows("0/4 done  2 running")
        terminal.process.write(CTRL_Z)
        terminal.shows("^back$")
        assert terminal.screen.cursor_shown
        assert "2 running" not in terminal.screen.text
        desk.write("go-a")
        until(lambda: hermes.runs(working_directory=desk.path)[0].done == 1)
        desk.write("on")
        terminal.shows("1/4 done  2 running")
        # The run comes to its end while nobody looks
        terminal.process.write(CTRL_Z)
        terminal.shows("^back again$")
        for name in "bcd":
            desk.write(f"go-{name}")
        until(lambda: not hermes.runs(working_directory=desk.path))
        desk.write("on2")
        assert terminal.end() == 0
        assert [line for line in terminal.screen.lines if line][-1].startswith("t: 4 jobs in ")


def test_without_a_shell_around_it_ctrl_z_does_nothing(desk: Desk) -> None:
    with in_progress(desk), desk.terminal("attach", columns=120) as terminal:
        terminal.shows("0/4 done  2 running")
        terminal.process.write(CTRL_Z)
        desk.write("go-a")
        terminal.shows("1/4 done  2 running")
        assert not terminal.screen.cursor_shown


def test_a_window_that_gets_narrower_is_drawn_anew(desk: Desk) -> None:
    with in_progress(desk), desk.terminal("attach", columns=200) as terminal:
        say(desk, "a")
        terminal.shows("work  a  .*  word 1")
        for columns in (80, 40, 120):
            terminal.resize(columns)
            say(desk, "a")
            terminal.shows(r"^work  a  .*  word")
            terminal.until(lambda: "".join(terminal.screen.lines).count("running") == 1)
            assert all(len(line) <= columns for line in terminal.screen.lines)


def test_without_a_terminal_starts_and_ends_are_lines(desk: Desk) -> None:
    with in_progress(desk), desk.started("attach") as attached:
        assert attached.stderr is not None
        lines = [attached.stderr.readline() for _ in range(4)]
        assert lines[1] == "t: 0 of 4 jobs done, 2 running, 0 failed; at most 2 at the same time\n"
        assert [line.split()[:2] for line in lines[2:]] == [["running", "work"]] * 2
        desk.write("go-a")
        lines = sorted(attached.stderr.readline() for _ in range(2))
        assert [line.split()[:2] for line in lines] == [["[1/4]", "finished"], ["started", "work"]]
        for name in "bcd":
            desk.write(f"go-{name}")
        out, err = attached.communicate(timeout=LIMIT)
        assert (attached.returncode, out) == (0, "")
        assert err.splitlines()[-1].startswith("t: 4 jobs in ")


def test_for_programs_every_event_is_a_line(desk: Desk) -> None:
    with in_progress(desk), desk.started("attach", "--json", "--quiet") as attached:
        assert attached.stdout is not None
        first = json.loads(attached.stdout.readline())
        assert (first["event"], len(first["running"])) == ("run_standing", 2)
        for name in "abcd":
            desk.write(f"go-{name}")
        out, err = attached.communicate(timeout=LIMIT)
        events = [json.loads(line) for line in out.splitlines()]
        assert [each["event"] for each in events].count("job_ended") == 4
        assert (events[-1]["event"], events[-1]["ok"], events[-1]["counts"]) == (
            "run_ended",
            True,
            {"finished": 4},
        )
        assert (attached.returncode, err) == (0, "")


def test_what_jobs_show_is_shown_from_then_on(desk: Desk) -> None:
    desk.write(
        "s.hermes",
        "PRE\nthreads: 2\nSTD-H\n-l false\nEXEC\nPROD([[python, work.py, {n}]], n=[a, b, c, d])\n",
    )
    with in_progress(desk):
        say(desk, "a")
        with desk.started("attach", "-q") as attached:
            assert attached.stdout is not None
            # It has begun to follow when it hears of the next job
            heard: list[str] = []
            reading = threading.Thread(target=lambda: heard.extend(attached.stdout or ()))
            reading.start()
            desk.write("go-b")
            until(lambda: len(hermes.run_status("t", working_directory=desk.path).jobs) == 2)

            def says_again() -> bool:
                say(desk, "a")
                return bool(heard)

            until(says_again)
            for name in "abcd":
                desk.write(f"go-{name}")
            attached.wait(LIMIT)
            reading.join(LIMIT)
        assert heard[0].startswith("work#1 | word ")
        assert "work#1 | word 1\n" not in heard


def test_a_run_whose_runner_is_killed_says_so(desk: Desk) -> None:
    with in_progress(desk) as runner, desk.terminal("attach", columns=120) as terminal:
        terminal.shows("2 running")
        os.kill(runner, signal.SIGKILL)
        assert terminal.end() == 1
        terminal.shows(r"^the runner of `t` was killed; jobs that it has started may go on: ")
    assert "was killed" in desk.hermes("attach", "t", code=1).stderr
