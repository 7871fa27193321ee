"""A job's directory belongs to the job: it puts anything in the place of anything, and its own
files stand beside those that Hermes brings.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hermes import Status

from ..support import (
    LIMIT,
    LONG,
    PYTHON,
    Desk,
    MakeDesk,
    Project,
    RecordProperty,
    times,
    until,
)
from ..support.snapshots import snapshot

# 25: something else in the place of files and folders

PUT = """\
import os, shutil, socket, sys
def put(what, path, precious, kept):
    if os.path.lexists(path) and what != "nothing":
        os.rename(path, kept)
    if what == "fifo":
        os.mkfifo(path)
    elif what == "socket":
        socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))
    elif what == "file":
        open(path, "w").write("the job's")
    elif what == "folder":
        os.mkdir(path)
        open(path + "/inside", "w").write("the job's")
    elif what == "link to a file":
        os.symlink(precious + "/file", path)
    elif what == "link to a folder":
        os.symlink(precious, path)
    elif what == "link to nowhere":
        os.symlink(precious + "/new", path)
    elif what == "link to itself":
        os.symlink(os.path.basename(path), path)
    elif what == "link to where it is":
        os.symlink(kept, path)
    elif what == "hard link":
        os.link(precious + "/file", path)
    elif what == "closed":
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0))
    elif what == "copy":
        try:
            shutil.copytree(kept, path, symlinks=True)
        except shutil.Error:
            pass  # A temporary file of Hermes was replaced between its listing and its copy
    elif what == "nothing" and os.path.isdir(path):
        # Hermes may write there just now
        while os.path.lexists(path):
            shutil.rmtree(path, ignore_errors=True)
    elif what == "nothing" and os.path.lexists(path):
        os.unlink(path)
"""

WHATS = (
    "fifo", "socket", "file", "folder", "link to a file", "link to a folder", "link to nowhere",
    "link to itself", "hard link", "closed", "nothing",
)  # fmt: skip

NAMES = ("hermes.json", "stdout.log", "stderr.log", "re_execution.hermes", "uncommitted.patch")


@pytest.fixture
def precious(project: Project) -> Path:
    """What no job of Hermes may change, beside the working directory."""
    folder = project.path.parent / "precious"
    (folder / "folder").mkdir(parents=True)
    (folder / "file").write_text("precious")
    (folder / "hermes.json").write_text("{}")
    return folder


@pytest.mark.fault(25)
@pytest.mark.anyio
async def test_a_job_puts_something_else_in_the_place_of_a_file_of_hermes(
    project: Project, precious: Path, record_property: RecordProperty
) -> None:
    """While a listener follows its logs, too."""
    every = list(itertools.product(WHATS, NAMES))
    chosen = every if LONG else random.Random(25).sample(every, 12)
    record_property("tried", len(chosen))
    project.write("put.py", PUT)
    project.write(
        "job.py",
        """\
