"""`hermes rm`: it asks, it never touches what runs, and nothing brings back what it removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hermes
from hermes.storage.metadata import read_metadata, write_metadata

from ..faults.test_killed import DIE_AT
from ..query.simple import experiment, identifier
from ..support import LIMIT, Desk, MakeDesk, namespace, some, until
from ..support.sweeps import check_all_done, ledger, sweep

KEY = "0123456789abcdef0123456789abcdef"


def listed(desk: Desk) -> list[str]:
    """The identifiers that `hermes ls` lists; nothing may be told of anything else."""
    done = desk.hermes("ls", "--columns", "identifier", "--json")
    assert done.stderr in ("", "no experiments\n")
    return [json.loads(line)["identifier"] for line in done.stdout.splitlines()]


@pytest.fixture
def three(desk: Desk) -> list[Path]:
    """Three experiments of a name with a space in it."""
    made = []
    for number in range(3):
        made.append(
            experiment(
                desk.path / "experiments",
                number,
                name="my name",
                key=f"{KEY[:-1]}{number}",
                parameters={"lr": str(number)},
            )
        )
        (made[-1] / "deep" / "er").mkdir(parents=True)
        (made[-1] / "deep" / "er" / "file").write_bytes(bytes(2048))
    return made


@pytest.mark.usefixtures("three")
def test_it_asks(desk: Desk) -> None:
    done = desk.hermes("rm", "lr < 2", code=2)
    assert done.stderr.startswith("error: this removes 2 experiments, ")
    with desk.terminal("rm", "lr < 2") as terminal:
        terminal.shows(r"^120000000000  train   my name  finished  2.0 s     0$")
        terminal.shows(r"^Remove 2 experiments, \d\.\d KiB\? \[y/N\]:")
        terminal.process.write(b"n\n")
        assert terminal.end() == 1
    assert len(listed(desk)) == 3
    with desk.terminal("rm", "lr < 2") as terminal:
        terminal.shows(r"\[y/N\]:")
        terminal.process.write(b"y\n")
        assert terminal.end() == 0
    assert listed(desk) == [identifier(2)]
    done = desk.hermes("rm", "lr < 2", "--yes")
    assert (done.stdout, done.stderr) == ("", "no such experiment\n")
    done = desk.hermes("rm", "0002", "-y")
    assert done.stderr.startswith("removed 1 experiment, ")
    assert listed(desk) == []
    # Nothing is left of the folders of the name and the script either
    assert os.listdir(desk.experiments_folder) == [".hermes"]


def test_beside_a_running_sweep(desk: Desk) -> None:
    sweep(desk, "0, 1, 2, 3", threads=2)
    desk.write("hold0")
    desk.write("hold2")
    with desk.started("exec", "-f", "s.hermes") as run:
        ended = until(lambda: [each for each in desk.experiments() if each.argv[-1] == "1"
                               and each.status == "failed"])  # fmt: skip
        until(lambda: len(desk.experiments()) == 3)
        running = {each.argv[-1]: each for each in desk.experiments() if each not in ended}
        # Whatever its metadata say
        for status in (hermes.Status.RUNNING, hermes.Status.FINISHED):
            until(lambda: read_metadata(running["0"].directory).pid is not None)
            metadata = read_metadata(running["0"].directory)
            metadata.status = status
            write_metadata(str(running["0"].directory), metadata, sync=False)
            done = desk.hermes("rm", "status is defined", "--yes", code=1)
            assert done.stderr.count("kept ") == 2
            assert done.stderr.count(" executes it\n") == 2
        assert listed(desk) == sorted((each.identifier for each in running.values()), reverse=True)
        for number in "02":
            (desk.path / f"hold{number}").unlink()
        assert run.wait(LIMIT) == 1
        assert {each.argv[-1] for each in desk.experiments()} == {"0", "2", "3"}
    removed = ended[0].identifier
    for words in (("resume",), ("resume", "--failed"), ("exec", "-f", "s.hermes", "--resume")):
        desk.hermes(*words, code=1)
        assert removed not in listed(desk)
    assert [number for number, _ in ledger(desk)].count("1") == 1


def test_nobody_brings_back_what_was_removed(desk: Desk) -> None:
    sweep(desk, "0, 0, 0, 0", threads=4)
    desk.write("hold0")
    with desk.started("exec", "-f", "s.hermes", "--no-supervise") as run:
        until(lambda: len([each for each in desk.experiments() if each.metadata.pid]) == 4)
        run.kill()
        run.wait()
    left = desk.experiments()
    assert desk.hermes("rm", "name = s", "--yes", code=1).stderr.count("belongs to it") == 4
    for each in left[:3]:
        assert each.metadata.pid is not None
        os.killpg(each.metadata.pid, signal.SIGKILL)
    for each, words in ((left[0], []), (left[1], ["--again"])):
        # Their processes are about to go
        until(lambda: _removed(desk, each.identifier, *words))  # noqa: B023
    (desk.path / "hold0").unlink()
    done = desk.hermes("resume")
    # The second is started anew, the third was lost and is run again, the fourth was taken up
    assert "1 removed before" in done.stderr
    gone = {left[0].identifier, left[1].identifier}
    there = {each.identifier for each in desk.experiments()}
    assert gone & there == set()
    assert [each.status for each in desk.experiments()].count(hermes.Status.FINISHED) == 3
    done = desk.hermes("exec", "-f", "s.hermes", "--resume")
    assert "3 finished before, 1 removed before" in done.stderr
    # A later experiment of the same job counts again
    desk.hermes("exec", "-f", "s.hermes")
    assert len(desk.experiments()) == len(there) + 4
    done = desk.hermes("exec", "-f", "s.hermes", "--resume")
    assert "4 finished before" in done.stderr


def _removed(desk: Desk, part: str, *words: str) -> bool:
    done = subprocess.run(
        desk.command("rm", part, "--yes", *words), cwd=desk.path, capture_output=True, check=False
    )
    return done.returncode == 0


def test_killed_at_any_step(make_desk: MakeDesk) -> None:
    def attempt(step: int) -> tuple[int, Desk]:
        desk = make_desk(f"step{step}")
        # Reading changes nothing
        desk.write("die.py", DIE_AT.replace(" open", ""))
        sweep(desk, "0, 0")
        desk.hermes("exec", "-f", "s.hermes")
        command = [sys.executable, "die.py", str(step), "rm", "name = s", "--yes"]
        done = subprocess.run(command, cwd=desk.path, capture_output=True, check=False)
        return done.returncode, desk

    for step in some(range(1, 34), 3):
        code, desk = attempt(step)
        assert code == -signal.SIGKILL
        for each in listed(desk):
            # Whole, or not there
            found = hermes.find_experiment(each, desk.path)
            assert {*os.listdir(found.directory)} >= {"job.sh", f"{each}.d", "stdout.log"}, step
        desk.hermes("rm", "name = s", "--yes")
        assert list(desk.path.glob("experiments/[!.]*")) == [], step
        done = desk.hermes("exec", "-f", "s.hermes", "--resume")
        assert "2 removed before" in done.stderr, step


def test_what_cannot_be_deleted_is_kept_whole(tmp_path: Path) -> None:
    with namespace(tmp_path, "mkdir -p work") as found:
        desk = found.at(tmp_path / "work")
        directories = [experiment(desk.path / "experiments", number) for number in range(2)]
        (directories[0] / "sub").mkdir()
        (directories[0] / "sub" / "file").touch()
        inside = f"experiments/train/test/{identifier(0)}/sub"
        desk.do("mount", "--bind", inside, inside)
        desk.do("mount", "-o", "remount,bind,ro", inside)
        done = desk.hermes("rm", "name = test", "--yes", code=1)
        assert f"kept {identifier(0)}: `" in done.stderr
        assert "/sub` is read-only, or somebody else's\n" in done.stderr
        assert "removed 1 experiment" in done.stderr
        assert [each.identifier for each in desk.experiments()] == [identifier(0)]
        desk.do("umount", inside)
        # As is what another program holds in place
        desk.do("mount", "--bind", inside, inside)
        done = desk.hermes("rm", "name = test", "--yes", code=1)
        assert "could not delete all of `" in done.stderr
        assert listed(desk) == []
        desk.do("umount", *(str(path) for path in _parts(desk)))
        assert "deleted what was left of 1 experiment" in desk.hermes("rm", "a = 1").stderr


def _parts(desk: Desk) -> list[Path]:
    found = desk.experiments_folder.glob("*/*/*.hermes-part/sub")
    return [path.relative_to(desk.path) for path in found]


def test_links_are_not_followed_and_copies_are_only_copies(desk: Desk, three: list[Path]) -> None:
    elsewhere = desk.path / "elsewhere"
    three[0].rename(elsewhere)
    three[0].symlink_to(elsewhere)
    copies = desk.path / "copies"
    copies.mkdir()
    three[1].rename(copies / three[1].name)
    desk.hermes("rm", "lr = 0", "--yes")
    assert (elsewhere / "deep" / "er" / "file").exists()
    desk.hermes("rm", "lr = 1", "--yes", "--root", "copies")
    # Not the folder that somebody has made for them
    assert os.listdir(copies) == []
    assert listed(desk) == [identifier(2)]


def test_all_in_python(desk: Desk, three: list[Path]) -> None:
    removal = hermes.plan_removal(hermes.experiments("lr < 2", desk.path))
    assert [each.identifier for each in removal.experiments] == [identifier(1), identifier(0)]
    assert removal.bytes > 4096
    assert removal.kept == {}
    three[0].rename(desk.path / "away")
    removed = removal.execute()
    assert removed.identifiers == (identifier(1),)
    assert removed.kept == removed.left == {}


def test_other_experiments_are_whole(desk: Desk) -> None:
    sweep(desk, "0, 0, 0")
    desk.hermes("exec", "-f", "s.hermes")
    first = desk.experiments()[0].identifier
    desk.hermes("rm", first, "--yes")
    with open(desk.path / "ledger") as file:
        kept = [line for line in file if first not in line]
    desk.write("ledger", "".join(kept))
    check_all_done(desk, 2)
