"""`hermes ls`: what it lists, in which order, and how."""

from __future__ import annotations

import csv
import io
import json
import os

import pytest

from hermes import Status

from ..query.simple import experiment, identifier
from ..support import Desk


@pytest.fixture
def desk(desk: Desk) -> Desk:
    for number, (rate, seconds) in enumerate([("0.1", 2.0), ("1e-2", 7200.0), ("0.02", 100.0)]):
        experiment(
            desk.path / "experiments",
            number,
            parameters={"lr": rate, "env": "pong"},
            arguments=("-lr", rate, "--env", "pong", "--tag", "a,b\x1b[31m" * (number + 1)),
            status=Status.FAILED if number == 1 else Status.FINISHED,
            duration=seconds,
        )
    return desk


def test_the_newest_come_first_with_what_differs(desk: Desk) -> None:
    done = desk.hermes("ls", "lr < 1 and not lr = 0.02")
    tag = r"a,b\x1b[31m"
    assert done.stdout.splitlines() == [
        "id            script  name  status    duration    lr  tag",
        f"120000000001  train   test  failed     2:00:00  1e-2  {tag * 2}",
        f"120000000000  train   test  finished     2.0 s   0.1  {tag}",
    ]
    assert done.stderr == ""


def ids(desk: Desk, *arguments: str) -> list[str]:
    lines = desk.hermes("ls", *arguments).stdout.splitlines()[1:]
    return [line.split()[0] for line in lines]


def test_sorting(desk: Desk) -> None:
    zero, one, two = (identifier(number).split("_")[3] for number in range(3))
    assert ids(desk) == [two, one, zero]
    assert ids(desk, "--sort", "lr") == [one, two, zero]
    assert ids(desk, "--sort", "-lr", "--top", "2") == [zero, two]
    assert ids(desk, "--sort=-duration", "--top", "1") == [one]
    # A value that is missing comes last, whatever the order
    experiment(desk.path / "experiments", 3)
    assert ids(desk, "--sort", "lr")[-1] == "120000000003"
    assert ids(desk, "--sort", "-lr")[-1] == "120000000003"


def test_columns(desk: Desk) -> None:
    done = desk.hermes("ls", "--columns", "lr, arg:env,identifier", "--top", "1")
    assert done.stdout.splitlines() == [
        "  lr  arg:env  id",
        "0.02  pong     120000000002",
    ]
    head = desk.hermes("ls", "--all-columns").stdout.splitlines()[0].split()
    assert {"lr", "host", "run_id", "start"} <= set(head)
    assert "signal" not in head


def test_csv_and_json(desk: Desk) -> None:
    text = desk.hermes("ls", "lr = 0.01", "--csv").stdout
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["identifier"] == identifier(1)
    assert row["duration"] == "7200.0"
    lines = desk.hermes("ls", "--json", "--columns", "lr,tag,exit_code,signal").stdout.splitlines()
    assert json.loads(lines[-1]) == {"lr": 0.1, "tag": "a,b\x1b[31m", "exit_code": 0}


def test_nothing_is_found(desk: Desk) -> None:
    done = desk.hermes("ls", "status = timeout", "--json")
    assert (done.stdout, done.stderr) == ("", "no experiment passes the filter\n")
    (desk.path / "empty").mkdir()
    done = desk.hermes("ls", "status = timeout", "--root", "empty")
    assert (done.stdout, done.stderr) == ("", "no experiment passes the filter\n")
    done = desk.hermes("ls", "--root", "empty")
    assert (done.stdout, done.stderr) == ("", "no experiments\n")


def test_mistakes(desk: Desk) -> None:
    done = desk.hermes("ls", "lrr < 1", code=2)
    assert done.stderr.splitlines() == [
        "error: no experiment has a column `lrr`",
        "  |",
        "  | lrr < 1",
        "  | ^^^",
        "hint: did you mean `lr`?",
    ]
    assert "no experiment has a column" in desk.hermes("ls", "--sort", "x", code=2).stderr
    assert "no experiment has a column" in desk.hermes("ls", "--columns", "x", code=2).stderr


def test_what_cannot_be_read_is_told(desk: Desk) -> None:
    folder = desk.path / "experiments" / "train" / "test"
    for number in range(10, 17):
        (folder / identifier(number)).mkdir()
        os.utime(folder / identifier(number), (0, 0))
    done = desk.hermes("ls", "--top", "1")
    assert len(done.stdout.splitlines()) == 2
    told = done.stderr.splitlines()
    assert len(told) == 6
    assert "is no experiment directory" in told[0]
    assert told[-1] == "warning: and 2 more"


def test_lines_fit_the_terminal(desk: Desk) -> None:
    with desk.terminal("ls", columns=60) as terminal:
        assert terminal.end() == 0
    lines = list(filter(None, terminal.screen.lines))
    assert len(lines) == 4
    assert lines[0].startswith("id")
    assert lines[1].endswith("…")
