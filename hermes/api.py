"""What programs call: run a hermes file, go on with a run, end one."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio

from .blocking import in_thread
from .errors import HermesError, escape
from .executors.base import Executor
from .executors.local import LOCAL
from .experiments.records import STOP, Record, unfinished
from .experiments.store import RunFolder
from .language.plan import Plan, compile_file
from .language.settings import find_root, layered
from .language.source import Source
from .model import RunResult
from .run.resume import Survey, survey_name, survey_run
from .run.runner import GRACE, HEED, STOPPING, Follow, FollowLogs, Run, running


@asynccontextmanager
async def open_run(
    file: str | os.PathLike[str] | Plan,
    name: str | None = None,
    *,
    threads: int | None = None,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
    comments: Sequence[str] = (),
    executor: Executor | str | None = None,
    grace: float = GRACE,
    follow_logs: FollowLogs = "all",
    follow_files: bool = True,
    only_missing: bool = False,
) -> AsyncIterator[Run]:
    """Executes a hermes file, or a plan, while the block runs; iterate over the run for its events.

    `name` groups the experiments; by default it is the file's stem. `threads`, `root`, `working_directory` and `comments` are as
    for `compile_file`, and are not used for a plan. With `only_missing`, jobs that have succeeded under this name already, in
    whatever run, are not started; they are told by their keys. `follow_logs` says which `LogChunk` events there are, `follow_files`
    whether there are `FileCollected` events, of which a job can cause very many. Leaving the block waits for the jobs; leaving it by an
    exception, or being cancelled, ends them first: SIGTERM to each process group, `grace` seconds, SIGKILL, and what they left is
    collected. `executor` is where jobs run: the name of a setting, or an executor of your own; by default what the settings say.

    Raises `HermesError` before anything is started if the file, the plan or the folder for experiments cannot be used.
    """
    place = executor if isinstance(executor, str) else None
    if isinstance(file, Plan):
        plan = file if place is None else file.at(place)
    else:
        options = partial(
            compile_file,
            working_directory=working_directory,
            root=root,
            comments=comments,
            threads=threads,
            executor=place,
        )
        plan = await in_thread(options, file)
    name = plan.default_name if name is None else name
    executor = executor if isinstance(executor, Executor) else _executor_of(plan)
    await in_thread(plan.check, name)
    await in_thread(executor.check, plan)
    survey = await in_thread(survey_name, plan, name) if only_missing else Survey()
    folder = await in_thread(RunFolder.create, plan, name)
    async with running(folder, survey, executor, grace, Follow(follow_logs, follow_files)) as run:
        yield run


@asynccontextmanager
async def open_resumed(
    run: str | None = None,
    *,
    failed: bool = False,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    grace: float = GRACE,
    follow_logs: FollowLogs = "all",
    follow_files: bool = True,
) -> AsyncIterator[Run]:
    """Takes up the latest unfinished run of the working directory, or that of the name or id `run`, while the block runs.

    Jobs that are still alive are adopted and waited for; jobs that ended while nobody watched are finished with their true exit
    status, their files collected; jobs of which nobody can tell how they ended are lost, and run again like those that were cancelled or
    never started. What succeeded is not repeated; what failed only with `failed`. The plan and the settings are those with which the run
    began. Raises `HermesError` if there is no such run, or another process is at it.
    """
    record, plan = await in_thread(_find_unfinished, run, root, working_directory)
    folder = await in_thread(RunFolder.reopen, record, plan)
    with suppress(OSError):
        os.unlink(f"{folder.folder}/{STOP}")
    executor = executor or _executor_of(plan)
    survey = await in_thread(_survey, folder, executor, failed)
    async with running(
        folder, survey, executor, grace, Follow(follow_logs, follow_files)
    ) as resumed:
        yield resumed


@asynccontextmanager
async def open_stopped(
    run: str | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    grace: float = GRACE,
    follow_logs: FollowLogs = "none",
    follow_files: bool = False,
) -> AsyncIterator[Run]:
    """Ends the latest unfinished run of the working directory, or that of the name or id `run`, while the block runs.

    Whoever is at the run, in whatever program, is told to end it. What still runs then, because its runner was killed or because it is
    with a cluster, is ended: SIGTERM, `grace` seconds, SIGKILL, or as the cluster does that. What it left is collected. The run can be
    resumed. Raises `HermesError` if there is no such run, or if its process does not answer.
    """
    record, plan = await in_thread(_find_unfinished, run, root, working_directory)
    stop = f"{record.folder}/{STOP}"
    try:
        folder = await _taken_over(record, plan, stop, grace + STOPPING)
        executor = executor or _executor_of(plan)
        survey = await in_thread(_survey, folder, executor, False)
        survey.leftovers = [replace(each, again=False) for each in survey.leftovers]
        async with running(
            folder, survey, executor, grace, Follow(follow_logs, follow_files), is_ending=True
        ) as ending:
            if not survey.held:
                ending._end_leftovers()
            yield ending
    finally:
        with suppress(OSError):
            os.unlink(stop)


async def _taken_over(record: Record, plan: Plan, stop: str, limit: float) -> RunFolder:
    """Waits until whoever is at the run has ended it."""
    ends = time.monotonic() + limit
    while True:
        try:
            await in_thread(Path(stop).touch)
        except OSError:
            raise HermesError(
                f"the run `{escape(record.run_id)}` has just come to its end"
            ) from None
        try:
            return await in_thread(RunFolder.reopen, record, plan)
        except HermesError:
            if time.monotonic() > ends:
                raise
        await anyio.sleep(HEED)


def _executor_of(plan: Plan) -> Executor:
    if plan.settings.executor == "slurm":
        from .executors.slurm.executor import SLURM

        return SLURM
    return LOCAL


def _find_unfinished(
    run: str | None,
    root: str | os.PathLike[str] | None,
    working_directory: str | os.PathLike[str] | None,
) -> tuple[Record, Plan]:
    base = Path(os.path.abspath(working_directory or "."))
    top = Path(os.path.abspath(base / root)) if root is not None else find_root(base)
    foreign: list[str] = []
    settings = layered(top, Source.of("", b""), (), {}, foreign.append)
    experiments = os.path.abspath(top / settings.path_to_experiments / "experiments")
    found = unfinished(experiments, str(base), run, foreign.append)
    if not found:
        named = f" `{escape(run)}`" if run else ""
        raise HermesError(
            f"there is no unfinished run{named} of `{escape(str(base))}`",
            hint="; ".join(foreign) or None,
        )
    return found[0], found[0].plan()


def _survey(folder: RunFolder, executor: Executor, failed: bool) -> Survey:
    try:
        return survey_run(folder, failed=failed, held=executor.held(folder, failed))
    except BaseException:
        # Or this process would keep the run's lock
        folder.close(done=False)
        raise


async def run_file(
    file: str | os.PathLike[str] | Plan,
    name: str | None = None,
    *,
    threads: int | None = None,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
    comments: Sequence[str] = (),
    executor: Executor | str | None = None,
    grace: float = GRACE,
) -> RunResult:
    """Executes a hermes file, or a plan, to its end. A job that fails raises nothing: see the result.

    Arguments and errors are those of `open_run`. In a notebook the progress is shown below the cell.
    """
    async with open_run(
        file, name, threads=threads, root=root, working_directory=working_directory, comments=comments, executor=executor,
        grace=grace, follow_logs="none", follow_files=False,
    ) as run:  # fmt: skip
        await _to_its_end(run)
    return run.result


async def _to_its_end(run: Run) -> None:
    from .show.notebook import in_notebook, shown

    if in_notebook():
        async with shown(run):
            await run.ended.wait()
