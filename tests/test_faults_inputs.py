"""Faults that come from what people write and jobs make: odd files, places and clocks, bad hermes files, escapes, hosts that give up."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

import hermes
from hermes import FileCollected, HermesError, Status
from hermes.collection.collector import Collector
from hermes.executors.local import LocalExecution
from hermes.executors.processes import Exit, Launch, start

from .language.helpers import BAD, GOLDEN, mutated, random_bytes, random_text
from .project import LIMIT, Project
from .support import (
    IDENTIFIER,
    LONG,
    PYTHON,
    Desk,
    RecordProperty,
    all_metadata,
    check_always,
    environment,
    times,
    until,
)

Step = Callable[[], Coroutine[Any, Any, object]]

SEEN_BY_BOTH = pytest.mark.parametrize("watched", [True, False], ids=["watched", "final-look"])


def snapshot(top: Path, *left_out: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder with all that a change would change."""
    found: dict[str, tuple[object, ...]] = {}
    pending = [top]
    while pending:
        path = pending.pop()
        if path in left_out:
            continue
        status = path.lstat()
        content: object = None
        if stat.S_ISDIR(status.st_mode):
            content = sorted(path.iterdir())
            pending += path.iterdir()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path)] = (
            status.st_mode,
            status.st_ino,
            status.st_nlink,
            status.st_uid,
            status.st_size,
            status.st_mtime_ns,
            content,
        )
    return found


# 11: what is neither a file nor a folder

ODD_KINDS = """\
import os, socket, stat, sys
own, outside = sys.argv[1:3]
os.symlink(outside, "to_folder_" + own)
os.symlink(outside + "/file", "to_file_" + own)
os.symlink("itself_" + own, "itself_" + own)
os.symlink("two_" + own, "one_" + own)
os.symlink("one_" + own, "two_" + own)
os.link(outside + "/file", "hard_" + own)
for folder in "d_" + own, "plain":
    os.mkdir(folder)
    os.symlink("..", folder + "/up")
    os.symlink(".", folder + "/loop")
    os.symlink(outside, folder + "/out")
    os.mkfifo(folder + "/fifo_" + own)
    os.link(outside + "/file", folder + "/hard_" + own)
os.mkfifo("fifo_" + own)
socket.socket(socket.AF_UNIX).bind("socket_" + own)
try:
    os.mknod("device_" + own, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
except PermissionError:
    pass
"""


@pytest.mark.fault(11)
@pytest.mark.anyio
@SEEN_BY_BOTH
async def test_odd_kinds_are_not_followed_and_not_opened(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    if not watched:
        monkeypatch.setattr(Collector, "watch", lambda self: self._stop.wait())
    opened: list[str] = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(path, int):
                opened.append(os.path.basename(os.fsdecode(path)))
            return function(path, *arguments, **options)

        return call

    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "file").write_text("theirs")
    project.write("job.py", ODD_KINDS)
    before = project.tree(outside)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", noted(os.open))
        patch.setattr(builtins, "open", noted(open))
        (outcome,) = (await project.run(f"[[{PYTHON}, job.py, {outside}]]")).outcomes
    own = outcome.identifier
    left = {
        f"fifo_{own}": "FIFO",
        f"d_{own}/fifo_{own}": "FIFO",
        f"plain/fifo_{own}": "FIFO",
        f"socket_{own}": "socket",
    }
    if (project.path / f"device_{own}").exists():
        left[f"device_{own}"] = "device"
    assert outcome.status is Status.FINISHED
    assert len(outcome.problems) == len(left)
    for path, kind in left.items():
        assert any(
            problem.startswith(f"`{path}` is a") and kind in problem for problem in outcome.problems
        )
    assert not {
        name
        for name in opened
        if name.startswith(
            ("fifo", "socket", "device", "to_", "itself", "one", "two", "up", "loop", "out")
        )
    }
    assert project.tree(project.experiment().directory, own=True) == {
        f"to_folder_{own}": f"-> {outside}", f"to_file_{own}": f"-> {outside}/file", f"itself_{own}": f"-> itself_{own}",
        f"one_{own}": f"-> two_{own}", f"two_{own}": f"-> one_{own}", f"hard_{own}": "theirs",
        f"d_{own}": "/", f"d_{own}/up": "-> ..", f"d_{own}/loop": "-> .", f"d_{own}/out": f"-> {outside}", f"d_{own}/hard_{own}": "theirs",
        "plain": "/", f"plain/hard_{own}": "theirs",
    }  # fmt: skip
    assert project.leftovers(own) == sorted([*left, f"d_{own}"])
    assert project.tree(outside) == before


