"""What every executor has to do: the same tests for this machine and for a Slurm cluster. A third one is added to PLACES."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest

import hermes
from hermes import Status

from .project import PYTHON, Project
from .support import IDENTIFIER, Desk, until
from .test_seed import CNN, EXAMPLE, SETTINGS

PLACES = ("local", "slurm")

WAIT = 60.0
"""Seconds for a whole run: a cluster starts jobs once a second, and machines that test are busy."""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    return placed(str(request.param), request, monkeypatch)


def placed(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes the place available to whatever this test starts."""
    if name == "slurm":
        for variable, value in request.getfixturevalue("cluster").env.items():
            monkeypatch.setenv(variable, value)
    return name


async def run(
    project: Project,
    place: str,
    *entries: str,
    threads: int = 4,
    arguments: str = "",
    **options: Any,
) -> hermes.RunResult:
    path = project.hermes_file(
        *entries, settings={"executor": place, "threads": threads}, arguments=arguments
    )
    with anyio.fail_after(WAIT):
        return await hermes.run_file(
            path, "test", **({"working_directory": project.path, "root": project.path} | options)
        )


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_events_are_complete_and_in_order(project: Project, place: str) -> None:
    project.write(
        "job.sh", 'echo "one $2"; echo "two $2" >&2; echo x > "made_$1"; sleep 0.2; exit "$2"\n'
    )
    path = project.hermes_file(
        "[[sh, job.sh, 0]]", "[[sh, job.sh, 3]]", settings={"executor": place, "threads": 2}
    )
    events: list[hermes.Event] = []
    with anyio.fail_after(WAIT):
        async with hermes.open_run(
            path, "test", working_directory=project.path, root=project.path
        ) as opened:
            async for event in opened:
                events.append(event)
    assert isinstance(events[0], hermes.RunStarted)
    assert (events[0].name, events[0].total, events[0].threads) == ("test", 2, 2)
    assert isinstance(events[-1], hermes.RunEnded)
    assert (events[-1].started, events[-1].succeeded, events[-1].cancelled) == (2, 1, False)
    assert [each.time for each in events if isinstance(each, hermes.JobEnded)] == sorted(
        each.time for each in events if isinstance(each, hermes.JobEnded)
    )
    started = {each.identifier: each for each in events if isinstance(each, hermes.JobStarted)}
    assert sorted(each.index for each in started.values()) == [0, 1]
    for identifier, start in started.items():
        own = [each for each in events if _identifier(each) == identifier]
        assert own[0] is start
        (end,) = [each for each in own if isinstance(each, hermes.JobEnded)]
        assert own[-1] is end
        assert end.index == start.index
        assert start.argv == ("sh", "job.sh", identifier, start.arguments[0])
        assert os.path.isdir(start.directory)
        assert [each.path for each in own if isinstance(each, hermes.FileCollected)] == [
            f"made_{identifier}"
        ]
        for stream, word in (("stdout", "one"), ("stderr", "two")):
            said = b"".join(
                each.data
                for each in own
                if isinstance(each, hermes.LogChunk) and each.stream == stream
            )
            assert said == f"{word} {start.arguments[0]}\n".encode()
        outcome = end.outcome
        assert (outcome.exit_code, outcome.status) == (
            (0, "finished") if start.arguments == ("0",) else (3, "failed")
        )


def _identifier(event: hermes.Event) -> str | None:
    return (
        event.outcome.identifier
        if isinstance(event, hermes.JobEnded)
        else getattr(event, "identifier", None)
    )


