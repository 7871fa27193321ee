"""`hermes set`, `pause`, `continue` and `add`: a run is changed from another terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ..support import LIMIT, Desk, all_metadata, until

WAITS = """\
import os, sys, time
while os.path.exists("waits.py") and not any(map(os.path.exists, ("go-" + sys.argv[-1], "go"))):
    time.sleep(0.01)
"""
"""A job that ends when the test makes the file of its number, or that of all."""


def began(desk: Desk) -> int:
    return len(list(desk.experiments_folder.glob("waits/*/*/hermes.json")))


def ended(desk: Desk) -> int:
    return sum(each["status"] == "finished" for each in all_metadata(desk))


def let_go(desk: Desk, number: int | None = None) -> None:
    desk.write("go" if number is None else f"go-{number}", "")


@contextmanager
def sweep(desk: Desk, *, threads: int = 1, count: int = 6) -> Iterator[None]:
    """A run of jobs that wait, of which the first have begun."""
    desk.write("waits.py", WAITS)
    desk.write(
        "sweep.hermes",
        f"PRE\nthreads: {threads}\nEXEC\nPROD([[python, waits.py, {{n}}]], n=RANGE[0, {count}])\n",
    )
    with desk.started("exec", "-f", "sweep.hermes", "-n", "t") as process:
        try:
            until(lambda: began(desk) == threads)
            yield
            let_go(desk)
            process.communicate(timeout=LIMIT)
        finally:
            process.terminate()


def test_set_threads_starts_more_and_ends_none(desk: Desk) -> None:
    with sweep(desk):
        said = desk.hermes("set", "threads=4").stderr
        assert said.startswith("at most 4 jobs at the same time: ")
        until(lambda: began(desk) == 4)
        desk.hermes("set", "t", "threads=1", "--quiet")
        let_go(desk, 0)
        until(lambda: ended(desk) == 1)
        assert began(desk) == 4
    assert ended(desk) == 6
    assert max(each["slot"] for each in all_metadata(desk)) == 3


def test_pause_holds_what_has_not_started_until_continue(desk: Desk) -> None:
    with sweep(desk):
        desk.hermes("pause")
        let_go(desk, 0)
        until(lambda: ended(desk) == 1)
        assert began(desk) == 1
        desk.hermes("continue")
        until(lambda: began(desk) == 2)
    assert ended(desk) == 6


def test_add_puts_jobs_at_the_end(desk: Desk) -> None:
    desk.write(
        "more.hermes", "PRE\nthreads: 9\nEXEC\n[[python, waits.py, 7]]\n[[python, waits.py, 8]]\n"
    )
    with sweep(desk, count=2):
        assert desk.hermes("add", "-f", "more.hermes").stdout == "2 jobs added\n"
    last = [each["argv"][-1] for each in all_metadata(desk)]
    assert last == ["0", "1", "7", "8"]
    assert [each["hermes_file"]["path"] for each in all_metadata(desk)][-1] == "more.hermes"
    assert all_metadata(desk)[-1]["settings"]["threads"] == 1


def test_changes_hold_when_the_runner_was_killed(desk: Desk) -> None:
    desk.write("more.hermes", "EXEC\n[[python, waits.py, 7]]\n")
    desk.write("waits.py", WAITS)
    desk.write("sweep.hermes", "EXEC\nPROD([[python, waits.py, {n}]], n=RANGE[0, 4])\n")
    with desk.started("exec", "-f", "sweep.hermes", "-n", "t") as process:
        until(lambda: began(desk) == 1)
        desk.hermes("add", "-f", "more.hermes")
        desk.hermes("set", "threads=2")
        until(lambda: began(desk) == 2)
        desk.hermes("pause")
        process.kill()
        process.communicate(timeout=LIMIT)
    with desk.started("resume") as process:
        let_go(desk, 0)
        let_go(desk, 1)
        until(lambda: ended(desk) == 2)
        assert began(desk) == 2, "a paused run stays paused"
        desk.hermes("continue", "t")
        until(lambda: began(desk) == 4)
        let_go(desk)
        _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, told
    assert sorted(each["argv"][-1] for each in all_metadata(desk)) == ["0", "1", "2", "3", "7"]
    assert ended(desk) == 5


def test_resume_with_other_threads(desk: Desk) -> None:
    desk.write("waits.py", WAITS)
    desk.write("sweep.hermes", "EXEC\nPROD([[python, waits.py, {n}]], n=RANGE[0, 4])\n")
    with desk.started("exec", "-f", "sweep.hermes", "-n", "t") as process:
        until(lambda: began(desk) == 1)
        process.kill()
        process.communicate(timeout=LIMIT)
    with desk.started("resume", "--threads", "3") as process:
        until(lambda: began(desk) == 3)
        let_go(desk)
        process.communicate(timeout=LIMIT)
    assert ended(desk) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["set", "threads=0"], "at least 1"),
        (["set", "threads=many"], "at least 1"),
        (["set", "grace=3"], "`grace` cannot be changed"),
        (["set", "8"], "expected `threads=N`"),
        (["set", "threads=2"], "there is no unfinished run"),
        (["pause"], "there is no unfinished run"),
        (["continue", "nothing"], "there is no unfinished run `nothing`"),
        (["add", "-f", "none.hermes"], "there is no unfinished run"),
    ],
)
def test_calls_that_cannot_be_followed(desk: Desk, words: list[str], expected: str) -> None:
    assert re.search(re.escape(expected), desk.hermes(*words, code=2).stderr)


def test_what_cannot_be_executed_is_not_added(desk: Desk) -> None:
    desk.write("wrong.hermes", "EXEC\n[[no-such-program]]\n")
    with sweep(desk, count=1):
        assert "no-such-program" in desk.hermes("add", "-f", "wrong.hermes", code=2).stderr
    assert ended(desk) == 1