# 12: whole folders

MOVE_IN = """\
import os, shutil, sys
own, elsewhere, number = sys.argv[1:4]
def build(top):
    os.makedirs(top)
    for file in range(30):
        with open(top + "/f%d" % file, "w") as new:
            new.write(own)
    deep = top
    for level in range(40):
        deep += "/%d" % level if level != 7 else "/x_" + own
        os.mkdir(deep)
        with open(deep + "/inside_" + own, "w") as new:
            new.write(own)
os.makedirs("plain%s/sub" % number)
build(elsewhere + "/" + own)
# One step: the folder is there with all that is in it
os.rename(elsewhere + "/" + own, "d_" + own)
build(elsewhere + "/" + own)
os.rename(elsewhere + "/" + own, "plain%s/sub/e_" % number + own)
shutil.copytree("d_" + own, "copied_" + own)
# Has been seen under one name by now, perhaps
os.rename("copied_" + own, "renamed_" + own)
"""


@pytest.mark.fault(12)
@pytest.mark.anyio
@SEEN_BY_BOTH
async def test_a_folder_that_moves_in_is_collected_whole_and_once(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: RecordProperty,
    watched: bool,
) -> None:
    if not watched:
        monkeypatch.setattr(Collector, "watch", lambda self: self._stop.wait())
    jobs = times(2, 12)
    record_property("tried", jobs)
    (tmp_path / "elsewhere").mkdir()
    project.write("job.py", MOVE_IN)
    told: list[tuple[str, str]] = []
    async with project.open(
        f"PROD([[{PYTHON}, job.py, {tmp_path}/elsewhere {{n}}]], n=RANGE[0, {jobs}])", threads=2
    ) as run:
        async for event in run:
            if isinstance(event, FileCollected):
                told.append((event.identifier, event.path))
    assert run.result.ok, [outcome.problems for outcome in run.result.outcomes]
    assert len(told) == len(set(told))
    for experiment in project.experiments():
        own, number = experiment.identifier, experiment.argv[-1]
        inside = {f"f{file}": own for file in range(30)}
        deep = ""
        for level in range(40):
            deep += f"/{level}" if level != 7 else f"/x_{own}"
            inside |= {deep[1:]: "/", f"{deep[1:]}/inside_{own}": own}
        expected = {f"plain{number}": "/", f"plain{number}/sub": "/"}
        for top in (f"d_{own}", f"plain{number}/sub/e_{own}", f"renamed_{own}"):
            expected |= {top: "/"} | {f"{top}/{path}": content for path, content in inside.items()}
        assert project.tree(experiment.directory, own=True) == expected
        assert sorted(file.path for file in experiment.files) == sorted(
            path for path, content in expected.items() if content != "/"
        )
        assert project.leftovers(own) == []


# 14: out of the tree


@pytest.fixture
def guarded(project: Project, tmp_path: Path) -> Project:
    """A project beside a tree that nothing may change, with a link `way` into that."""
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    for name in ("x.txt", "sub/x.txt", "passwd"):
        (outside / name).write_text(f"outside {name}")
    (outside / "link").symlink_to("/etc")
    (project.path / "way").symlink_to(outside)
    project.write("job.sh", "")
    return project


@pytest.mark.fault(14)
@pytest.mark.anyio
async def test_names_that_lead_out_are_refused_before_anything_starts(
    guarded: Project, record_property: RecordProperty
) -> None:
    names = (
        "../../x",
        "../x",
        "..",
        ".",
        "",
        "/",
        "/x",
        "a/b",
        "a/../../../x",
        "./x",
        "x/",
        "../outside",
        "way/x",
        ".hermes",
        "x\ny",
    )
    scripts = ("../..", "..", ".", "/", ".hermes", "way/..")
    record_property("tried", len(names) + len(scripts))
    path = guarded.hermes_file("[[sh, job.sh]]")
    for script in scripts:
        guarded.hermes_file(f"[[python, -m {script}]]", name=script.replace("/", "_"))
    before = snapshot(guarded.path.parent)
    for name in names:
        with pytest.raises(HermesError):
            await hermes.run_file(path, name, working_directory=guarded.path, root=guarded.path)
    for script in scripts:
        with pytest.raises(HermesError):
            file = guarded.path / f"{script.replace('/', '_')}.hermes"
            await hermes.run_file(file, "test", working_directory=guarded.path, root=guarded.path)
    assert snapshot(guarded.path.parent) == before


