"""The order of jobs: what was taken up, what is run again, and then the plan."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from hermes.executors.base import Leftover, Todo
from hermes.model import Outcome, Problem, ProblemKind, Status
from hermes.run.survey import Reason, Survey
from hermes.run.todos import PENDING, Todos, anew, comes_to_nothing

from ..support import Project
from ..support.labs import Lab


@pytest.fixture
def lab(project: Project) -> Iterator[Lab]:
    lab = Lab(project, 4)
    yield lab
    lab.close()


def todo_of(lab: Lab, index: int, **changes: object) -> Todo:
    todo = Todo(index=index, job=lab.jobs[index], key=lab.keys[index], attempt=1)
    return replace(todo, **changes)


def taken_up(lab: Lab, index: int) -> Todo:
    """The job as an earlier runner has left it."""
    experiment = lab.experiment(index)
    leftover = Leftover(directory=experiment.directory, metadata=experiment.metadata)
    return todo_of(lab, index, is_taken_up=True, again=True, leftover=leftover)


def rest(todos: Todos) -> list[int]:
    """The indices of what comes now."""
    found = []
    while (todo := todos.next()) is not None:
        if todo is not PENDING:
            found.append(todo.index)
    return found


def test_order_is_that_of_the_plan(lab: Lab) -> None:
    todos = Todos(lab.plan, Survey())
    first = todos.next()
    assert first == todo_of(lab, 0)
    assert rest(todos) == [1, 2, 3]
    assert todos.next() is None
    assert not todos.may_block


def test_order_begins_with_what_was_taken_up(lab: Lab) -> None:
    left = [taken_up(lab, 2), taken_up(lab, 0)]
    survey = Survey(
        settled=dict.fromkeys((todo.key for todo in left), Reason.TAKEN_UP), taken_up=left
    )
    todos = Todos(lab.plan, survey)
    assert rest(todos) == [2, 0, 1, 3]
    assert todos.may_block


def test_order_puts_first_what_is_run_again(lab: Lab) -> None:
    todos = Todos(lab.plan, Survey())
    todo = todos.next()
    assert isinstance(todo, Todo)
    todos.next()
    todos.add_again(todo)
    assert rest(todos) == [0, 2, 3]
    # Also when there was nothing left
    todos.add_again(todo)
    assert rest(todos) == [0]


def test_settled_jobs_are_left_out_and_attempts_are_counted(lab: Lab) -> None:
    survey = Survey(settled={lab.keys[1]: Reason.FAILED}, attempts={lab.keys[1]: 1, lab.keys[3]: 2})
    todos = Todos(lab.plan, survey)
    found = [todos.next() for _ in range(3)]
    assert [(todo.index, todo.attempt) for todo in found if isinstance(todo, Todo)] == [
        (0, 1),
        (2, 1),
        (3, 3),
    ]
    assert todos.next() is None


def test_ending_a_run_starts_nothing_of_the_plan(lab: Lab) -> None:
    left = taken_up(lab, 1)
    todos = Todos(
        lab.plan, Survey(settled={left.key: Reason.TAKEN_UP}, taken_up=[left]), is_ending=True
    )
    assert rest(todos) == [1]


def test_disk_full_starts_nothing_but_what_was_taken_up(lab: Lab) -> None:
    left = taken_up(lab, 1)
    todos = Todos(lab.plan, Survey(settled={left.key: Reason.TAKEN_UP}, taken_up=[left]))
    todos.add_again(todo_of(lab, 0))
    todos.is_closed = True
    assert rest(todos) == [1]
    assert todos.next() is None


@pytest.mark.parametrize("status", [each for each in Status if each is not Status.RUNNING])
@pytest.mark.parametrize("rerun_failed", [True, False])
def test_what_comes_to_nothing(lab: Lab, status: Status, rerun_failed: bool) -> None:
    problem = Problem(ProblemKind.NOT_STARTED, "text")
    outcome = Outcome.not_begun(lab.jobs[0], status, problem)
    expected = status in (Status.LOST, Status.CANCELLED) or (
        status is Status.FAILED and rerun_failed
    )
    assert comes_to_nothing(todo_of(lab, 0, rerun_failed=rerun_failed), outcome) is expected


@pytest.mark.parametrize("was_begun", [True, False])
def test_anew_is_the_same_job_and_the_next_attempt_if_it_was_begun(
    lab: Lab, was_begun: bool
) -> None:
    again = anew(taken_up(lab, 1), was_begun=was_begun)
    assert again == todo_of(lab, 1, attempt=1 + was_begun)
