"""Word of a run that ends by signals, by `hermes stop`, or is killed and resumed."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import pytest

from ..support import LIMIT, Desk, until

TELL = """\
import json, sys
with open("told", "a") as file:
    file.write(json.dumps(json.load(sys.stdin)) + chr(10))
"""
WAITS = """\
import os, time
while not os.path.exists("go") and os.path.exists("waits.py"):
    time.sleep(0.01)
"""


def told(desk: Desk) -> list[dict[str, Any]]:
    path = desk.path / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def prepare(desk: Desk) -> None:
    desk.write("tell.py", TELL)
    desk.write("waits.py", WAITS)
    desk.write(".hermes_settings", f"notify: command: {sys.executable} -S tell.py s3cret-T0KEN\n")
    desk.write("s.hermes", f"EXEC\n[[{desk.PYTHON}, waits.py]]\n[[{desk.PYTHON}, waits.py b]]\n")


@pytest.mark.parametrize(
    ("by", "why"),
    [("SIGINT", None), ("SIGTERM", "ended by SIGTERM"), ("stop", "stopped by `hermes stop`")],
)
def test_an_end_is_told_to_those_who_do_not_know(desk: Desk, by: str, why: str | None) -> None:
    prepare(desk)
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(lambda: list(desk.experiments_folder.glob("waits/*/*/stdout.log")))
        if by == "stop":
            desk.hermes("stop")
        else:
            runner.send_signal(signal.Signals[by])
        runner.communicate(timeout=LIMIT)
    assert [(each["event"], each["why"]) for each in told(desk)] == [("stopped", why)] * bool(why)


def test_a_run_that_was_killed_is_told_of_once_it_is_done(desk: Desk) -> None:
    prepare(desk)
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(lambda: list(desk.experiments_folder.glob("waits/*/*/stdout.log")))
        runner.kill()
    # The settings are those with which it began
    (desk.path / ".hermes_settings").write_text("threads: 1\n")
    desk.write("go")
    said = desk.hermes("resume").stderr
    (message,) = told(desk)
    assert (message["event"], message["ok"], message["counts"]) == ("done", True, {"finished": 2})
    assert "s3cret" not in said
    (one, _) = desk.experiments_folder.glob("waits/*/*/re_execution.hermes")
    # What it did not have to keep is gone with the run
    kept = [path for path in desk.experiments_folder.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"s3cret" in path.read_bytes()]
    desk.hermes("exec", "-f", str(one), "-n", "again")
    assert len(told(desk)) == 1


def test_addresses_are_shown_to_nobody(desk: Desk) -> None:
    said = desk.hermes("exec", "-e", "true", "--notify", "s3cret-T0KEN", code=2).stderr
    assert "bad value for `notify`: expected addresses of Apprise" in said
    assert "s3cret" not in said