import os, sys, time
from put import put
own, precious, what, name = sys.argv[1:]
directory = os.environ["HERMES_EXPERIMENT_DIR"]
print("before", flush=True)
time.sleep(0.15)
put(what, directory + "/" + name, precious, directory + "/kept_aside")
open("made_" + own, "w").write("made")
print("after", flush=True)
""",
    )
    before = snapshot(precious)
    entries = [f"[[{PYTHON}, job.py, {precious} '{what}' {name}]]" for what, name in chosen]
    async with project.open(*entries, threads=4, grace=1.0) as run:
        async for _ in run:
            pass
    unlinked = {each: value[:2] + value[3:] for each, value in before.items()}
    after = {each: value[:2] + value[3:] for each, value in snapshot(precious).items()}
    assert after == unlinked
    assert [outcome.status for outcome in run.result.outcomes] == [Status.FINISHED] * len(chosen)
    for experiment in project.experiments():
        assert experiment.status is Status.FINISHED
        what, name = experiment.arguments[1:3]
        own = experiment.identifier
        stored = project.tree(experiment.directory)
        assert stored[f"made_{own}"] == "made"
        place = f"{name}.1" if name == "hermes.json" else name
        if what == "file":
            assert stored[place] == "the job's"
        if what == "folder":
            assert stored[f"{place}/inside"] == "the job's", (what, name, stored)
        listed = {file.path for file in experiment.files}
        walked = {path for path, content in stored.items() if content != "/"}
        regular = {path for path in NAMES if (experiment.directory / path).is_file()
                   and not (experiment.directory / path).is_symlink()}  # fmt: skip
        assert listed == walked - regular, (what, name)


@pytest.mark.fault(25)
def test_a_run_whose_job_has_put_something_in_their_place_is_resumed(
    make_desk: MakeDesk, record_property: RecordProperty
) -> None:
    every = list(itertools.product(WHATS, ("stdout.log", "stderr.log", "re_execution.hermes")))
    chosen = every if LONG else random.Random(26).sample(every, 4)
    record_property("tried", len(chosen))
    for number, (what, name) in enumerate(chosen):
        desk = make_desk(f"desk{number}")
        precious = desk.path.parent / f"precious{number}"
        precious.mkdir()
        (precious / "file").write_text("precious")
        desk.write("put.py", PUT)
        desk.write(
            "job.py",
            "import os, sys, time\nfrom put import put\n"
            'directory = os.environ["HERMES_EXPERIMENT_DIR"]\n'
            f"put({what!r}, directory + '/' + {name!r}, {str(precious)!r}, directory + '/aside')\n"
            'open("ready", "w")\n'
            'while not os.path.exists("go"): time.sleep(0.01)\n'
            'open("made_" + sys.argv[1], "w").write("made")\n',
        )
        desk.write("s.hermes", f"EXEC\n[[{PYTHON}, job.py]]\n")
        with desk.started("exec", "-f", "s.hermes") as runner:
            until((desk.path / "ready").exists)
            runner.kill()
            runner.wait()
        desk.write("go")
        desk.hermes("resume")
        experiment = desk.experiment()
        assert experiment.status is Status.FINISHED
        assert (experiment.directory / f"made_{experiment.identifier}").read_text() == "made"
        assert desk.tree(precious) == {"file": "precious"}, (what, name)


FOLDERS = {"directory": 0, "name": 1, "script": 2, "experiments": 3}

FOLDER_WHATS = (
    "fifo", "file", "folder", "link to a file", "link to a folder", "link to nowhere",
    "link to itself", "link to where it is", "copy", "nothing",
)  # fmt: skip


@pytest.mark.fault(25)
@pytest.mark.anyio
async def test_a_job_puts_something_else_in_the_place_of_its_directory_or_one_above(
    make_project: Callable[[str], Project], record_property: RecordProperty
) -> None:
    every = list(itertools.product(FOLDER_WHATS, FOLDERS))
    chosen = every if LONG else random.Random(27).sample(every, 12)
    record_property("tried", len(chosen))
    for number, (what, which) in enumerate(chosen):
        project = make_project(f"project{number}")
        precious = project.path.parent / f"precious{number}"
        precious.mkdir()
        (precious / "file").write_text("precious")
        (precious / "hermes.json").write_text("{}")
        before = snapshot(precious)
        project.write("put.py", PUT)
        project.write(
            "job.py",
            "import os, sys, time\nfrom put import put\n"
            "own = sys.argv[1]\n"
            'place = os.environ["HERMES_EXPERIMENT_DIR"]\n'
            'open("first_" + own, "w").write("first")\n'
            'if not os.path.exists("done"):\n'
            '    open("done", "w")\n'
            f"    for _ in range({FOLDERS[which]}): place = os.path.dirname(place)\n"
            f"    put({what!r}, place, {str(precious)!r}, {str(project.path.parent)!r} + "
            f'"/kept{number}")\n'
            "    time.sleep(0.1)\n"
            '    open("second_" + own, "w").write("second")\n',
        )
        result = await project.run(f"[[{PYTHON}, job.py]]", f"[[{PYTHON}, job.py, again]]")
        assert snapshot(precious) == before, (what, which)
        assert len(result.outcomes) == 2
        first = next(each for each in result.outcomes if each.argv[-1] != "again")
        assert first.exit_code == 0, (what, which, first)
        # Its files are where it has made them, or where its directory is
        places = [
            project.path,
            *project.experiments_folder.glob("*/*/*"),
            *Path(f"{project.path.parent}/kept{number}").glob("**/"),
        ]
        own = first.identifier
        assert any((place / f"second_{own}").exists() for place in places), (what, which)
        second = next(each for each in result.outcomes if each is not first)
        if second.identifier:
            assert second.status is Status.FINISHED or second.problems


# 26: own files beside others


OWN_FILES = {
    "model_@": "collected",
    "model_@.1": "beside",
    "sub/x_@": "in a folder",
    "d_@/inside": "in a folder that is collected",
    "before.txt": "copied before",
    "after.txt": "copied after",
    "moved.txt": "moved",
    "folder/x": "in a folder that is copied",
    "x.hermes-part": "not ours",
    "sub/y.hermes-part": "not ours either",
    "0123456789ab.hermes-part": "nor this",
    "hermes.json.tmp": "temporary",
    "hermes.json": "metadata",
    "own/deep/er/file": "deep",
    f"{'l' * 250}.long": "long",
    "link_@": "",
}
"""What the job writes into its directory, `@` standing for the identifier."""

OWN_JOB = """\
import os, sys, time
own, directory = sys.argv[1], os.environ["HERMES_EXPERIMENT_DIR"]
def write(top, path, text):
    path = os.path.join(top, path.replace("@", own))
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    if os.path.exists(path):
        os.unlink(path)
    if path.endswith("link_" + own):
        os.symlink("nowhere" + str(top == ""), path)
    else:
        open(path, "w").write(text)
