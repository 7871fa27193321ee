"""What a client knows of open tasks, and what it decides from that."""

from __future__ import annotations

import pytest

from hermes.executors.base import NotBegunError, Todo
from hermes.executors.slurm.commands import Row
from hermes.executors.slurm.open_tasks import Fate, OpenTasks, Signs, fate_of
from hermes.executors.slurm.tasks import Entry, Submission
from hermes.model import Job, Options
from hermes.storage.metadata import GitState
from hermes.timing import Timing

TIMING = Timing(slurm_alive=25.0, slurm_settle=5.0, slurm_lost_after=30.0, slurm_stale=300.0)


def row(state: str, array: str = "12") -> Row:
    return Row(array=array, task=0, state=state)


def signs(*, earlier: bool = False, file: float | None = None, rows: object = ()) -> Signs:
    """The node's file was written at `file`; Slurm gave these answers, each a time and a state."""
    made = Signs(is_earlier=earlier)
    if file is not None:
        made.note_file(1, file)
    assert isinstance(rows, tuple)
    for moment, state in rows:
        made.note_rows([row(state)] if state else [], moment)
    return made


GONE, UNKNOWN, RUNS = "FAILED", "", "RUNNING"


@pytest.mark.parametrize(
    ("given", "now", "ending", "expected"),
    [
        # Nobody has said anything
        (signs(), 1000, False, False),
        (signs(file=1), 20, False, False),
        # Slurm says that it is over: the node's last file may be on its way
        (signs(file=1, rows=((10, GONE),)), 14, False, False),
        (signs(file=1, rows=((10, GONE),)), 16, False, True),
        (signs(file=1, rows=((10, GONE), (14, GONE))), 16, False, True),
        # It has been put back into the queue
        (signs(file=1, rows=((10, GONE), (12, "PENDING"))), 1000, False, False),
        # Slurm does not know it: once may be a slip
        (signs(rows=((10, UNKNOWN),)), 1000, False, False),
        (signs(rows=((10, UNKNOWN), (20, UNKNOWN))), 39, False, False),
        (signs(rows=((10, UNKNOWN), (20, UNKNOWN))), 41, False, True),
        (signs(rows=((10, UNKNOWN), (20, UNKNOWN))), 16, True, True),
        (signs(rows=((10, UNKNOWN), (20, "PENDING"), (30, UNKNOWN))), 1000, False, False),
        # Slurm takes it for running, and its node is silent
        (signs(file=1, rows=((10, RUNS),)), 300, False, False),
        (signs(file=1, rows=((10, RUNS),)), 302, False, True),
        (signs(rows=((10, RUNS),)), 309, False, False),
        (signs(rows=((10, RUNS),)), 311, False, True),
        (signs(rows=((10, "PENDING"),)), 10_000, False, False),
        (signs(file=1, rows=((10, "SOMETHING_NEW"),)), 10_000, False, False),
    ],
)
def test_a_task_is_given_up_when_nothing_will_come(
    given: Signs, now: float, ending: bool, expected: bool
) -> None:
    assert given.is_given_up(now, TIMING, is_ending=ending) is expected


def test_a_sign_of_life_counts_for_some_time() -> None:
    given = signs(file=10)
    assert given.is_alive(34, TIMING)
    assert not given.is_alive(36, TIMING)
    # The same file, seen again
    given.note_file(1, 40)
    assert not given.is_alive(40, TIMING)
    given.note_file(2, 40)
    assert given.is_alive(41, TIMING)
    given.note_rows([row("REQUEUED")], 42)
    assert not given.is_alive(42, TIMING)


def test_the_file_of_an_earlier_client_s_task_may_be_old() -> None:
    given = signs(earlier=True, file=10)
    assert not given.is_alive(11, TIMING)
    given.note_file(2, 12)
    assert given.is_alive(13, TIMING)


def test_of_a_task_that_was_submitted_twice_the_one_that_goes_on_counts() -> None:
    given = Signs()
    given.note_rows([row("CANCELLED", "12"), row("RUNNING", "13")], 10)
    assert given.row == row("RUNNING", "13")
    assert not given.is_doubtful


CANCELLED, NODE_FAIL = ((10, "CANCELLED"),), ((10, "NODE_FAIL"),)


@pytest.mark.parametrize(
    ("given", "ending", "accepted", "again", "fate"),
    [
        # Sent again a moment ago
        (signs(), False, False, False, Fate.WAIT),
        (signs(rows=((1, UNKNOWN),)), False, True, True, Fate.SEND_AGAIN),
        (signs(rows=((1, UNKNOWN),)), False, False, False, Fate.WAIT),
        # Forgotten a second time: as if it had been cancelled
        (signs(rows=((1, UNKNOWN),)), False, True, False, Fate.CANCELLED),
        (signs(rows=((1, UNKNOWN),), earlier=True), False, True, True, Fate.START_ANEW),
        (signs(rows=((1, UNKNOWN),)), True, True, True, Fate.START_ANEW),
        (signs(rows=CANCELLED), False, True, True, Fate.CANCELLED),
        (signs(rows=CANCELLED, earlier=True), False, True, True, Fate.START_ANEW),
        (signs(rows=CANCELLED), True, True, True, Fate.START_ANEW),
        (signs(rows=NODE_FAIL), False, True, True, Fate.FAILED),
        (signs(rows=NODE_FAIL, earlier=True), False, True, True, Fate.FAILED),
        (signs(rows=NODE_FAIL), True, True, True, Fate.FAILED),
    ],
)
def test_what_becomes_of_a_task_that_no_node_has_taken(
    given: Signs, ending: bool, accepted: bool, again: bool, fate: Fate
) -> None:
    found = fate_of(given, is_ending=ending, is_accepted=accepted, may_send_again=again)
    assert found is fate


JOB = Job(
    argv=("a",), script="a", line=1, options=Options(), position=0, lengths=(1,), standard=()
)  # fmt: skip


def todo(index: int) -> Todo:
    return Todo(index=index, job=JOB, key=f"key{index}", attempt=1)


def submission(number: int, *indices: int) -> Submission:
    return Submission(
        number=number,
        job_name=f"hermes-x-{number}",
        options=(),
        entries=tuple(Entry(index, f"key{index}", 1) for index in indices),
        git=GitState(),
        has_patch=False,
        grace=10.0,
    )


@pytest.mark.anyio
async def test_open_tasks_are_found_by_their_job_s_key_once() -> None:
    earlier = submission(0, 5, 6)
    tasks = OpenTasks([earlier], earlier.tasks)
    assert (len(tasks), tasks.next_number, tasks.followed) == (2, 1, [])
    found = tasks.follow(todo(6))
    assert found is not None
    assert (found.name, found.signs.is_earlier, tasks.followed) == ("0.1", True, [found])
    # The next attempt of the same job is another task
    assert tasks.follow(todo(6)) is None
    (added,) = tasks.add(submission(1, 6), [todo(6)])
    assert (added.name, tasks.followed) == ("1.0", [found, added])
    found.finish(NotBegunError(None))
    assert found.begun.is_set()
    assert tasks.followed == [added]
    tasks.remove(found)
    assert tasks.numbers == {0, 1}
    assert [each.name for each in tasks.all] == ["0.0", "1.0"]
