"""Commands that take no hermes file find the run that is meant, and act on nothing else."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

import hermes

from ..support import LONG, Desk, MakeDesk, RecordProperty, some, until

pytestmark = pytest.mark.fault(32)

JOB = 'echo "$2" >> "$0.ran"; if [ "$2" = 1 ] && [ -e "$0.bad" ]; then exit 1; fi; echo > "x_$1"'

PLACES = {
    # Settings in PRE, options, working directory, links in the project
    "plain": ("", (), ".", {}),
    "sub": ("", (), "sub/deep", {}),
    "inside": ("path_to_experiments: results", (), ".", {}),
    "inside_from_sub": ("path_to_experiments: results/x", (), "sub", {}),
    "beside": ("path_to_experiments: ../scratch", (), ".", {}),
    "beside_from_sub": ("path_to_experiments: ../scratch", (), "sub", {}),
    "behind_a_link": ("path_to_experiments: way", (), ".", {"way": "../scratch"}),
    "experiments_are_a_link": ("", (), "sub", {"experiments": "../scratch"}),
    "absolute": ("path_to_experiments: {}/lab/project/results", (), ".", {}),
    "other_root": ("", ("--root", "../../scratch"), "sub", {}),
    "root_above": ("", ("--root", ".."), ".", {}),
}


def begun(desk: Desk, place: str) -> Path:
    """The working directory of a run, of which one job has succeeded and one has failed."""
    pre, options, where, links = PLACES[place]
    project = desk.path / "lab/project"
    (project / where).mkdir(parents=True)
    (desk.path / "lab/scratch").mkdir()
    (project / ".hermes_settings").touch()
    for name, target in links.items():
        (project / name).symlink_to(target)
    base = project / where
    (base / "job.sh").write_text(JOB)
    (base / "job.sh.bad").touch()
    pre = f"PRE\n{pre.format(desk.path)}\n" if pre else ""
    (base / "s.hermes").write_text(f"{pre}EXEC\nPROD([[sh, job.sh, {{n}}]], n=[0, 1])\n")
    desk.hermes("exec", "-f", "s.hermes", *options, code=1, cwd=base)
    (base / "job.sh.bad").unlink()
    return base


def check_resumed(desk: Desk, base: Path, *options: str) -> str:
    """Resumes the run from `base`: its failed job runs again, and nothing else does."""
    told = desk.hermes("resume", "--failed", *options, cwd=base).stderr
    assert sorted((base / "job.sh.ran").read_text().split()) == ["0", "1", "1"]
    found = metadata(desk.path)
    assert sorted(str(each["status"]) for each in found) == ["failed", "finished", "finished"]
    # Neither the run nor what led to it is left
    assert not list(desk.path.rglob("run.json"))
    assert not list(desk.path.rglob("*.pointer"))
    assert "no unfinished run" in desk.hermes("resume", code=2, cwd=base).stderr
    return told


def metadata(folder: Path) -> list[dict[str, object]]:
    return [json.loads(each.read_text()) for each in folder.rglob("hermes.json")]


@pytest.mark.parametrize("place", some(PLACES, 3))
def test_runs_are_found_after_their_project_was_moved(
    make_desk: MakeDesk, place: str, record_property: RecordProperty
) -> None:
    ways = ("renamed", "deeper", "old path leads to the new", "old path is another project")
    chosen = ways if LONG else random.sample(ways, 1)
    record_property("tried", len(chosen))
    for number, way in enumerate(chosen):
        desk = make_desk(f"desk{number}")
        base = begun(desk, place)
        lab, moved = desk.path / "lab", desk.path / "some/where"
        moved.parent.mkdir()
        if way == "deeper":
            moved = moved / "else"
            moved.parent.mkdir()
        lab.rename(moved)
        if way == "old path leads to the new":
            lab.symlink_to(moved)
        elif way == "old path is another project":
            (lab / "project/experiments").mkdir(parents=True)
            base.mkdir(parents=True, exist_ok=True)
        other = list(lab.rglob("*")) if not lab.is_symlink() else []
        told = check_resumed(desk, moved / base.relative_to(lab))
        assert "resuming" in told
        assert other == (list(lab.rglob("*")) if not lab.is_symlink() else [])
        # What ran after the move knows the new place
        latest = max(metadata(moved), key=lambda each: str(each["identifier"]))
        assert str(latest["root"]).startswith(str(moved))


SETTINGS = (
    b"path_to_experiments: elsewhere\n",
    b"path_to_experiments: /nowhere/at/all\n",
    b"threads: many\n",
    b"no setting: 1\n",
    b"broken",
    b"\xff\xfe",
    b"threads: 1\nthreads: 2\n",
    b"executor: slurm\n",
    None,
)


@pytest.mark.parametrize("place", some(PLACES, 3))
def test_runs_are_found_whatever_the_settings_say_now(
    make_desk: MakeDesk, place: str, record_property: RecordProperty
) -> None:
    chosen = SETTINGS if LONG else random.sample(SETTINGS, 2)
    record_property("tried", len(chosen))
    for number, text in enumerate(chosen):
        desk = make_desk(f"desk{number}")
        base = begun(desk, place)
        path = desk.path / "lab/project/.hermes_settings"
        path.unlink()
        if text is not None:
            path.write_bytes(text)
        told = check_resumed(desk, base)
        assert "resuming" in told


def test_a_new_root_between_hides_no_run(desk: Desk, record_property: RecordProperty) -> None:
    record_property("tried", 2)
    base = begun(desk, "sub")
    # Nearer than the old root, and a repository above
    (base / ".hermes_settings").touch()
    (desk.path / ".git").mkdir()
    check_resumed(desk, base)


@pytest.mark.parametrize("place", ["plain", "beside", "sub"])
def test_runs_are_found_from_within_their_experiments(desk: Desk, place: str) -> None:
    base = begun(desk, place)
    (inside, *_) = [each.parent for each in desk.path.rglob("hermes.json")]
    told = desk.hermes("resume", "--failed", "-n", "s", cwd=inside).stderr
    assert f"of {base}" in told
    assert sorted((base / "job.sh.ran").read_text().split()) == ["0", "1", "1"]


def test_of_several_runs_of_other_folders_none_is_taken(desk: Desk) -> None:
    desk.write(".hermes_settings")
    for name in ("a", "b"):
        desk.write(f"{name}/job.sh", "exit 1")
        desk.hermes("exec", "-e", "sh job.sh", "-n", name, code=1, cwd=desk.path / name)
    (desk.path / "c").mkdir()
    before = sorted(desk.path.rglob("*"))
    for command in (("resume",), ("stop",), ("stop", "--forget"), ("stop", "2")):
        said = desk.hermes(*command, code=2, cwd=desk.path / "c").stderr
        assert f"of {desk.path}/a" in said
        assert f"of {desk.path}/b" in said
    assert before == sorted(desk.path.rglob("*"))
    # In its own folder each is meant, and the other is named
    told = desk.hermes("resume", code=1, cwd=desk.path / "a").stderr
    assert "(a, began" in told.splitlines()[0]
    assert "(b, began" in told.splitlines()[1]


def test_a_copy_of_a_project_leaves_the_original_alone(desk: Desk) -> None:
    base = begun(desk, "plain")
    shutil.copytree(desk.path / "lab", desk.path / "copy", symlinks=True)
    copy = desk.path / "copy" / base.relative_to(desk.path / "lab")
    for command in ("resume", "stop"):
        assert "is a copy of the run in" in desk.hermes(command, code=2, cwd=copy).stderr
    # A copy of the record beside it is none either
    (folder,) = (path.parent for path in (base / "experiments").rglob("run.json"))
    shutil.copytree(folder, folder.with_name("zzz"))
    told = desk.hermes("resume", "--failed", cwd=base).stderr
    assert "warning: " in told.splitlines()[0]
    assert "holds the record of the run" in told.splitlines()[0]
    # Without the original it is a project that was moved
    shutil.rmtree(desk.path / "lab")
    desk.hermes("resume", "--failed", cwd=copy)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a killed runner's jobs are in /proc")
def test_stop_ends_what_runs_and_nothing_else(desk: Desk, record_property: RecordProperty) -> None:
    # Which of the runs is in progress, and whether its runner is killed
    variations = [(at, is_killed) for at in range(3) for is_killed in (False, True)]
    chosen = variations if LONG else random.sample(variations, 2)
    record_property("tried", len(chosen))
    desk.write("ended.sh", "exit 1")
    desk.write("held.sh", 'echo > "up_$1"; while :; do sleep 0.02; done')
    for number, (at, is_killed) in enumerate(chosen):
        names = [f"n{number}{each}" for each in range(3)]
        for name in names[:at]:
            desk.hermes("exec", "-e", "sh ended.sh", "-n", name, code=1)
        with desk.started("exec", "-e", "sh held.sh", "-n", names[at]) as runner:
            until(lambda: list(desk.path.glob("up_*")))
            if is_killed:
                runner.kill()
                runner.wait()
            for name in names[at + 1 :]:
                desk.hermes("exec", "-e", "sh ended.sh", "-n", name, code=1)
            before = [each for each in metadata(desk.path) if each["status"] == "failed"]
            told = desk.hermes("stop").stderr
            assert f"({names[at]}, began" in told.splitlines()[0]
            assert runner.wait(10) != 0
        (ended,) = [each for each in metadata(desk.path) if each["name"] == names[at]]
        assert ended["status"] == "cancelled"
        assert before == [each for each in metadata(desk.path) if each["status"] == "failed"]
        # Nothing is left to be stopped, and that is said
        said = desk.hermes("stop", code=2).stderr
        assert said.startswith("error: no run of")
        assert "in progress" in said


def test_a_run_that_was_put_away_is_not_offered_any_more(desk: Desk) -> None:
    base = begun(desk, "beside")
    told = desk.hermes("stop", "--forget", cwd=base).stderr
    assert "putting away" in told
    assert "it cannot be resumed" in told
    assert "goes on" not in told
    assert "no unfinished run" in desk.hermes("resume", code=2, cwd=base).stderr
    assert not list(desk.path.rglob("run.json")) + list(desk.path.rglob("*.pointer"))
    # Its experiments stay
    assert sorted(str(each["status"]) for each in metadata(desk.path)) == ["failed", "finished"]


def test_a_run_in_progress_is_ended_before_it_is_put_away(desk: Desk) -> None:
    desk.write("held.sh", "echo > up_$1; while :; do sleep 0.02; done")
    with desk.started("exec", "-e", "sh held.sh") as runner:
        until(lambda: list(desk.path.glob("up_*")))
        desk.hermes("stop", "--forget")
        assert runner.wait(10) != 0
    assert [each["status"] for each in metadata(desk.path)] == ["cancelled"]
    assert "no unfinished run" in desk.hermes("resume", code=2).stderr


def test_messages_about_runs_leave_json_whole_and_quiet_says_nothing(desk: Desk) -> None:
    base = begun(desk, "plain")
    done = desk.hermes("resume", "--json", code=1, cwd=base)
    assert all(json.loads(line) for line in done.stdout.splitlines())
    assert "resuming" in done.stderr
    assert "resuming" not in desk.hermes("resume", "-q", code=1, cwd=base).stderr


@pytest.mark.parametrize("place", some(PLACES, 3))
def test_re_execution_files_know_their_folder(
    desk: Desk, place: str, record_property: RecordProperty
) -> None:
    base = begun(desk, place)
    lab, moved = desk.path / "lab", desk.path / "moved"
    lab.rename(moved)
    base = moved / base.relative_to(lab)
    options = PLACES[place][1]
    files = sorted(moved.rglob("re_execution.hermes"))
    elsewhere = [desk.path, moved, moved / "scratch", base.parent, files[0].parent]
    elsewhere = [each for each in elsewhere if each != base]
    record_property("tried", len(elsewhere) + 1)
    (desk.path / "job.sh").write_text("exit 1")
    before = len(metadata(desk.path))
    for folder in elsewhere:
        words = ("exec", "-f", os.path.relpath(files[0], folder), "-n", "again")
        said = desk.hermes(*words, code=2, cwd=folder).stderr
        assert "working_directory: " in said
        assert f"cd {base} && hermes exec -f " in said
    assert len(metadata(desk.path)) == before
    file = os.path.relpath(files[0], base)
    desk.hermes("exec", "-f", file, "-n", "again", *options, cwd=base)
    # Also by its real path, or by one through links
    desk.hermes("exec", "-f", str(files[0].resolve()), "-n", "again", *options, cwd=base)


def test_a_hermes_file_may_say_where_it_is_to_be_executed(desk: Desk) -> None:
    desk.write("job.sh")
    desk.write("sweeps/a.hermes", 'PRE\nworking_directory: ".."\nEXEC\n[[sh, job.sh]]\n')
    desk.hermes("exec", "-f", "sweeps/a.hermes")
    with pytest.raises(hermes.HermesFileError, match="is to be executed in") as raised:
        hermes.compile_file("a.hermes", working_directory=desk.path / "sweeps")
    assert raised.value.place.line == 2