for path in FILES:
    write(directory, path, "own " + path)
for path in FILES:
    write("", path, "other " + path)
open("ready_" + os.environ["HERMES_SLOT"], "w")
while os.path.exists("hold"): time.sleep(0.01)
"""

OPTIONS = (
    "[-cb before.txt, -ca after.txt, -ma moved.txt, -ca folder, -ca hermes.json.tmp, "
    "-ca hermes.json]"
)


def check_own_files(project: Project, files: Sequence[str] = tuple(OWN_FILES)) -> None:
    experiment = project.experiment()
    own = experiment.identifier
    stored = project.tree(experiment.directory)
    contents = list(stored.values())
    left = project.tree(project.path)
    for path in files:
        what = OWN_FILES[path]
        if path == "link_@":
            assert {"-> nowhereTrue", "-> nowhereFalse"} <= set(contents), what
            continue
        if path == "hermes.json":
            assert f"own {path}" in contents
            continue
        assert stored[path.replace("@", own)] == f"own {path}", what
        if "_@" in path:
            assert f"other {path}" in contents, what
            assert path.replace("@", own) not in left
    for path in ("after.txt", "moved.txt", "folder/x", "hermes.json.tmp", "hermes.json"):
        assert f"other {path}" in contents
    origins = {file.path: file.origin for file in experiment.files}
    for path in files:
        if path not in ("folder/x", "before.txt", "hermes.json"):
            assert origins[path.replace("@", own)] == "written", path
    walked = {path for path, content in stored.items() if content != "/"} - Project.OWN
    assert {path for path in walked if not path.startswith("folder")} == {
        path for path in origins if not path.startswith("folder")
    }
    assert len(experiment.files) == len(origins)


@pytest.mark.fault(26)
@pytest.mark.anyio
@pytest.mark.parametrize("hold", [0.0, 0.3])
async def test_own_files_and_others_of_the_same_names_survive(
    project: Project, hold: float
) -> None:
    project.write("before.txt", "before")
    text = OWN_JOB.replace("FILES", repr(list(OWN_FILES))) + f"\ntime.sleep({hold})"
    project.write("job.py", text)
    result = await project.run(f"[[{PYTHON}, job.py],{OPTIONS}]")
    assert result.outcomes[0].status is Status.FINISHED
    check_own_files(project)


@pytest.mark.fault(26)
def test_own_files_survive_a_killed_runner_too(
    make_desk: MakeDesk, record_property: RecordProperty
) -> None:
    moments = random.Random(26)
    # An experiment whose metadata are gone is known by its run, which is another matter
    files = [path for path in OWN_FILES if path != "hermes.json"]
    count = times(2, 20)
    record_property("tried", count)
    for number in range(count):
        desk = make_desk(f"desk{number}")
        desk.write("before.txt", "before")
        desk.write("hold")
        desk.write("hermes.json", "other hermes.json")
        desk.write("job.py", OWN_JOB.replace("FILES", repr(files)))
        desk.write("s.hermes", f"EXEC\n[[{PYTHON}, job.py],{OPTIONS}]\n")
        with desk.started("exec", "-f", "s.hermes") as runner:
            until((desk.path / "ready_0").exists)
            # Collected, or not yet
            try:
                runner.wait(timeout=0.4 * moments.random())
            except subprocess.TimeoutExpired:
                runner.kill()
            runner.wait()
        (desk.path / "hold").unlink()
        desk.hermes("resume", timeout=LIMIT)
        check_own_files(desk, files)


def is_recorded(desk: Desk, begin: str) -> bool:
    records = desk.experiments_folder.glob(".hermes/**/*.links")
    return any(f'"{begin}'.encode() in record.read_bytes() for record in records)


@pytest.mark.fault(26)
def test_what_is_replaced_while_no_runner_is_there_is_not_an_own_file(desk: Desk) -> None:
    desk.write(
        "job.py",
        """\
