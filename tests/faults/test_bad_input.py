"""Hermes files that are wrong, and programs that cannot be executed."""

from __future__ import annotations

import random
import re
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

import hermes
from hermes import HermesError, Status

from ..language.helpers import BAD, GOLDEN, mutated, random_bytes, random_text
from ..support import (
    LONG,
    Desk,
    Project,
    RecordProperty,
    times,
)
from ..support.snapshots import snapshot

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
        "no_interpreter": 127, "plain_interpreter": 126, "folder_interpreter": 126, "binary": 126,
        "vanishes": 127, "closes": 126,
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
    """What `hermes exec` says about a bad file. Nothing but that comes of it, and it takes less
    than a second of work.
    """
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