@pytest.mark.fault(14)
@pytest.mark.anyio
@pytest.mark.parametrize("flag", ["-ca", "-cb", "-ma"])
async def test_paths_that_lead_out_are_stored_inside(guarded: Project, flag: str) -> None:
    outside = guarded.path.parent / "outside"
    # The job puts links to the outside where the copies would go
    guarded.write(
        "job.sh",
        'cd "$HERMES_EXPERIMENT_DIR"; for n in outside way x.txt passwd project etc sub; do ln -s "$2" $n; done',
    )
    guarded.write("mine/x.txt", "mine")
    guarded.write("mine/sub/x.txt", "mine")
    paths = ["mine/../mine/x.txt", "./way/../project/mine/sub"]
    if flag != "-ma":
        # What is moved leaves its place, so that is another matter
        paths += [
            "../outside/x.txt",
            "way/sub/x.txt",
            "way/../outside/sub",
            "../outside",
            "..",
            f"{outside}/../outside/passwd",
            "/etc/passwd",
        ]
    # Not the file of the working directory: as the system sees it, `..` is where the link leads
    guarded.write("theirs.txt", "mine")
    (guarded.path.parent / "theirs.txt").write_text("theirs")
    paths += ["way/../theirs.txt"] if flag != "-ma" else []
    path = guarded.hermes_file(
        f"[[sh, job.sh, {outside}],[{', '.join(f'{flag} {each}' for each in paths)}]]"
    )
    mine = (guarded.experiments_folder, guarded.path / "mine", guarded.path)
    before = snapshot(guarded.path.parent, *mine)
    result = await hermes.run_file(path, "test", working_directory=guarded.path, root=guarded.path)
    assert result.outcomes[0].status is Status.FINISHED
    assert snapshot(guarded.path.parent, *mine) == before
    stored = guarded.experiment().directory
    for file in guarded.experiment().files:
        assert (stored / file.path).parent.resolve().is_relative_to(stored)
    if flag == "-ma":
        assert not list((guarded.path / "mine").rglob("x.txt"))
    else:
        assert (stored / "theirs.txt").read_text() == "theirs"
        assert {file.path for file in guarded.experiment().files} >= {"mine/x.txt", "mine/sub"}


@pytest.mark.fault(14)
@pytest.mark.anyio
@pytest.mark.parametrize("place", ["experiments", "experiments/job.sh", "experiments/job.sh/test"])
async def test_experiments_behind_a_link_change_nothing_else_there(
    guarded: Project, place: str
) -> None:
    outside = guarded.path.parent / "outside"
    (outside / "store").mkdir()
    (guarded.path / place).parent.mkdir(parents=True, exist_ok=True)
    (guarded.path / place).symlink_to(outside / "store")
    guarded.write("job.sh", ': > "a_$1"; mkdir "d_$1"; : > "d_$1/x"')
    before = snapshot(outside, outside / "store")
    assert (await guarded.run("[[sh, job.sh],[-ca ../outside/x.txt, -ca way/sub/x.txt]]")).ok
    assert snapshot(outside, outside / "store") == before
    own = guarded.experiment().identifier
    assert guarded.tree(guarded.experiment().directory, own=True).keys() == {
        f"a_{own}", f"d_{own}", f"d_{own}/x", "outside", "outside/x.txt", "way", "way/sub", "way/sub/x.txt"
    }  # fmt: skip
    # Experiments are named by identifiers too, and are not collected into one another
    assert (await guarded.run("[[sh, job.sh]]")).ok
    assert len(guarded.experiments()) == 2


