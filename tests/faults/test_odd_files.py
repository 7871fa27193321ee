"""Jobs that leave what is neither a file nor a folder, and whole folders."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hermes import FileCollected, Status
from hermes.executors.local import LOCAL, LocalExecutor

from ..support import (
    PYTHON,
    Project,
    RecordProperty,
    times,
)
from ..support.executors import Unwatched

BOTH_WAYS = pytest.mark.parametrize("executor", [LOCAL, Unwatched()], ids=["watched", "final-scan"])


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
@BOTH_WAYS
async def test_odd_kinds_are_not_followed_and_not_opened(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: LocalExecutor
) -> None:
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
        (outcome,) = (
            await project.run(f"[[{PYTHON}, job.py, {outside}]]", executor=executor)
        ).outcomes
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
            problem.text.startswith(f"`{path}` is a") and kind in problem.text
            for problem in outcome.problems
        )
    assert not {
        name
        for name in opened
        if name.startswith(
            ("fifo", "socket", "device", "to_", "itself", "one", "two", "up", "loop")
        )
    }
    assert project.tree(project.experiment().directory, own=True) == {
        f"to_folder_{own}": f"-> {outside}", f"to_file_{own}": f"-> {outside}/file",
        f"itself_{own}": f"-> itself_{own}",
        f"one_{own}": f"-> two_{own}", f"two_{own}": f"-> one_{own}", f"hard_{own}": "theirs",
        f"d_{own}": "/", f"d_{own}/up": "-> ..", f"d_{own}/loop": "-> .",
        f"d_{own}/out": f"-> {outside}", f"d_{own}/hard_{own}": "theirs",
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
@BOTH_WAYS
async def test_a_folder_that_moves_in_is_collected_whole_and_once(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: RecordProperty,
    executor: LocalExecutor,
) -> None:
    jobs = times(2, 12)
    record_property("tried", jobs)
    (tmp_path / "elsewhere").mkdir()
    project.write("job.py", MOVE_IN)
    told: list[tuple[str, str]] = []
    async with project.open(
        f"PROD([[{PYTHON}, job.py, {tmp_path}/elsewhere {{n}}]], n=RANGE[0, {jobs}])",
        threads=2,
        executor=executor,
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