import os, sys, time
own = sys.argv[1]
open("a_" + own, "w").write("old")
open("kept_" + own, "w").write("kept")
os.symlink("old", "l_" + own)
while not os.path.exists("go"): time.sleep(0.01)
open("new", "w").write("new")
os.replace("new", "a_" + own)
os.unlink("l_" + own)
os.symlink("new", "l_" + own)
""",
    )
    desk.write("s.hermes", f"EXEC\n[[{PYTHON}, job.py]]\n")
    with desk.started("exec", "-f", "s.hermes") as runner:
        # Linked, and written down: a runner that is killed between the two keeps both files
        until(lambda: is_recorded(desk, "l_") and is_recorded(desk, "a_"))
        runner.kill()
        runner.wait()
    desk.write("go")
    desk.hermes("resume")
    experiment = desk.experiment()
    own = experiment.identifier
    assert desk.tree(experiment.directory, own=True) == {
        f"a_{own}": "new", f"kept_{own}": "kept", f"l_{own}": "-> new",
    }  # fmt: skip
    assert {file.origin for file in experiment.files} == {"collected"}
    assert not list((desk.experiments_folder / ".hermes").glob("*/*.links"))


@pytest.mark.fault(35)
@pytest.mark.anyio
async def test_links_of_the_job_in_its_own_directory_lead_to_what_is_collected(
    project: Project,
) -> None:
    project.write(
        "job.py",
        """\
import os, sys
own, directory = sys.argv[1], os.environ["HERMES_EXPERIMENT_DIR"]
os.mkdir("out_" + own)
open("out_%s/x" % own, "w").write("x")
os.mkdir(directory + "/own")
os.symlink(os.path.abspath("out_" + own), directory + "/absolute")
os.symlink(os.path.relpath("out_" + own, directory + "/own"), directory + "/own/relative")
os.symlink("nowhere", directory + "/dangling")
""",
    )
    await project.run(f"[[{PYTHON}, job.py]]")
    experiment = project.experiment()
    assert (experiment.directory / "absolute" / "x").read_text() == "x"
    assert (experiment.directory / "own" / "relative" / "x").read_text() == "x"
    assert os.readlink(experiment.directory / "dangling") == "nowhere"
    assert {file.path for file in experiment.files if file.origin == "written"} == {
        "absolute", "own/relative", "dangling",
    }  # fmt: skip


@pytest.mark.fault(25)
def test_a_directory_that_was_moved_and_linked_is_finished_by_a_resumed_run(
    desk: Desk, tmp_path: Path
) -> None:
    desk.write(
        "job.py",
        "import json, os, shutil, sys, time\n"
        'directory = os.environ["HERMES_EXPERIMENT_DIR"]\n'
        f"elsewhere = {str(tmp_path)!r} + '/elsewhere'\n"
        # Once the process is recorded nobody else writes there
        'while not json.load(open(directory + "/hermes.json")).get("pid"): time.sleep(0.01)\n'
        "shutil.copytree(directory, elsewhere); shutil.rmtree(directory)\n"
        "os.symlink(elsewhere, directory)\n"
        'open("ready", "w")\n'
        'while not os.path.exists("go"): time.sleep(0.01)\n',
    )
    desk.write("s.hermes", f"EXEC\n[[{PYTHON}, job.py]]\n")
    with desk.started("exec", "-f", "s.hermes") as runner:
        until((desk.path / "ready").exists)
        runner.kill()
        runner.wait()
    desk.write("go")
    desk.hermes("resume")
    assert desk.experiment().status is Status.FINISHED