@pytest.mark.fault(14)
@pytest.mark.anyio
async def test_a_folder_of_the_experiment_that_becomes_a_link_is_not_followed(
    guarded: Project,
) -> None:
    outside = guarded.path.parent / "outside"
    before = snapshot(outside)
    async with guarded.puppet() as job:
        await job.do("os.mkdir('plain'); open('plain/a_' + identifier, 'w').write('a')")
        await guarded.until(job.named("plain/a_@").exists)
        await job.do(
            f"os.rename(folder + '/plain', folder + '/kept'); os.symlink({str(outside)!r}, folder + '/plain')"
        )
        await job.do(
            "open('plain/b_' + identifier, 'w').write('b'); open('sign_' + identifier, 'w')"
        )
        await guarded.until(job.named("sign_@").exists)
    own = job.identifier
    assert snapshot(outside) == before
    for name in "ab":
        assert (
            f"`plain/{name}_{own}` could not be collected: its place in the experiment directory is taken"
            in job.outcome.problems
        )
        assert job.left(f"plain/{name}_@").read_text() == name
    assert job.stored == {
        "kept": "/",
        f"kept/a_{own}": "a",
        "plain": f"-> {outside}",
        f"sign_{own}": "",
    }


# 16: clocks


def _is_complete(record: Path) -> bool:
    return record.read_text().count("\n") == 2


@pytest.mark.fault(16)
def test_a_clock_that_jumps_back_while_nobody_watches(
    desk: Desk, record_property: RecordProperty
) -> None:
    desk.write(
        "job.sh", ': > "ready_$2"; while [ ! -e "go_$2" ]; do sleep 0.01; done; : > "done_$2"'
    )
    tried = times(1, 5)
    record_property("tried", tried)
    for number in range(tried):
        desk.hermes_file(f"[[sh, job.sh, {number}]]", f"[[sh, job.sh, after_{number}]]")
        with desk.started("exec", "-f", "x.hermes", "-n", f"run{number}") as runner:
            # Recorded, and when it started too
            until(
                lambda: [
                    each
                    for each in all_metadata(desk)
                    if each["status"] == Status.RUNNING and each.get("start")
                ]
            )
            until((desk.path / f"ready_{number}").exists)
            runner.kill()
            runner.wait()
        for name in (f"go_{number}", f"go_after_{number}"):
            desk.write(name)
        until((desk.path / f"done_{number}").exists)
        (interrupted,) = [each for each in all_metadata(desk) if each["status"] == Status.RUNNING]
        record = (
            desk.experiments_folder / ".hermes" / interrupted["run_id"] / interrupted["identifier"]
        )
        # The status is written in the end, after the process id
        until(partial(_is_complete, record))
        # As if the job had ended an hour before its start, and the clock were an hour behind the last identifier
        os.utime(record, (record.stat().st_mtime - 3600,) * 2)
        clock = desk.experiments_folder / ".hermes" / "clock"
        year, month, day, time = clock.read_text()[:22].split("_")
        ahead = f"{year}_{month}_{day}_{min(int(time[:2]) + 1, 23):02}{time[2:]}"
        clock.write_text(ahead.ljust(23, "0"))
        done = desk.hermes("resume")
        check_always(desk, done.stdout, done.stderr)
    metadata = all_metadata(desk)
    assert len({each["identifier"] for each in metadata}) == len(metadata) == 2 * tried
    assert all(
        IDENTIFIER.fullmatch(each["identifier"]) and each["status"] == Status.FINISHED
        for each in metadata
    )
    assert all(each["duration"] >= 0 for each in metadata)


# 17: at the same instant

TOGETHER = """\
import sys
from hermes.cli import display, run
from hermes.cli.main import main
print(flush=True)
sys.stdin.read()
main()
"""
"""`hermes`, ready to go as soon as its input is at its end."""


