"""Jobs that run in their experiment directories (`cwd: experiment`), with variables of the
settings, and with values in place of braces."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from hermes import Status

from ..support import PYTHON, Desk

TRAIN = """\
import os, sys
import beside, below.deep
open("model.txt", "w").write(sys.argv[1])
open("out_" + sys.argv[1], "w").write("mine")
print(os.getcwd(), os.path.abspath(__file__), beside.NAME, sep="\\n")
"""


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("src/train.py", TRAIN)
    desk.write("src/beside.py", "NAME = 'beside'\n")
    desk.write("below/deep.py", "")
    return desk


def test_scripts_that_write_fixed_names_do_so_side_by_side(desk: Desk) -> None:
    pre = "PRE\nthreads: 4\ncwd: experiment\n"
    desk.write("x.hermes", f"{pre}EXEC\nPROD([[{PYTHON}, src/train.py, {{n}}]], n=RANGE[0, 8])\n")
    done = desk.hermes("exec", "-f", "x.hermes")
    assert "warning" not in done.stderr
    assert len(desk.experiments()) == 8
    for experiment in desk.experiments():
        own = experiment.identifier
        assert experiment.argv[2] == str(desk.path / "src/train.py")
        assert experiment.stdout.split() == [
            str(experiment.directory), str(desk.path / "src/train.py"), "beside",
        ]  # fmt: skip
        assert (experiment.directory / "model.txt").read_text() == own
        assert {(file.path, file.origin) for file in experiment.files} == {
            ("model.txt", "written"), (f"out_{own}", "written"),
        }  # fmt: skip
        assert desk.leftovers(own) == []
    assert not (desk.path / "model.txt").exists()


@pytest.mark.parametrize("supervise", ["true", "false"])
@pytest.mark.parametrize("what", ["./run.sh", "nice ./run.sh", "sh run.sh", "sub/../run.sh"])
def test_programs_and_scripts_are_found_from_elsewhere(
    desk: Desk, what: str, supervise: str
) -> None:
    desk.program("run.sh", "#!/bin/sh\npwd\n")
    (desk.path / "sub").mkdir()
    desk.write("x.hermes", f"PRE\nsupervise: {supervise}\nEXEC\n[[{what}]]\n")
    desk.hermes("exec", "-f", "x.hermes", "--cwd", "experiment")
    assert Path(desk.experiment().stdout.strip()).samefile(desk.experiment().directory)


def test_modules_are_found_from_elsewhere(desk: Desk) -> None:
    desk.write("told.py", "import os\nprint(os.environ['PYTHONPATH'])\n")
    desk.hermes("exec", "-e", f"{PYTHON} -m told", "--cwd=experiment", "--env=PYTHONPATH=/x:/y")
    assert desk.experiment().stdout == f"{desk.path}:/x:/y\n"


def test_the_job_runs_again_in_a_directory_of_its_own(desk: Desk) -> None:
    desk.hermes("exec", "-e", f"{PYTHON} src/train.py", "-n", "first", "--cwd=experiment")
    (first,) = desk.experiments()
    file = os.path.relpath(first.directory / "re_execution.hermes", desk.path)
    desk.hermes("exec", "-f", file, "-n", "again")
    again = next(each for each in desk.experiments() if each.name == "again")
    assert (again.directory / "model.txt").read_text() == again.identifier
    # It is the same job
    assert again.metadata.key == first.metadata.key
    desk.hermes("exec", "--resume", "-f", file, "-n", "first")
    assert len(desk.experiments()) == 2


def test_copies_start_at_the_working_directory(desk: Desk) -> None:
    desk.write("data.csv", "data")
    desk.write("late.py", "open('late.txt', 'w').write('late')\n")
    options = "-cb data.csv -ca late.txt"
    desk.write("x.hermes", f"PRE\ncwd: experiment\nEXEC\n[[{PYTHON}, late.py],[{options}]]\n")
    desk.hermes("exec", "-f", "x.hermes")
    assert desk.tree(desk.experiment().directory, own=True) == {
        "data.csv": "data", "late.txt": "late",
    }  # fmt: skip


def test_what_stands_in_braces(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    code = "import sys, time; print(*sys.argv[2:]); open(sys.argv[2] + '/here', 'w')"
    command = f"{PYTHON} -c {shlex.quote(code)} {{directory}} {{slot}} gpu={{gpus}} '${{slot}}'"
    desk.write("x.hermes", f"PRE\nthreads: 2\nEXEC\n[[{command}]]\n[[{command}]]\n")
    desk.hermes("exec", "-f", "x.hermes")
    slots = set()
    for experiment in desk.experiments():
        directory, slot, gpus, shell = experiment.stdout.split()
        assert (directory, gpus, shell) == (str(experiment.directory), "gpu=0,2", "${slot}")
        assert slot == str(experiment.metadata.slot)
        assert (experiment.directory / "here").exists()
        # None of it says what the job is
        assert experiment.arguments == ("${slot}",)
        slots.add(slot)
    assert slots <= {"0", "1"}


def test_paths_in_options_hold_them_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(desk.path / "home"))
    desk.write("home/data", "data")
    desk.write("job.py", "import os\nopen('out' + os.environ['HERMES_SLOT'], 'w').write('out')\n")
    options = "-ma out{slot} -cb ~/data"
    desk.write("x.hermes", f"EXEC\n[[{PYTHON}, job.py],[{options}]]\n")
    desk.hermes("exec", "-f", "x.hermes")
    assert desk.tree(desk.experiment().directory, own=True) == {"out0": "out", "data": "data"}


def test_variables_of_the_settings(desk: Desk) -> None:
    (desk.path / "bin").mkdir()
    desk.program("bin/hello", "#!/bin/sh\necho hello\n")
    path = f"{desk.path}/bin:{os.environ['PATH']}"
    pre = f"PRE\nenv: PATH={path} A='x y' PYTHONUNBUFFERED=\nenv: HERMES_SLOT=7\n"
    desk.write(
        "x.hermes",
        f"{pre}EXEC\n[[sh, -c, 'hello; echo $A/$HERMES_SLOT/$PYTHONUNBUFFERED']]\n[[hello]]\n",
    )
    desk.hermes("exec", "-f", "x.hermes", "--env", "A=z  z")
    first, second = desk.experiments()
    assert first.stdout == "hello\nz z/0/\n"
    assert (second.status, second.stdout) == (Status.FINISHED, "hello\n")
    assert second.metadata.program == f"{desk.path}/bin/hello"
