"""What every executor has to do: the same tests for all places."""

from __future__ import annotations

import json
import os

import anyio
import pytest

import hermes
from hermes import Status
from hermes.timing import Timing

from ..support import PYTHON, Project
from .places import PLACES, PROCESSES, WAIT, Place, act, use

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

PROCESSES_ONLY = pytest.mark.parametrize("place", PROCESSES, indirect=True)
"""For what only processes can do."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=PLACES)
def place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, project: Project
) -> Place:
    use(request.param, request, monkeypatch)
    return PLACES[request.param](project)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_events_are_complete_and_in_order(place: Place) -> None:
    entries = [act(f"out:one {n}", f"err:two {n}", "make:a", f"exit:{n}") for n in (0, 3)]
    path = place.hermes_file(*entries, threads=2)
    with anyio.fail_after(WAIT):
        async with hermes.open_run(path, "test", **place.options) as opened:
            events = [event async for event in opened]
    first, last = events[0], events[-1]
    assert isinstance(first, hermes.RunStarted)
    assert (first.name, first.total, first.threads) == ("test", 2, 2)
    assert isinstance(last, hermes.RunEnded)
    assert (last.started, last.succeeded, last.cancelled) == (2, 1, False)
    times = [each.time for each in events if isinstance(each, hermes.JobEnded)]
    assert times == sorted(times)
    started = [each for each in events if isinstance(each, hermes.JobStarted)]
    assert sorted(each.index for each in started) == [0, 1]
    for start in started:
        check_job(start, [each for each in events if _identifier(each) == start.identifier], place)


def check_job(start: hermes.JobStarted, events: list[hermes.Event], place: Place) -> None:
    """Events of one job: its start, what it prints and makes, its end."""
    number = start.arguments[-1].removeprefix("exit:")
    assert events[0] is start
    end = events[-1]
    assert isinstance(end, hermes.JobEnded)
    assert [type(each) for each in events].count(hermes.JobEnded) == 1
    assert end.index == start.index
    assert start.argv == ("sh", "act.sh", start.identifier, *start.arguments)
    assert os.path.isdir(start.directory)
    told = [each.path for each in events if isinstance(each, hermes.FileCollected)]
    assert told == ([f"a_{start.identifier}"] if place.collects else [])
    chunks = [each for each in events if isinstance(each, hermes.LogChunk)]
    for stream, word in (("stdout", "one"), ("stderr", "two")):
        said = b"".join(each.data for each in chunks if each.stream == stream)
        assert said == f"{word} {number}\n".encode()
    status = Status.FINISHED if number == "0" else Status.FAILED
    assert (end.outcome.exit_code, end.outcome.status) == (int(number), status)


def _identifier(event: hermes.Event) -> str | None:
    return (
        event.outcome.identifier
        if isinstance(event, hermes.JobEnded)
        else getattr(event, "identifier", None)
    )


async def test_exit_codes_are_those_of_the_jobs(place: Place) -> None:
    codes = (0, 1, 2, 127, 255)
    result = await place.run(*(act(f"exit:{code}") for code in codes))
    found = {each.argv[-1]: (each.status, each.exit_code, each.signal) for each in result.outcomes}
    assert found == {
        f"exit:{code}": (Status.FINISHED if code == 0 else Status.FAILED, code, None)
        for code in codes
    }
    check_outcomes(place, result)
    assert not result.ok


def check_outcomes(place: Place, result: hermes.RunResult) -> None:
    """The metadata say what the outcomes say."""
    outcomes = {each.identifier: each for each in result.outcomes}
    experiments = place.project.experiments()
    assert {each.identifier for each in experiments} == outcomes.keys()
    for each in experiments:
        outcome = outcomes[each.identifier]
        assert (each.status, each.exit_code, each.signal, each.problems) == (
            outcome.status, outcome.exit_code, outcome.signal, outcome.problems,
        )  # fmt: skip
        assert outcome.directory == str(each.directory)
        assert each.metadata.attempts == 1
        assert each.start is not None
        assert each.end is not None
        assert each.start <= each.end


async def test_timeout_ends_a_job_and_it_is_tried_again(place: Place) -> None:
    place.hold()
    entry = act("out:here", "hold").replace("]]", "],[-t 1s -r 1]]")
    result = await place.run(entry, timeout="1h", grace=1, timing=Timing(first_retry=0.1))
    assert [each.status for each in result.outcomes] == [Status.TIMEOUT] * 2
    found = place.project.experiments()
    assert [each.metadata.attempts for each in found] == [1, 2]
    assert [each.status for each in found] == [Status.TIMEOUT] * 2
    assert [each.stdout for each in found] == ["here\n"] * 2
    assert len(result.failures) == 1


@PROCESSES_ONLY
async def test_signals_and_programs_that_cannot_be_executed(place: Place) -> None:
    project = place.project
    project.write("end.sh", "kill -$2 $$\n")
    project.program("broken", "#!/no/such/interpreter\n")
    result = await place.run("[[sh, end.sh, 9]]", "[[sh, end.sh, 15]]", "[[./broken]]")
    found = {each.argv[-1]: each for each in result.outcomes}
    for number in (9, 15):
        outcome = found[str(number)]
        assert (outcome.status, outcome.exit_code, outcome.signal) == (Status.FAILED, None, number)
    (broken,) = [each for each in result.outcomes if each.script == "broken"]
    assert (broken.status, broken.exit_code) in ((Status.FAILED, 126), (Status.FAILED, 127))
    check_outcomes(place, result)


async def test_what_jobs_print_and_make_is_in_their_directories(place: Place) -> None:
    entries = [act(f"out:say {n}", f"make:m{n}", f"err:cry {n}") for n in range(3)]
    result = await place.run(*entries)
    assert result.ok
    for each in place.project.experiments():
        number = each.argv[-1].removeprefix("err:cry ")
        assert (each.stdout, each.stderr) == (f"say {number}\n", f"cry {number}\n")
        made = {f"m{number}_{each.identifier}": f"m{number}\n"}
        assert place.project.tree(each.directory, own=True) == made
        assert place.project.leftovers(each.identifier) == []


async def test_identifiers_are_unique_and_name_the_directories(place: Place) -> None:
    result = await place.run(*[act("exit:0")] * 5)
    identifiers = [each.identifier for each in result.outcomes]
    assert len(set(identifiers)) == 5
    for each in result.outcomes:
        folder = place.project.experiments_folder / "act.sh" / "test" / each.identifier
        assert each.directory == str(folder)
        assert each.argv[2] == each.identifier


@PROCESSES_ONLY
async def test_what_is_copied_moved_and_collected(place: Place) -> None:
    project = place.project
    project.write("data/in.txt", "in")
    project.write("both.py", "print(1)\n")
    code = (
        'printf "\\0\\377"; mkdir "d_$1" && echo deep > "d_$1/f"; echo out > result.txt; cat '
        '"$HERMES_EXPERIMENT_DIR/in.txt" > "n_$1"'
    )
    project.write("job.sh", f"{code}\n")
    result = await place.run(
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
    assert tuple(map(str, outcome.problems)) == ("`-ca none.txt`: no such file or directory",)
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


@PROCESSES_ONLY
async def test_output_is_kept_as_it_is(place: Place) -> None:
    project = place.project
    project.write(
        "job.py",
        "import os\nfor n in range(64):\n    os.write(1, bytes(range(256)) * 256)\n"
        "    os.write(2, b'x')\n",
    )
    await place.run(f"[[{PYTHON}, job.py]]")
    directory = project.experiment().directory
    assert (directory / "stdout.log").read_bytes() == bytes(range(256)) * 256 * 64
    assert (directory / "stderr.log").read_bytes() == b"x" * 64


@PROCESSES_ONLY
async def test_what_a_job_gets(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    project = place.project
    monkeypatch.setenv("MINE", "a b,c='d'")
    project.write(
        "job.py",
        "import json, os, sys\nprint(json.dumps([dict(os.environ), sys.argv, os.getcwd(), "
        "sys.stdin.read()]))\n",
    )
    result = await place.run(f"[[{PYTHON}, job.py, '{{identifier}}' 'a  b']]", arguments="--std")
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


@pytest.mark.parametrize("at_once", [False, True], ids=["cancel", "kill"])
async def test_cancel_and_kill_end_a_run_and_resume_does_the_rest(
    place: Place, at_once: bool
) -> None:
    place.hold()
    path = place.hermes_file(*[act("note:x", "hold")] * 3, threads=1)
    with anyio.fail_after(WAIT):
        # To kill a run ends the grace
        grace = 1000 if at_once else None
        async with hermes.open_run(path, "test", grace=grace, **place.options) as opened:
            await place.project.until(lambda: place.ledger())
            (opened.kill if at_once else opened.cancel)()
        assert opened.result.cancelled
        assert not opened.result.ok
        place.release()
        async with hermes.open_resumed(**place.options) as resumed:
            pass
    assert resumed.result.ok
    statuses = [each.status for each in place.project.experiments()]
    assert sorted(each for each in statuses if each != Status.CANCELLED) == [Status.FINISHED] * 3


async def test_no_more_than_threads_run_at_once(place: Place) -> None:
    await place.run(*[act("count")] * 6, threads=2)
    seen = [int(each.stdout) for each in place.project.experiments()]
    assert len(seen) == 6
    assert max(seen) <= 2


async def test_failed_jobs_are_run_again_only_if_asked_for(place: Place) -> None:
    await place.run(act("note:0", "exit:0"), act("note:3", "exit:3"))
    assert place.ledger() == ["0", "3"]
    for failed, expected in ((False, ["0", "3"]), (True, ["0", "3", "3"])):
        with anyio.fail_after(WAIT):
            async with hermes.open_resumed(failed=failed, **place.options) as resumed:
                pass
        assert place.ledger() == expected
        assert resumed.result.succeeded_before == 1
    assert sorted(each.metadata.attempts for each in place.project.experiments()) == [1, 1, 2]


async def test_mistakes_are_told_and_nothing_is_made(place: Place) -> None:
    with pytest.raises(hermes.HermesError, match=r"script file `gone.py` does not exist"):
        await place.run("[[sh, gone.py]]")
    assert not place.project.experiments_folder.exists()