@pytest.mark.fault(17)
def test_eight_commands_at_the_same_instant(desk: Desk, record_property: RecordProperty) -> None:
    processes, jobs, rounds = 8, 3, times(1, 20)
    record_property("tried", rounds * processes)
    desk.write("together.py", TOGETHER)
    desk.write(
        "job.sh",
        'printf %s "$1" > "made_$1"; mkdir "dir_$1"; printf %s "$1" > "dir_$1/inside"; printf "%s %s" "$1" "$2"',
    )
    desk.hermes_file(*["[[sh, job.sh, '{identifier}' x]]"] * jobs, settings={"threads": 2})
    seen: set[str] = set()
    for number in range(rounds):
        start, release = os.pipe()
        runners = [
            subprocess.Popen(
                [sys.executable, "together.py", "exec", "-f", "x.hermes", "-n", f"{number}-{each}"],
                cwd=desk.path, env=environment(), stdin=start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for each in range(processes)
        ]  # fmt: skip
        os.close(start)
        for runner in runners:
            assert runner.stdout is not None
            assert runner.stdout.readline() == "\n"
        # All of them read from the one pipe
        os.close(release)
        for each, runner in enumerate(runners):
            out, err = runner.communicate(timeout=LIMIT)
            assert (runner.returncode, out) == (0, ""), err
            assert f"{number}-{each}: {jobs} jobs in" in err
            mine = [
                experiment
                for experiment in desk.experiments()
                if experiment.name == f"{number}-{each}"
            ]
            assert {experiment.identifier for experiment in mine} == set(IDENTIFIER.findall(err))
            assert len(mine) == jobs
            for experiment in mine:
                own = experiment.identifier
                assert own not in seen
                seen.add(own)
                assert desk.tree(experiment.directory, own=True) == {
                    f"made_{own}": own,
                    f"dir_{own}": "/",
                    f"dir_{own}/inside": own,
                }
                assert sorted(file.path for file in experiment.files) == [
                    f"dir_{own}/inside",
                    f"made_{own}",
                ]
                assert experiment.problems == ()
        assert {path.name for path in desk.path.iterdir()} == {
            "experiments",
            "job.sh",
            "together.py",
            "x.hermes",
        }
        check_always(desk)
        shutil.rmtree(desk.experiments_folder / "job.sh")
    assert len(seen) == rounds * processes * jobs


# 19: what cannot be executed


@pytest.mark.fault(19)
@pytest.mark.anyio
async def test_programs_and_scripts_that_cannot_be_executed(
    project: Project, tmp_path: Path, record_property: RecordProperty
) -> None:
    project.program("good.sh", "#!/bin/sh\n: > executed\n")
    project.write("plain", "#!/bin/sh\n")
    (project.path / "folder").mkdir()
    for name in ("dangling", "dangling.py"):
        (project.path / name).symlink_to("nowhere")
    before_the_start = {
        "no_such_program, x": "was not found on PATH",
        "plain": "was not found on PATH; for the file here write `./plain`",
        "./missing": "does not exist",
        "./plain": "is not executable",
        "./folder": "is a directory",
        "./dangling": "does not exist",
        "python, missing.py": "does not exist",
        "python, dangling.py": "does not exist",
        "python, folder": "is a directory, expected a file",
    }
    project.program("no_interpreter", "#!/no/such/interpreter\n")
    project.program("plain_interpreter", f"#!{project.path}/plain\n")
    project.program("folder_interpreter", f"#!{project.path}/folder\n")
    project.program("binary", b"\x7fELF\x02\x01\x01" + bytes(100))
    for name in ("vanishes", "closes", "becomes_folder"):
        project.program(name, "#!/bin/sh\n")
    project.write("before.sh", "rm vanishes becomes_folder; chmod 644 closes; mkdir becomes_folder")
    in_its_time = {
        "no_interpreter": 127, "plain_interpreter": 126, "folder_interpreter": 126, "binary": 126, "vanishes": 127, "closes": 126,
        "becomes_folder": 126,
    }  # fmt: skip
    record_property("tried", len(before_the_start) + len(in_its_time))
    for command, why in before_the_start.items():
        path = project.hermes_file("[[./good.sh]]", f"[[{command}]]")
        before = snapshot(tmp_path)
        with pytest.raises(HermesError) as caught:
            await hermes.run_file(path, "test", working_directory=project.path, root=project.path)
        assert f"`{command.removeprefix('python, ').removesuffix(', x')}` {why}" in str(
            caught.value
        )
        assert "x.hermes:6:" in str(caught.value)
        assert snapshot(tmp_path) == before
    for supervise in (True, False):
        for name in ("vanishes", "closes", "becomes_folder"):
            subprocess.run(["rm", "-rf", str(project.path / name)], check=True)
            project.program(name, "#!/bin/sh\n")
        entries = [line for name in in_its_time for line in (f"[[./{name}]]", "[[./good.sh]]")]
        result = await project.run(
            "[[sh, before.sh]]", *entries, settings={"supervise": supervise}, name=str(supervise)
        )
        codes = {outcome.script: outcome.exit_code for outcome in result.outcomes}
        assert codes == {"before.sh": 0, "good.sh": 0} | in_its_time
        assert [outcome.script for outcome in result.failures] == list(in_its_time)
        assert all(outcome.status is Status.FAILED for outcome in result.failures)


# 20: bad hermes files


def shown_by_exec(desk: Desk, path: str) -> str:
    """What `hermes exec` says about a bad file. Nothing but that comes of it, and it takes less than a second of work."""
    before = snapshot(desk.path)
    work = _work_of_children()
    done = desk.hermes("exec", "-f", path, "-n", "x", code=2)
    assert not LONG or _work_of_children() - work < 1
    assert snapshot(desk.path) == before
    assert done.stdout == ""
    return done.stderr


def _work_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.fault(20)
def test_bad_files_end_hermes_with_code_2(desk: Desk, record_property: RecordProperty) -> None:
    files = BAD[:: times(30, 1)]
    record_property("tried", len(files))
    for path in files:
        shutil.copy(path, desk.path)
        assert shown_by_exec(desk, path.name) == path.with_suffix(".message").read_text(
            encoding="utf-8"
        )


@pytest.mark.fault(20)
def test_files_made_at_random_end_hermes_with_code_2(
    desk: Desk, record_property: RecordProperty
) -> None:
    chance = random.Random(1000)
    corpus = [file.read_bytes() for file in sorted(GOLDEN.glob("good/*.hermes"))]
    tried = times(2, 100)
    record_property("tried", tried)
    while tried:
        data = chance.choice(
            [mutated(chance.choice(corpus), chance), random_text(chance), random_bytes(chance)]
        )
        desk.write("fuzz.hermes", data)
        said = ""
        try:
            hermes.compile_file("fuzz.hermes", working_directory=desk.path)
        except HermesError as exc:
            said = f"{exc}\n"
        if said:
            assert re.match(r"error: .*\n +--> fuzz.hermes:\d+:\d+\n", said)
            assert shown_by_exec(desk, "fuzz.hermes") == said
            tried -= 1


# 22: escapes and markup

PIECES = (
    "\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x1bP1$r\x1b\\", "\x9b31m", "\x9d0;x\x9c", "\x1b[?1049h", "\x1b[6n", "\x1bc",
    "\b\b\b", "\x07", "\x7f", "\x0e", "\u202e", "\u2066", "\u200b", "\u2028", "\ufeff", "\x85", "\xad", "\xa0", "[bold]", "[/bold]",
    "[/]", "[link=http://x]", "\\[red]", "[red on blue]", "[@click=app.bell]", ":smile:", "<b>", "</td>", "<script>alert(1)</script>",
    "&lt;", "<img src=x onerror=y>", "'", '"', "$x", "`x`", "%s", "#", "word", "  ",
)  # fmt: skip
"""What moves cursors, changes colours or means something to rich or to a browser, if anybody lets it."""

SHOUT = """\
import os, sys, time
own, said = sys.argv[1:3]
name = said.replace("/", "_") + own
os.mkfifo(name)
with open("file_" + name, "w"):
    pass
for stream in (1, 2):
    os.write(stream, os.fsencode(said) + b"\\n")
while not os.path.exists("go"):
    time.sleep(0.01)
sys.exit(1)
"""
"""A job that says its argument, names files by it, and fails."""

SCRIPT = "shout [red]<b>\u202e.py"

ALLOWED = re.compile(r"\x1b\[[\d;]*m|\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[hl]|[\r\n]")
"""What the drawing itself sends to a terminal."""


def shouts(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return [
        f"<{number}>{''.join(chance.choices(PIECES, k=chance.randint(1, 4)))}."
        for number in range(count)
    ]


def shouting(desk: Desk, said: list[str]) -> None:
    """A hermes file with a job for each of the texts, all at the same time, their output shown."""
    (desk.path / "go").unlink(missing_ok=True)
    desk.write(SCRIPT, SHOUT)
    values = ", ".join(hermes.quote(each) for each in said)
    desk.hermes_file(
        f"PROD([[{PYTHON}, {hermes.quote(SCRIPT)}, {{said}}],[-l false]], said=[{values}])",
        settings={"threads": len(said)},
    )


def fifo_of(said: str) -> str:
    """What the name of a job's FIFO starts with, as it is shown."""
    return f"`{hermes.escape(said.replace('/', '_'))}"


@pytest.mark.fault(22)
def test_escapes_and_markup_are_text_on_a_terminal(
    desk: Desk, record_property: RecordProperty
) -> None:
    rounds, count = times(1, 10), times(8, 20)
    record_property("tried", rounds * count)
    for number in range(rounds):
        said = shouts(number, count)
        shouting(desk, said)
        with desk.terminal(
            "exec", "-f", "x.hermes", "-n", "[bold]<i>", rows=4 * count + 10, columns=500
        ) as terminal:
            for each in said:
                # Its row in the drawing, by its argument and what it said last, and what it said above
                shown = re.escape(hermes.escape(each))
                terminal.shows(rf"{shown} +\d+\.\d s +{shown}$")
                terminal.shows(rf"#\d+ \| {shown}$")
            desk.write("go")
            assert terminal.end() == 1
            shown = terminal.screen.text
            for each in said:
                assert f"problem: {fifo_of(each)}" in shown
                assert f"stderr | {hermes.escape(each)}\n" in shown
                assert re.search(
                    rf"^ +command: .* {re.escape(hermes.escape(shlex.quote(each)))}$",
                    shown,
                    re.MULTILINE,
                )
            assert ALLOWED.sub("", terminal.raw.decode()).isprintable()
            assert f"[bold]<i>: {count} jobs in" in shown


@pytest.mark.fault(22)
@pytest.mark.parametrize("kind", ["text", "json"])
def test_escapes_and_markup_are_text_in_a_pipe(
    desk: Desk, record_property: RecordProperty, kind: str
) -> None:
    rounds, count = times(1, 10), times(8, 20)
    record_property("tried", rounds * count)
    for number in range(rounds):
        said = shouts(100 + number, count)
        shouting(desk, said)
        desk.write("go")
        options = ("--json",) if kind == "json" else ()
        done = desk.hermes(
            "exec",
            "-f",
            "x.hermes",
            *options,
            code=1,
            env={"PYTHONIOENCODING": "utf-8"},
            encoding="utf-8",
        )
        assert (done.stdout + done.stderr).replace("\n", "").isprintable()
        if kind == "text":
            assert {line.partition(" | ")[2] for line in done.stdout.splitlines()} == {
                hermes.escape(each) for each in said
            }
            for each in said:
                assert f"problem: {fifo_of(each)}" in done.stderr
                assert f"stderr | {hermes.escape(each)}\n" in done.stderr
                assert re.search(
                    rf"^started .*{re.escape(hermes.escape(shlex.quote(each)))}$",
                    done.stderr,
                    re.MULTILINE,
                )
                assert re.search(
                    rf"^    command: .* {re.escape(hermes.escape(shlex.quote(each)))}$",
                    done.stderr,
                    re.MULTILINE,
                )
            continue
        assert done.stdout.isascii()
        events = [json.loads(line) for line in done.stdout.splitlines()]
        started = {
            event["identifier"]: event["arguments"]
            for event in events
            if event["event"] == "job_started"
        }
        assert sorted(started.values()) == sorted([each] for each in said)
        printed = dict.fromkeys(started, "")
        for event in events:
            if event["event"] == "log_chunk" and event["stream"] == "stdout":
                printed[event["identifier"]] += event["data"]
        assert printed == {own: f"{words[0]}\n" for own, words in started.items()}
        collected = {
            event["identifier"]: event["path"]
            for event in events
            if event["event"] == "file_collected"
        }
        assert collected == {
            own: f"file_{words[0].replace('/', '_')}{own}" for own, words in started.items()
        }


@pytest.mark.fault(22)
def test_escapes_and_markup_are_text_in_a_list_of_commands(
    desk: Desk, record_property: RecordProperty
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("the commands are for bash")
    said = shouts(1, times(50, 200))
    record_property("tried", len(said))
    shouting(desk, said)
    env = {"LC_ALL": "C.UTF-8"}
    done = desk.hermes("compile", "x.hermes", env=env, encoding="utf-8")
    lines = done.stdout.splitlines()
    assert len(lines) == done.stdout.count("\n") == len(said)
    assert all(line.isprintable() for line in lines)
    # What is printed means to a shell what the jobs get
    script = "".join(f"set -- {line}\nprintf '%s\\0' \"${{@: -1}}\"\n" for line in lines)
    words = subprocess.run(
        [bash, "-c", script], env=environment(env), capture_output=True, check=True
    ).stdout.split(b"\0")
    assert [word.decode() for word in words[:-1]] == said


# 23: hosts that give up


async def _cancelled_by_a_scope(work: Step, moment: Step) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await moment()
        tasks.cancel_scope.cancel()


async def _cancelled_natively(work: Step, moment: Step) -> None:
    if anyio.get_cancelled_exc_class() is trio.Cancelled:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await moment()
            nursery.cancel_scope.cancel()
        return
    task = asyncio.ensure_future(work())
    await moment()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _failed_beside_it(work: Step, moment: Step) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await moment()
            raise ZeroDivisionError
    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]


HOSTS = (_cancelled_by_a_scope, _cancelled_natively, _failed_beside_it, None)
"""How a host gives up; None for an exception in the body of `open_run`."""

SOME_END = """\
printf %s "$1" > "made_$1"
# To be seen by the test, and by nobody else
printf x >> "$3"
[ "$2" -lt 3 ] || exec sleep 1000
"""
"""The first three jobs end, the others do not."""


def children() -> set[int]:
    """Processes that this one has started, those too that have ended and were not fetched."""
    listed = subprocess.Popen(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True)
    pairs = [line.split() for line in listed.communicate()[0].splitlines()]
    return {int(pid) for pid, parent in pairs if int(parent) == os.getpid()} - {listed.pid}


@pytest.mark.fault(23)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_whenever_the_host_gives_up_nothing_is_left(
    desk: Desk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: RecordProperty,
    backend: str,
) -> None:
    # trio keeps idle threads for another ten seconds
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.05)
    chance = random.Random(3)
    tried = times(4, 60)
    record_property("tried", tried)
    desk.write("job.sh", SOME_END)
    options: dict[str, Any] = {"working_directory": desk.path, "root": desk.path, "grace": LIMIT}
    threads, processes = set(threading.enumerate()), children()
    for number in range(tried):
        seen = tmp_path / f"seen{number}"
        path = desk.hermes_file(
            f"PROD([[sh, job.sh, {{n}} {seen}]], n=RANGE[0, 8])", settings={"threads": 3}
        )
        # Before the first, between any two, or when no more come
        jobs = chance.randint(0, 6)

        async def moment(seen: Path = seen, jobs: int = jobs) -> None:
            await desk.until(lambda: jobs == 0 or (seen.exists() and seen.stat().st_size >= jobs))

        async def host(number: int = number, path: Path = path, moment: Step = moment) -> None:
            gives_up = HOSTS[number % len(HOSTS)]
            with anyio.fail_after(LIMIT):
                if gives_up is not None:
                    await gives_up(partial(hermes.run_file, path, "test", **options), moment)
                else:
                    with pytest.raises(ZeroDivisionError):
                        async with hermes.open_run(path, "test", **options) as run:
                            await moment()
                            raise ZeroDivisionError
                    execution = run._execution
                    assert isinstance(execution, LocalExecution)
                    assert execution._file_work.borrowed_tokens == 0
                    assert len(set(execution._slots)) == len(execution._slots) > 0
                    assert run.result.cancelled
            assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0

        anyio.run(host, backend=backend)
        assert children() == processes
        until(lambda: set(threading.enumerate()) <= threads)
        for experiment in desk.experiments():
            own = experiment.identifier
            # A job may come to its end by itself just when it is told to
            assert experiment.status is Status.CANCELLED or (
                experiment.status,
                experiment.exit_code,
            ) == (Status.FINISHED, 0)
            assert desk.leftovers(own) == []
            # One that was cancelled before it came to that made nothing
            assert desk.tree(experiment.directory, own=True) in (
                {f"made_{own}": own},
                {f"made_{own}": ""},
                {},
            )
        made = list(desk.experiments_folder.glob("job.sh/test/*/made_*"))
        assert len(made) >= jobs
        check_always(desk)
        shutil.rmtree(desk.experiments_folder, ignore_errors=True)


@pytest.mark.fault(23)
@pytest.mark.anyio
async def test_a_job_that_is_ended_just_when_it_starts_is_told_so(
    tmp_path: Path, record_property: RecordProperty
) -> None:
    # As long as its supervisor has not come to executing it, it is the supervisor that gets the signal
    chance = random.Random(4)
    tried = times(30, 500)
    record_property("tried", tried)
    with open(os.devnull, "w") as null:
        for number in range(tried):
            launch = Launch(
                ["/bin/sleep", "1000"],
                str(tmp_path),
                os.environb,
                null.fileno(),
                null.fileno(),
                str(tmp_path / str(number)),
            )
            process = start(launch)
            await anyio.sleep(chance.random() * 0.003)
            assert await process.end(LIMIT) == Exit(signal=signal.SIGTERM)
