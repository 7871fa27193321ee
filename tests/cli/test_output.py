"""What jobs print, and where it is shown."""

from __future__ import annotations

import re

import pytest

from ..support import JOB, LIMIT, PYTHON, Desk
from ..support.words import FAIL


def test_output_is_shown_live_only_where_it_is_asked_for(desk: Desk) -> None:
    # The second line comes when somebody has seen the first
    desk.write(
        "talk.py",
        """\
import os, sys, time
print("out first")
while not os.path.exists("seen"):
    time.sleep(0.01)
print("out second")
print("err", file=sys.stderr)
""",
    )
    desk.write("quiet.py", "print('hidden')\n")
    desk.write("sweep.hermes", f"EXEC\n[[{PYTHON}, quiet.py]]\n[[{PYTHON}, talk.py],[-l false]]\n")
    with desk.started("exec", "-f", "sweep.hermes") as process:
        assert process.stdout
        assert process.stdout.readline().endswith("out first\n")
        desk.write("seen")
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert out.endswith("out second\n")
    assert re.search(r"\berr$", err, re.MULTILINE)
    assert "out" not in err
    assert "hidden" not in out + err
    # It is stored all the same
    quiet, talk = desk.experiments()
    assert (quiet.stdout, talk.stdout, talk.stderr) == (
        "hidden\n",
        "out first\nout second\n",
        "err\n",
    )


def test_a_single_job_is_shown_as_it_is(desk: Desk) -> None:
    desk.write("talk.py", "import sys\nprint('a\\tb')\nprint('no line end', end='')\n")
    desk.write("sweep.hermes", f"STD-H\n-l false\nEXEC\n[[{PYTHON}, talk.py]]\n")
    assert desk.hermes("exec", "-f", "sweep.hermes").stdout == "a       b\nno line end\n"


@pytest.mark.fault(22)
def test_terminal_escapes_are_shown_as_text(desk: Desk) -> None:
    said = "\\x1b]0;title\\x07 \\x1b[2J\\x1b[31mred [bold]not markup[/bold] \\x9b \\u202e"
    desk.write(
        "nasty.py",
        f'import sys\nfor stream in (sys.stdout, sys.stderr):\n    print("{said}", file=stream)\n'
        f"sys.exit(1)\n",
    )
    desk.write("sweep.hermes", f"STD-H\n-l false\nEXEC\n[[{PYTHON}, nasty.py, '\x1b[31marg']]\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", code=1, env={"PYTHONIOENCODING": "utf-8"})
    assert f"{said}\n" in done.stdout
    assert f"stderr | {said}\n" in done.stderr
    assert "\\x1b[31marg" in done.stderr
    printable = (done.stdout + done.stderr).replace("\n", "")
    assert printable.isprintable()
    # Unlike what is shown, what is stored is as it was
    assert "\x1b[2J" in desk.experiment().stdout


@pytest.mark.fault(7)
def test_bytes_that_are_no_text_are_shown(desk: Desk) -> None:
    desk.write("bytes.py", "import os\nos.write(1, b'\\xff\\x00\\xc3\\xa4\\n')\n")
    desk.write("sweep.hermes", f"STD-H\n-l false\nEXEC\n[[{PYTHON}, bytes.py]]\n")
    for env in (
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ):
        shown = desk.hermes("exec", "-f", "sweep.hermes", env=env).stdout
        assert shown in ("\\xff\\x00ä\n", "\\xff\\x00\\xe4\n")
    assert (desk.experiments()[0].directory / "stdout.log").read_bytes() == b"\xff\x00\xc3\xa4\n"


def test_nothing_but_text_where_there_is_no_terminal(desk: Desk) -> None:
    desk.write("fail.py", FAIL)
    desk.write("sweep.hermes", f"PRE\nthreads: 2\nEXEC\n{JOB}\n[[{PYTHON}, fail.py]]\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", code=1)
    assert done.stderr.replace("\n", "").isprintable()
    for experiment in desk.experiments():
        # One line a change
        assert (
            len(
                [
                    line
                    for line in done.stderr.splitlines()
                    if line.startswith("started") and experiment.identifier in line
                ]
            )
            == 1
        )
    assert "\x1b" not in desk.hermes("exec", "-f", "missing.hermes", code=2).stderr