@pytest.mark.anyio
async def test_ends_of_all_kinds(project: Project, place: str) -> None:
    project.write(
        "end.sh", 'case $2 in kill) kill -9 $$;; term) kill -15 $$;; *) exit "$2";; esac\n'
    )
    project.program("broken", "#!/no/such/interpreter\n")
    kinds = ("0", "1", "255", "kill", "term")
    entries = [*(f"[[sh, end.sh, {kind}]]" for kind in kinds), "[[./broken]]"]
    result = await run(project, place, *entries, threads=6)
    found = {
        each.argv[-1]: (each.status, each.exit_code, each.signal)
        for each in result.outcomes
        if each.script == "end.sh"
    }
    assert found == {
        "0": (Status.FINISHED, 0, None),
        "1": (Status.FAILED, 1, None),
        "255": (Status.FAILED, 255, None),
        "kill": (Status.FAILED, None, 9),
        "term": (Status.FAILED, None, 15),
    }
    (broken,) = [each for each in result.outcomes if each.script == "broken"]
    assert (broken.status, broken.exit_code) in ((Status.FAILED, 126), (Status.FAILED, 127))
    for each in project.experiments():
        (outcome,) = [
            outcome for outcome in result.outcomes if outcome.identifier == each.identifier
        ]
        assert (each.status, each.exit_code, each.signal) == (
            outcome.status,
            outcome.exit_code,
            outcome.signal,
        )
        assert each.problems == outcome.problems
        assert each.metadata["attempts"] == 1
    assert not result.ok


@pytest.mark.anyio
async def test_what_is_copied_moved_and_collected(project: Project, place: str) -> None:
    project.write("data/in.txt", "in")
    project.write("both.py", "print(1)\n")
    code = 'printf "\\0\\377"; mkdir "d_$1" && echo deep > "d_$1/f"; echo out > result.txt; cat "$HERMES_EXPERIMENT_DIR/in.txt" > "n_$1"'
    project.write("job.sh", f"{code}\n")
    result = await run(
        project,
        place,
        "[[sh, job.sh],[-cb data/in.txt, -ca both.py, -ma result.txt, -ca none.txt, -c 'a, b']]",
    )
    (outcome,) = result.outcomes
    experiment = project.experiment()
    assert project.tree(experiment.directory, own=True) == {
        "in.txt": "in",
        "both.py": "print(1)\n",
        "result.txt": "out\n",
        f"d_{outcome.identifier}": "/",
        f"d_{outcome.identifier}/f": "deep\n",
        f"n_{outcome.identifier}": "in",
    }
    assert (experiment.directory / "stdout.log").read_bytes() == b"\0\377"
    assert outcome.problems == ("`-ca none.txt`: no such file or directory",)
    assert experiment.comments == ("a, b",)
    assert project.leftovers(outcome.identifier) == []
    assert not (project.path / "result.txt").exists()
    assert {file.path: file.origin for file in experiment.files} == {
        "in.txt": "copied-before",
        "both.py": "copied-after",
        "result.txt": "moved",
        f"d_{outcome.identifier}/f": "collected",
        f"n_{outcome.identifier}": "collected",
    }


@pytest.mark.anyio
async def test_output_is_kept_as_it_is(project: Project, place: str) -> None:
    project.write(
        "job.py",
        "import os\nfor n in range(64):\n    os.write(1, bytes(range(256)) * 256)\n    os.write(2, b'x')\n",
    )
    await run(project, place, f"[[{PYTHON}, job.py]]")
    directory = project.experiment().directory
    assert (directory / "stdout.log").read_bytes() == bytes(range(256)) * 256 * 64
    assert (directory / "stderr.log").read_bytes() == b"x" * 64


@pytest.mark.anyio
async def test_what_a_job_gets(
    project: Project, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "a b,c='d'")
    project.write(
        "job.py",
        "import json, os, sys\nprint(json.dumps([dict(os.environ), sys.argv, os.getcwd(), sys.stdin.read()]))\n",
    )
    result = await run(
        project, place, f"[[{PYTHON}, job.py, '{{identifier}}' 'a  b']]", arguments="--std"
    )
    (outcome,) = result.outcomes
    environment, argv, folder, given = json.loads(project.experiment().stdout)
    assert argv == ["job.py", "--std", outcome.identifier, "a  b"]
    assert (folder, given) == (str(project.path), "")
    expected = {
        "HERMES_IDENTIFIER": outcome.identifier,
        "HERMES_EXPERIMENT_DIR": outcome.directory,
        "HERMES_NAME": "test",
        "HERMES_RUN_ID": result.run_id,
        "HERMES_SLOT": "0",
        "PYTHONUNBUFFERED": "1",
        "MINE": "a b,c='d'",
    }
    assert {name: environment[name] for name in expected} == expected


OWN = frozenset(
    {
        "identifier",
        "run_id",
        "start",
        "end",
        "duration",
        "pid",
        "pid_start",
        "host",
        "slurm",
        "boot_id",
    }
)
"""What may differ in the metadata of the same job at two places."""


