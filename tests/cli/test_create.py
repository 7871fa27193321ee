"""`hermes create` and `hermes demo`: files to start from."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

import hermes

from ..support import IDENTIFIER, TRAIN, Desk

# create


def test_create_writes_a_file_to_start_from(desk: Desk) -> None:
    done = desk.hermes("create", "fresh")
    assert done.stdout == "fresh.hermes\n"
    text = (desk.path / "fresh.hermes").read_text()
    assert re.search(r"^\s*#", text, re.MULTILINE)
    for section in ("PRE", "STD-H", "STD-E", "EXEC"):
        assert re.search(rf"^{section}$", text, re.MULTILINE), section
    assert (
        desk.hermes("compile", "fresh.hermes").stdout == "python train.py {identifier} --lr 0.001\n"
    )


def test_create_with_scripts(desk: Desk) -> None:
    desk.write("other script.py", TRAIN)
    desk.program("tool", "#!/bin/sh\n")
    desk.hermes(
        "create",
        "mine.hermes",
        "-s",
        "train.py",
        "-s",
        "other script.py",
        "--script",
        "tool",
        "-s",
        "run.sh",
    )
    assert desk.hermes("compile", "mine.hermes").stdout.splitlines() == [
        "python train.py {identifier}",
        "python 'other script.py' {identifier}",
        "./tool {identifier}",
        "bash run.sh {identifier}",
    ]
    desk.write("run.sh")
    desk.hermes("exec", "-f", "mine.hermes", "-n", "created", "-q")
    assert [experiment.script for experiment in desk.experiments()] == [
        "train",
        "other script",
        "tool",
        "run.sh",
    ]


def test_create_never_overwrites(desk: Desk) -> None:
    kept = desk.write("kept.hermes", "mine")
    for name in ("kept", "kept.hermes"):
        done = desk.hermes("create", name, "-s", "train.py", code=2)
        assert done.stderr.startswith("error: `kept.hermes` exists already")
        assert kept.read_text() == "mine"
    (desk.path / "link.hermes").symlink_to("nowhere")
    desk.hermes("create", "link", code=2)
    assert not (desk.path / "nowhere").exists()
    done = desk.hermes("create", "no/such/folder", code=2)
    assert re.fullmatch(r"error: cannot write `no/such/folder.hermes`: .*\n", done.stderr)


# demo


@pytest.mark.once
def test_demo_in_a_git_repository(desk: Desk) -> None:
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=desk.path, check=True
        )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=desk.path, check=True, capture_output=True, text=True
    ).stdout.strip()
    done = desk.hermes("demo", "my demo")
    folder = desk.path / "my demo"
    found = list((folder / "experiments").glob("*/*/*/hermes.json"))
    experiments = sorted(
        (hermes.load_experiment(path.parent) for path in found), key=lambda each: each.script
    )
    assert [(each.script, each.name, each.status) for each in experiments] == [
        ("train_ac", "test_agents", "finished"),
        ("train_dqn", "test_agents", "finished"),
    ]
    for each in experiments:
        assert each.identifier.endswith(f"_{commit[-5:]}")
        assert (each.directory / "cnn.py").read_bytes() == (
            folder / "networks" / "cnn.py"
        ).read_bytes()
        script = f"{each.script}.py"
        assert (each.directory / script).read_bytes() == (folder / script).read_bytes()
        assert [file for file in each.files if file.origin == "collected"]
        # Where everything is: that is the result
        assert os.path.relpath(each.directory, desk.path) in done.stdout
        assert each.identifier in done.stderr
    left = [
        path
        for path in folder.rglob("*")
        if IDENTIFIER.search(path.name) and "experiments" not in path.parts
    ]
    assert left == []
    assert not (desk.path / "experiments").exists()
    commands = desk.hermes("compile", "example_file.hermes", cwd=folder).stdout.splitlines()
    assert commands == [
        "python train_dqn.py {identifier} -gamma 0.995 --env cartpole -lr 0.001",
        "python train_ac.py {identifier} -gamma 0.995 --env cartpole -lr_actor 0.003 -lr_critic "
        "0.001",
    ]


def test_demo_overwrites_nothing(desk: Desk) -> None:
    desk.write("networks/cnn.py", "# mine")
    before = desk.tree(desk.path)
    done = desk.hermes("demo", ".", code=2)
    assert done.stderr.startswith("error: `networks/cnn.py` exists already, it was left as it is\n")
    assert desk.tree(desk.path) == before
