"""The page that asked for Hermes, sentence by sentence. What stands in quotation marks is the
page's own text.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from .support import CNN, EXAMPLE, IDENTIFIER, PYTHON, SETTINGS, Desk, MakeDesk

TRAIN = """\
import json, os, sys, time
from networks.cnn import LAYERS

identifier = sys.argv[1]
marker = "running/%d" % os.getpid()
open(marker, "w").close()
together = len(os.listdir("running"))
if together > 1:
    open("met", "w").close()
while not os.path.exists("met"):
    time.sleep(0.005)

folder = "experiments/%s/test_agents/%s" % (os.path.basename(sys.argv[0])[:-3], identifier)
own = os.environ["HERMES_EXPERIMENT_DIR"]
told = {
    "arguments": sys.argv,
    "directory": os.path.isdir(folder) and os.path.samefile(folder, own),
    "before": sorted(os.listdir(folder)),
    "together": together,
}
with open("weights_" + identifier + ".json", "w") as file:
    json.dump(LAYERS, file)
os.makedirs("plots", exist_ok=True)
with open("plots/" + identifier + "_curve.csv", "w") as file:
    file.write("step,return\\n")
with open("told_" + identifier + ".json", "w") as file:
    json.dump(told, file)
os.unlink(marker)
"""
"""Both scripts, which tell what they get and see. They wait until two of them have run at the same
time.
"""


@pytest.fixture
def desk(make_desk: MakeDesk) -> Desk:
    """The page's folder: a git repository with the two scripts and the network."""
    desk = make_desk("agents")
    desk.write("example_file.hermes", EXAMPLE)
    desk.write(".hermes_settings", SETTINGS)
    desk.write("train_dqn.py", TRAIN)
    desk.write("train_ac.py", TRAIN)
    desk.write("networks/cnn.py", CNN)
    desk.write(".gitignore", "experiments\nrunning\nmet\n__pycache__\n")
    (desk.path / "running").mkdir()
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "agents"],
    ):
        subprocess.run(["git", *words], cwd=desk.path, check=True)
    return desk


@pytest.fixture
def path_with_python(tmp_path: Path) -> dict[str, str | None]:
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    return {"PATH": os.pathsep.join([str(programs), os.environ["PATH"]])}


def test_the_page(desk: Desk, path_with_python: dict[str, str | None]) -> None:
    before = desk.tree(desk.path)
    called = datetime.now() - timedelta(microseconds=1)

    # "In order to execute this hermes file under the name test_agents, we call hermes from the
    # command line"
    desk.hermes("exec", "-f", "example_file.hermes", "-n", "test_agents", env=path_with_python)
    first, second = desk.experiments()
    dqn, ac = (first, second) if first.script == "train_dqn" else (second, first)
    assert (dqn.name, ac.name) == ("test_agents", "test_agents")

    # "executes the following jobs", the identifier first, then what STD-E gives to each script,
    # then the job's own arguments
    assert (
        " ".join(dqn.argv)
        == f"python train_dqn.py {dqn.identifier} -gamma 0.995 --env cartpole -lr 0.001"
    )
    own_arguments = "-lr_actor 0.003 -lr_critic 0.001"
    assert (
        " ".join(ac.argv)
        == f"python train_ac.py {ac.identifier} -gamma 0.995 --env cartpole {own_arguments}"
    )
    told = {
        each.script: json.loads((each.directory / f"told_{each.identifier}.json").read_text())
        for each in (dqn, ac)
    }
    for each in (dqn, ac):
        assert each.status == "finished"
        assert told[each.script]["arguments"] == list(each.argv[1:])

    # "at most 2 threads may run in parallel": these two did, for each has waited for the other
    assert max(each["together"] for each in told.values()) == 2

    # "Before experiments are executed, hermes creates a unique experiment identifier": the date,
    # and the end of the commit
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=desk.path, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert dqn.identifier != ac.identifier
    for each in (dqn, ac):
        assert IDENTIFIER.fullmatch(each.identifier)
        stamp, _, suffix = each.identifier.rpartition("_")
        assert called <= datetime.strptime(stamp, "%Y_%m_%d_%H%M%S%f") <= datetime.now()
        assert suffix == commit[-5:]

    # "as well as an experiment directory for them"; with path_to_experiments ".", in quotes like
    # those, "these directories are ..."
    assert dqn.directory == desk.path / "experiments" / "train_dqn" / "test_agents" / dqn.identifier
    assert ac.directory == desk.path / "experiments" / "train_ac" / "test_agents" / ac.identifier
    assert told["train_dqn"]["directory"] is told["train_ac"]["directory"] is True, (
        "they are there when the job starts"
    )

    # "hermes is instructed to copy those files into the experiment directories after the jobs are
    # finished"
    for each in (dqn, ac):
        script = f"{each.script}.py"
        assert {"cnn.py", script} & set(told[each.script]["before"]) == set()
        assert (each.directory / "cnn.py").read_text() == CNN
        assert (each.directory / script).read_text() == TRAIN
        assert {file.path for file in each.files if file.origin == "copied-after"} == {
            "cnn.py",
            script,
        }
        assert not (each.directory / ("train_ac.py" if each is dqn else "train_dqn.py")).exists()

    # "Hermes is also able to automatically move files that are created within the working
    # directory", by the identifier in their names
    for each in (dqn, ac):
        collected = {
            f"weights_{each.identifier}.json",
            f"told_{each.identifier}.json",
            f"plots/{each.identifier}_curve.csv",
        }
        assert {file.path for file in each.files if file.origin == "collected"} == collected
        assert json.loads((each.directory / f"weights_{each.identifier}.json").read_text()) == [
            8,
            4,
            4,
        ]
        assert (
            each.directory / "plots" / f"{each.identifier}_curve.csv"
        ).read_text() == "step,return\n"
    after = {
        path: content
        for path, content in desk.tree(desk.path).items()
        if path.split("/")[0] != "experiments"
    }
    after = {path: content for path, content in after.items() if "__pycache__" not in path}
    # Moved, not copied: but for what bears no identifier in its name, the folder is as it was
    assert after == before | {"plots": "/", "met": ""}

    # "they need to treat their first command line argument as this exact identifier"
    for each in (dqn, ac):
        assert told[each.script]["arguments"][1] == each.identifier == each.directory.name


