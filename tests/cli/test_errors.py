"""Mistakes, failures and problems, and how they are told."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from itertools import takewhile
from pathlib import Path

import pytest

from ..support import HERMES, JOB, LIMIT, PYTHON, Desk, environment
from ..support.words import FAIL


@pytest.fixture
def path_with_hermes(tmp_path: Path) -> str:
    """A PATH on which `hermes` is the one that is tested."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "hermes"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(HERMES)} "$@"\n')
    program.chmod(0o755)
    return os.pathsep.join([str(programs), os.environ["PATH"]])


def test_quiet_leaves_failures(desk: Desk) -> None:
    done = desk.hermes("exec", "-f", "sweep.hermes", "--quiet")
    assert (done.stdout, done.stderr) == ("", "")
    desk.write("fail.py", FAIL)
    desk.write("mixed.hermes", f"EXEC\n{JOB}\n[[{PYTHON}, fail.py]]\n")
    done = desk.hermes("exec", "-f", "mixed.hermes", "--quiet", code=1)
    assert done.stdout == ""
    assert "failed: fail" in done.stderr
    assert "started" not in done.stderr


@pytest.mark.fault(14)
@pytest.mark.parametrize("name", ["../../x", "..", "", "a\nb"])
def test_unusable_names_create_nothing(desk: Desk, name: str) -> None:
    around = desk.path.parent
    before = desk.tree(around)
    done = desk.hermes("exec", "-f", "sweep.hermes", "-n", name, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: the name ")
    assert "Traceback" not in done.stderr
    assert desk.tree(around) == before


def test_how_a_hermes_file_is_given_is_told(desk: Desk) -> None:
    desk.write("b.hermes", "")
    for words, hint in (
        (("exec", "b.hermes"), "write `hermes exec -f b.hermes`"),
        (
            ("exec", "-f", "sweep.hermes", "b.hermes"),
            "one hermes file makes a run; ",
        ),
        (("compile", "-f", "b.hermes"), "write `hermes compile b.hermes`"),
    ):
        assert f"hint: {hint}" in desk.hermes(*words, code=2).stderr


def test_a_missing_file_to_copy_after_counts(desk: Desk) -> None:
    desk.write("sweep.hermes", f"EXEC\n[[{PYTHON}, train.py],[-ca missing.txt]]\n{JOB}\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", code=1)
    troubled, other = desk.experiments()
    assert (troubled.status, other.status) == ("finished", "finished")
    assert "missing.txt" in troubled.problems[0].text
    assert other.problems == ()
    assert f"problem: {troubled.problems[0].text}" in done.stderr
    assert "problems: train" in done.stderr


# Errors


@pytest.mark.fault(20)
def test_an_error_shows_its_place(desk: Desk) -> None:
    desk.write(
        "sweep.hermes",
        """\
PRE
threads: 2

EXEC
# The first one is right
[[python, train.py]]
[[python, train_dqn.py, -lr 0.001],[-cc train_dqn.py]]
""",
    )
    before = desk.tree(desk.path)
    for arguments in (("compile", "sweep.hermes"), ("exec", "-f", "sweep.hermes")):
        done = desk.hermes(*arguments, code=2)
        assert done.stdout == ""
        assert (
            done.stderr
            == """\
error: unknown hermes option `-cc`
  --> sweep.hermes:7:37
   |
 7 | [[python, train_dqn.py, -lr 0.001],[-cc train_dqn.py]]
   |                                     ^^^
hint: did you mean `-ca`?
"""
        )
    assert desk.tree(desk.path) == before


def test_an_error_in_the_settings_shows_its_place(desk: Desk) -> None:
    desk.write(".hermes_settings", "\nthreds: 2\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", code=2)
    lines = done.stderr.splitlines()
    assert lines[0] == "error: unknown setting `threds`"
    assert lines[1].endswith("/.hermes_settings:2:1")
    assert lines[-1] == "hint: did you mean `threads`?"


def test_all_problems_of_a_plan_come_together(desk: Desk) -> None:
    desk.write(
        "sweep.hermes",
        f"""\
EXEC
{JOB}
[[no-such-program, train.py]]
[[{PYTHON}, trian.py]]
[[{PYTHON}, train.py],[-cb data.csv]]
""",
    )
    before = desk.tree(desk.path)
    done = desk.hermes("exec", "-f", "sweep.hermes", "-n", "a/b", code=2)
    assert done.stdout == ""
    assert re.findall("^error: (.*)$", done.stderr, re.MULTILINE) == [
        "the name `a/b` is not a plain folder name",
        "program `no-such-program` was not found on PATH",
        "script file `trian.py` does not exist",
        "`-cb data.csv`: no such file or directory",
    ]
    assert re.findall(r"--> sweep.hermes:(\d+):", done.stderr) == ["3", "4", "5"]
    assert "hint: did you mean `train.py`?" in done.stderr
    assert desk.tree(desk.path) == before


def test_warnings_go_to_stderr(desk: Desk) -> None:
    desk.write(".hermes_settings", "bot_id: 1\npath_to_experiments: .\n")
    done = desk.hermes("compile", "sweep.hermes")
    assert len(done.stdout.splitlines()) == 1
    assert re.fullmatch(r"warning: .*/\.hermes_settings:1: `bot_id` .*\n", done.stderr)
    for options in ((), ("--json",)):
        assert desk.hermes("exec", "-f", "sweep.hermes", *options).stderr.startswith("warning: ")


# Failures


def test_a_failure_is_told_with_all_that_helps(desk: Desk, path_with_hermes: str) -> None:
    desk.write("fail.py", FAIL)
    desk.write(
        "sweep.hermes", f"EXEC\n[[{PYTHON}, fail.py, --note 'two words' $HOME '{{}}']]\n{JOB}\n"
    )
    name = "it's a name"
    done = desk.hermes("exec", "-f", "sweep.hermes", "-n", name, code=1)
    failed, finished = desk.experiments()
    assert (failed.status, failed.exit_code, finished.status) == ("failed", 3, "finished")
    lines = done.stderr.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("failed: "))
    # At once, not when all is over
    assert start < next(
        index
        for index, line in enumerate(lines)
        if "] finished" in line and finished.identifier in line
    )
    told = [lines[start], *takewhile(lambda line: line.startswith("    "), lines[start + 1 :])]
    assert "fail" in told[0]
    assert failed.identifier in told[0]
    assert "exit code 3" in told[0]
    assert [line.partition("stderr | ")[2] for line in told if "stderr | " in line] == [
        f"line {number}" for number in range(21, 31)
    ]
    directory = next(line.partition("directory: ")[2] for line in told if "directory: " in line)
    assert desk.path / directory == failed.directory
    again = next(line.partition("run again: ")[2] for line in told if "run again: " in line)
    ran = subprocess.run(
        again,
        shell=True,
        cwd=desk.path,
        env=environment({"PATH": path_with_hermes}),
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )
    assert ran.returncode == 1
    *_, repeated = desk.experiments()
    assert (repeated.script, repeated.name, repeated.arguments) == (
        failed.script,
        failed.name,
        failed.arguments,
    )
    assert repeated.argv == tuple(
        word.replace(failed.identifier, repeated.identifier) for word in failed.argv
    )
    assert repeated.metadata.key == failed.metadata.key
    assert "1 finished" in lines[-1]
    assert "1 failed" in lines[-1]