def test_metadata_are_the_same_everywhere(
    desk: Desk, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write("job.sh", 'echo x > "made_$1"; echo "$2"; exit 4\n')
    desk.write(
        "x.hermes",
        "PRE\nthreads: 3\nSTD-H\n-ca job.sh\nEXEC\nPROD([[sh, job.sh, {n}],[-c 'no {n}']], n=[1, 2])\n",
    )
    found = []
    for name in PLACES:
        placed(name, request, monkeypatch)
        desk.hermes("exec", "-f", "x.hermes", "--executor", name, "-c", "more", code=1)
        metadata = sorted(
            (each.metadata for each in desk.experiments()), key=lambda each: str(each["argv"][-1])
        )
        text = IDENTIFIER.sub(
            "ID",
            json.dumps([{key: each[key] for key in each if key not in OWN} for each in metadata]),
        )
        found.append(text.replace(f'"executor": "{name}"', '"executor": "any"'))
        again = (desk.experiments()[0].directory / "re_execution.hermes").read_text()
        assert f"executor: {name}\n" in again
        assert [(each.keys() - {"slurm"}) for each in metadata] == [
            frozenset(metadata[0].keys() - {"slurm"})
        ] * 2
        shutil.rmtree(desk.experiments_folder)
    assert found == [found[0]] * len(PLACES)


def test_the_page_s_example_gives_the_same_tree(
    desk: Desk, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import sys\nfrom networks.cnn import LAYERS\nopen('weights_%s.json' % sys.argv[1], 'w').write(str(LAYERS))\nprint(sys.argv[2:])\n"
    for name, text in (
        ("example_file.hermes", EXAMPLE),
        (".hermes_settings", SETTINGS),
        ("networks/cnn.py", CNN),
    ):
        desk.write(name, text)
    for name in ("train_dqn.py", "train_ac.py"):
        desk.write(name, script)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    found = []
    for name in PLACES:
        placed(name, request, monkeypatch)
        desk.hermes("exec", "-f", "example_file.hermes", "-n", "test_agents", "--executor", name)
        tree = {
            IDENTIFIER.sub("ID", path): text
            for path, text in desk.tree(desk.path).items()
            if not path.startswith("experiments/.hermes/")
        }
        found.append(
            {
                path: text if not path.endswith((".json", "re_execution.hermes")) else ""
                for path, text in tree.items()
            }
        )
        shutil.rmtree(desk.experiments_folder)
    assert len(found[0]) > 15
    assert found == [found[0]] * len(PLACES)


HELD = 'echo "$2" >> ledger; echo early > "early_$1"; while [ -e hold ]; do sleep 0.02; done; echo late > "late_$1"; exit "$2"\n'
"""A job that waits as long as there is a file `hold`; each start leaves a line."""


def starts(desk: Desk) -> list[str]:
    path = desk.path / "ledger"
    return sorted(path.read_text().split()) if path.exists() else []


def test_a_killed_run_is_resumed(desk: Desk, place: str) -> None:
    desk.write("job.sh", HELD)
    desk.write("hold")
    desk.write(
        "x.hermes",
        f"PRE\nexecutor: {place}\nthreads: 2\nEXEC\nPROD([[sh, job.sh, {{n}}]], n=[0, 3, 0])\n",
    )
    with desk.started("exec", "-f", "x.hermes") as runner:
        until(lambda: len(starts(desk)) == 2)
        runner.kill()
        runner.wait()
    with desk.started("resume") as resumed:
        assert "still in progress" in _patiently(desk, resumed)
        (desk.path / "hold").unlink()
        _, told = resumed.communicate(timeout=WAIT)
    assert resumed.returncode == 1, told
    assert re.search(r"x: 3 jobs in .*: (2 finished, 1 failed|1 failed, 2 finished);", told), told
    assert starts(desk) == ["0", "0", "3"]
    for each in desk.experiments():
        assert each.exit_code == int(each.argv[-1])
        assert set(desk.tree(each.directory, own=True)) == {
            f"early_{each.identifier}",
            f"late_{each.identifier}",
        }
    # Only what failed, if asked for, in a directory of its own
    assert "2 finished before, 1 failed before" in desk.hermes("resume", code=1).stderr
    desk.hermes("resume", "--failed", code=1)
    assert starts(desk) == ["0", "0", "3", "3"]
    assert sorted(each.metadata["attempts"] for each in desk.experiments()) == [1, 1, 1, 2]


def _patiently(desk: Desk, resumed: Any) -> str:
    """What a second `hermes resume` says while the first is at it."""

    def said() -> str | None:
        assert resumed.poll() is None
        runs = [path for path in desk.experiments_folder.glob(".hermes/*/lock") if _is_locked(path)]
        return str(desk.hermes("resume", code=2).stderr) if runs else None

    return until(said) or ""


def _is_locked(path: Path) -> bool:
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.anyio
async def test_a_cancelled_run_comes_to_its_end_when_it_is_resumed(
    project: Project, place: str
) -> None:
    project.write("job.sh", HELD)
    project.write("hold")
    path = project.hermes_file(
        *["[[sh, job.sh, 0]]"] * 3, settings={"executor": place, "threads": 1}
    )
    where: dict[str, Any] = {"working_directory": project.path, "root": project.path}
    with anyio.fail_after(WAIT):
        async with hermes.open_run(path, "test", **where) as opened:
            async for event in opened:
                if isinstance(event, hermes.JobStarted):
                    opened.cancel()
        assert opened.result.cancelled
        assert not opened.result.ok
        (project.path / "hold").unlink()
        async with hermes.open_resumed(**where) as resumed:
            pass
    assert resumed.result.ok
    assert [each.status for each in project.experiments() if each.status != "cancelled"] == [
        "finished"
    ] * 3


@pytest.mark.anyio
async def test_no_more_than_threads_run_at_once(project: Project, place: str) -> None:
    code = "import os, sys, time; name = 'running/' + sys.argv[1]; open(name, 'w').close(); print(len(os.listdir('running')))"
    project.write("job.py", f"{code}\ntime.sleep(0.3); os.unlink(name)\n")
    project.write("running/.keep")
    await run(project, place, f"PROD([[{PYTHON}, job.py, {{n}}]], n=RANGE[0, 6])", threads=2)
    seen = [int(each.stdout) for each in project.experiments()]
    assert len(seen) == 6
    # The file that keeps the folder is one of those counted
    assert max(seen) <= 3


def test_a_mistake_is_told_and_nothing_is_made(desk: Desk, place: str) -> None:
    desk.write("x.hermes", f"PRE\nexecutor: {place}\nEXEC\n[[python, gone.py]]\n")
    assert (
        "script file `gone.py` does not exist"
        in desk.hermes("exec", "-f", "x.hermes", code=2).stderr
    )
    assert not desk.experiments_folder.exists()


@pytest.mark.parametrize("alive", [True, False], ids=["followed", "left"])
def test_stop_ends_a_run_wherever_it_is(desk: Desk, place: str, alive: bool) -> None:
    desk.write("job.sh", HELD)
    desk.write("hold")
    desk.write(
        "x.hermes",
        f"PRE\nexecutor: {place}\nthreads: 2\nEXEC\nPROD([[sh, job.sh, 0]], n=[1, 2, 3, 4])\n",
    )
    with desk.started("exec", "-f", "x.hermes") as runner:
        until(lambda: len(starts(desk)) == 2)
        if not alive:
            runner.kill()
            runner.wait()
        stopped = desk.hermes("stop", timeout=WAIT)
        assert re.search(r"x: 4 jobs in .*2 never started", stopped.stderr) or alive, stopped.stderr
        _, told = runner.communicate(timeout=WAIT)
        assert "stopped by `hermes stop`" in told or not alive
    experiments = desk.experiments()
    assert [each.status for each in experiments] == ["cancelled"] * 2
    assert [each.problems for each in experiments] == [()] * 2
    for each in experiments:
        assert desk.tree(each.directory, own=True) == {f"early_{each.identifier}": "early\n"}
    assert "Traceback" not in stopped.stderr + told
    (desk.path / "hold").unlink()
    desk.hermes("resume", timeout=WAIT)
    assert (
        sorted(each.status for each in desk.experiments()) == ["cancelled"] * 2 + ["finished"] * 4
    )
    assert "no unfinished run" in desk.hermes("stop", code=2).stderr