def test_first_compiles_then_executes(desk: Desk) -> None:
    """ "Hermes now first compiles the given hermes file and finally executes": a mistake in the
    last line keeps the first from running.
    """
    commands = desk.hermes("compile", "example_file.hermes").stdout.splitlines()
    assert commands == [
        "python train_dqn.py {identifier} -gamma 0.995 --env cartpole -lr 0.001",
        "python train_ac.py {identifier} -gamma 0.995 --env cartpole -lr_actor 0.003 -lr_critic "
        "0.001",
    ]
    desk.write("example_file.hermes", EXAMPLE + "[[python, train_ac.py],[-cx train_ac.py]]\n")
    desk.hermes("exec", "-f", "example_file.hermes", "-n", "test_agents", code=2)
    assert not desk.experiments_folder.exists()


def test_at_most_two_at_the_same_time(desk: Desk, path_with_python: dict[str, str | None]) -> None:
    """ "here we set that at most 2 threads may run in parallel", with more jobs than that"""
    entries = EXAMPLE.partition("EXEC\n")[2]
    desk.write("example_file.hermes", EXAMPLE + entries + entries)
    desk.hermes("exec", "-f", "example_file.hermes", "-n", "test_agents", env=path_with_python)
    experiments = desk.experiments()
    together = [
        json.loads((each.directory / f"told_{each.identifier}.json").read_text())["together"]
        for each in experiments
    ]
    assert len(together) == 6
    assert max(together) == 2
    # "a unique experiment identifier"
    assert len({each.identifier for each in experiments}) == 6


def test_all_kinds_of_files_can_be_copied(desk: Desk) -> None:
    """ "This can be useful for archiving purposes and works with all kinds of files, not just
    python files."
    """
    desk.write("data.bin", bytes(range(256)))
    desk.write("empty", "")
    desk.write("results/a/b.txt", "b")
    desk.write("save.py", "")
    desk.write(
        "x.hermes", f"STD-H\n-ca data.bin -ca empty\nEXEC\n[[{PYTHON}, save.py],[-ca results]]\n"
    )
    desk.hermes("exec", "-f", "x.hermes")
    copied = desk.tree(desk.experiment().directory, own=True)
    assert copied.pop("data.bin").encode("utf-8", "surrogateescape") == bytes(range(256))
    assert copied == {"empty": "", "results": "/", "results/a": "/", "results/a/b.txt": "b"}