def test_the_command_to_run_again_works_from_elsewhere(
    desk: Desk, path_with_hermes: str, tmp_path: Path
) -> None:
    # Results that went to another root go there again
    desk.write("fail.py", "import os, sys\nsys.exit(not os.path.exists('mended'))\n")
    elsewhere = tmp_path / "else where"
    desk.write("sweep.hermes", f"EXEC\n[[{PYTHON}, fail.py]]\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", "--root", str(elsewhere), code=1)
    again = re.search("run again: (.*)$", done.stderr, re.MULTILINE)
    assert again
    desk.write("mended")
    env = environment({"PATH": path_with_hermes})
    subprocess.run(
        again[1], shell=True, cwd=desk.path, env=env, capture_output=True, check=True, timeout=LIMIT
    )
    assert [path.name for path in (elsewhere / "experiments" / "fail").iterdir()] == ["sweep"]
    assert len(list((elsewhere / "experiments" / "fail" / "sweep").iterdir())) == 2
    # In the working directory there is only what leads to the run that failed
    assert os.listdir(desk.path / "experiments") == [".hermes"]


def test_a_signal_is_told_by_its_name(desk: Desk) -> None:
    desk.write("die.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    desk.write("sweep.hermes", f"EXEC\n[[{PYTHON}, die.py]]\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", code=1)
    assert "signal 9 (SIGKILL)" in done.stderr
    assert desk.experiment().signal == 9
