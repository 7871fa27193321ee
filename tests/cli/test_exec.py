"""`hermes exec`: what it does, what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ..support import JOB, PYTHON, Desk


def events(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def test_exec_runs_a_file_under_a_name(desk: Desk) -> None:
    done = desk.hermes("exec", "-f", "sweep.hermes", "-n", "first try")
    experiment = desk.experiment()
    identifier = experiment.identifier
    assert experiment.directory == desk.path / "experiments" / "train" / "first try" / identifier
    assert (experiment.directory / f"model_{identifier}.txt").read_text() == "--lr 0.1"
    # Progress is not a result
    assert done.stdout == ""
    started, ended = (line for line in done.stderr.splitlines() if identifier in line)
    assert "started" in started
    assert "finished" in ended
    assert re.search(r"1 job\b.*1 finished.*experiments", done.stderr.splitlines()[-1])


def test_the_name_defaults_to_the_stem(desk: Desk) -> None:
    desk.hermes("exec", "-f", "sweep.hermes")
    assert desk.experiment().name == "sweep"


def test_exec_runs_a_single_command(desk: Desk) -> None:
    desk.hermes("exec", "-e", f"{PYTHON} train.py --note 'two words'", "-n", "single")
    experiment = desk.experiment()
    assert (experiment.script, experiment.name, experiment.arguments) == (
        "train",
        "single",
        ("--note", "two words"),
    )
    assert experiment.argv[-3] == experiment.identifier
    # It runs as a hermes file would: what it saved is collected
    assert [file.path for file in experiment.files] == [f"model_{experiment.identifier}.txt"]


def test_threads_overrule_the_file(desk: Desk) -> None:
    # Each job waits for the other: alone it would never end
    desk.write(
        "meet.py",
        "import os, sys, time\nopen(sys.argv[2], 'w')\n"
        "while not os.path.exists(sys.argv[3]): time.sleep(0.01)\n",
    )
    desk.write(
        "meet.hermes",
        f"PRE\nthreads: 1\nEXEC\n[[{PYTHON}, meet.py, a b]]\n[[{PYTHON}, meet.py, b a]]\n",
    )
    desk.hermes("exec", "-f", "meet.hermes", "--threads", "2")
    assert [experiment.metadata.settings["threads"] for experiment in desk.experiments()] == [
        2,
        2,
    ]


def test_comments_are_added_to_those_of_the_file(desk: Desk) -> None:
    desk.write("sweep.hermes", f"STD-H\n-c standard\nEXEC\n[[{PYTHON}, train.py],[-c own]]\n")
    desk.hermes(
        "exec", "-f", "sweep.hermes", "-c", "one", "--comment", "another: it's # kept // whole"
    )
    assert desk.experiment().comments == ("standard", "own", "one", "another: it's # kept // whole")


def test_root_moves_the_experiments(desk: Desk, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    before = desk.tree(desk.path)
    desk.hermes("exec", "-f", "sweep.hermes", "--root", str(elsewhere))
    assert desk.tree(desk.path) == before
    (metadata,) = elsewhere.glob("experiments/train/sweep/*/hermes.json")
    assert (metadata.parent / f"model_{metadata.parent.name}.txt").exists()


def test_json_prints_one_event_a_line(desk: Desk) -> None:
    desk.write("talk.py", "print('line one')\nprint('line two')\nraise SystemExit(5)\n")
    desk.write("sweep.hermes", f"EXEC\n{JOB}\n[[{PYTHON}, talk.py],[-l false]]\n")
    told = events(desk.hermes("exec", "-f", "sweep.hermes", "--json", code=1).stdout)
    kinds = [event["event"] for event in told]
    assert (kinds[0], kinds[-1]) == ("run_started", "run_ended")
    assert sorted(set(kinds)) == [
        "file_collected",
        "job_ended",
        "job_started",
        "log_chunk",
        "run_ended",
        "run_started",
    ]
    times = [event["time"] for event in told]
    assert times == sorted(times)
    train, talk = desk.experiments()
    starts = [event for event in told if event["event"] == "job_started"]
    assert [(event["identifier"], tuple(event["argv"])) for event in starts] == [
        (each.identifier, each.argv) for each in (train, talk)
    ]
    ends = [event["outcome"] for event in told if event["event"] == "job_ended"]
    assert [(end["identifier"], end["status"], end["exit_code"]) for end in ends] == [
        (train.identifier, "finished", 0),
        (talk.identifier, "failed", 5),
    ]
    printed = "".join(
        event["data"]
        for event in told
        if event["event"] == "log_chunk" and event["identifier"] == talk.identifier
    )
    assert printed == "line one\nline two\n"


def test_a_hermes_file_from_standard_input(desk: Desk) -> None:
    text = f"PRE\nthreads: 2\nEXEC\nPROD([[{PYTHON}, {{s}}.py]], s=[train])\n"
    desk.write("train.py", "import sys\nprint(sys.stdin.read(), sys.argv[1])\n")
    done = desk.hermes("compile", "-", input=text)
    assert done.stdout.endswith("train.py {identifier}\n")
    desk.hermes("exec", "-f", "-", input=text)
    experiment = desk.experiment()
    assert experiment.name == "stdin"
    assert experiment.stdout == f" {experiment.identifier}\n"
    # It can be resumed, and executed again, without the text
    desk.hermes("exec", "-f", "-", "-n", "failing", input=text.replace("train", "gone"), code=2)
    file = os.path.relpath(experiment.directory / "re_execution.hermes", desk.path)
    desk.hermes("exec", "-f", file, "-n", "again")


def test_a_mistake_on_standard_input_has_a_place(desk: Desk) -> None:
    done = desk.hermes("exec", "-f", "-", input="EXEC\n[[python\n", code=2)
    assert "--> <stdin>:2:" in done.stderr
