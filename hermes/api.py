"""What programs call: run a hermes file, go on with a run, end one."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import anyio
from msgspec.structs import replace

from .blocking import in_thread
from .errors import HermesError, escape
from .executors.base import Executor
from .language.compiling import compile_file
from .language.plan import Plan, with_threads
from .language.settings import SettingArguments
from .model import RunResult
from .run import finding
from .run.finding import FoundRun, Purpose
from .run.frozen import require_frozen
from .run.gpus import find_for
from .run.news import FollowLogs
from .run.notify import check as check_notify
from .run.notify import why_not as why_not_notified
from .run.opening import in_progress
from .run.options import RunOptions
from .run.resume import is_unfinished, settled_by_others, survey_name, survey_run
from .run.runner import Run
from .run.starts import Starts
from .run.survey import Survey
from .storage.run_folder import RunFolder, experiments_of
from .storage.run_record import RunRecord
from .storage.wishes import ask_to_stop, want_threads, withdraw_stop
from .timing import TIMING, Timing

if TYPE_CHECKING:
    from .storage.code_then import CodeThen

StrPath = str | os.PathLike[str]


@asynccontextmanager
async def open_run(
    file: StrPath | Plan,
    name: str | None = None,
    *,
    root: StrPath | None = None,
    working_directory: StrPath | None = None,
    comments: Sequence[str] = (),
    executor: Executor | str | None = None,
    follow_logs: FollowLogs = "all",
    follow_files: bool = True,
    only_missing: bool = False,
    timing: Timing = TIMING,
    **settings: Unpack[SettingArguments],
) -> AsyncIterator[Run]:
    """Executes a hermes file, or a plan, while the block runs; iterate over the run for its events.

    `name` groups the experiments; by default it is the file's stem. `root`, `working_directory`,
    `comments` and `settings` are as for `compile_file`, and a plan has them already. With
    `only_missing`, jobs that have succeeded under this name already, in whatever run, are not
    started. `follow_logs` says which `LogChunk` events there are, `follow_files` whether there are
    `FileCollected` events, of which a job can cause very many.

    Leaving the block waits for the jobs; leaving it by an exception, or being cancelled, ends them
    first: SIGTERM to each process group, the setting `grace`, SIGKILL, and what they left is
    collected. `executor` is where jobs run: the name of a setting, or an executor of your
    own; by default what the settings say. `timing` is for tests.

    Raises `HermesError` before anything is started if the file, the plan or the folder for
    experiments cannot be used.
    """
    options = RunOptions(
        grace=None, follow_logs=follow_logs, follow_files=follow_files, timing=timing
    )
    setting = executor if isinstance(executor, str) else None
    if isinstance(file, Plan):
        places = {"root": root, "working_directory": working_directory}
        given = {**places, "comments": comments or None, **settings}
        _refuse([each for each, value in given.items() if value is not None])
        plan = file if setting is None else file.at(setting)
    else:
        compiled = partial(
            compile_file,
            working_directory=working_directory,
            root=root,
            comments=comments,
            executor=setting,
            **settings,
        )
        plan = await in_thread(compiled, file)
    place = executor_of(plan) if executor is None or isinstance(executor, str) else executor
    async with open_plan(plan, name, place, options, only_missing=only_missing) as run:
        yield run


@asynccontextmanager
async def open_plan(
    plan: Plan,
    name: str | None,
    place: Executor,
    options: RunOptions,
    *,
    only_missing: bool = False,
    then: CodeThen | None = None,
) -> AsyncIterator[Run]:
    """Executes a plan while the block runs, with the setting `freeze` in the code of `then`."""
    timing = options.timing
    name = plan.default_name if name is None else name
    if then is None:
        await in_thread(plan.check, name)
    await place.check(plan)
    gpus = await in_thread(find_for, plan) if place.is_here else None
    await in_thread(check_notify, plan, timing)
    # Found now, in a thread, for a large sweep has many jobs to look at
    await in_thread(getattr, plan, "warnings")
    folder = await in_thread(partial(RunFolder.create, plan, name, timing, then=then))
    survey, starts = Survey(), None
    # Nothing has begun: of what goes wrong here, no unfinished run is left behind
    with _closed_on_error(folder, done=True):
        if folder.frozen is not None and then is not None:
            # A script of then need not be there now
            here = Path(folder.frozen.working_directory)
            await in_thread(replace(plan, working_directory=here).check, name)
        if only_missing:
            starts = await in_thread(_starts, folder)
            survey = await in_thread(survey_name, folder)
    run = Run(
        folder=folder, survey=survey, executor=place, gpus=gpus, options=options, starts=starts
    )
    async with in_progress(run, folder):
        yield run


@asynccontextmanager
async def open_resumed(
    run: str | FoundRun | None = None,
    *,
    failed: bool = False,
    threads: int | None = None,
    root: StrPath | None = None,
    working_directory: StrPath | None = None,
    executor: Executor | None = None,
    grace: float | None = None,
    follow_logs: FollowLogs = "all",
    follow_files: bool = True,
    timing: Timing = TIMING,
) -> AsyncIterator[Run]:
    """Takes up the latest unfinished run of the working directory that no process executes, or that
    of the name or id `run`, while the block runs. `find_run` tells before which one that is.

    Jobs that are still alive are adopted and waited for; jobs that ended while nobody watched are
    finished with their true exit status, their files collected; jobs of which nobody can tell how
    they ended are lost, and run again like those that were cancelled or never started. What
    succeeded is not repeated; what failed only with `failed`. The plan and the settings are those
    with which the run began, and with what was changed since; `threads` and `grace` (seconds) may
    be others. Raises `HermesError` if there is no such run, or another process is at it.
    """
    options = RunOptions(
        grace=grace, follow_logs=follow_logs, follow_files=follow_files, timing=timing
    )
    record, plan = await in_thread(_found, run, Purpose.RESUME, root, working_directory)
    place = executor or executor_of(plan)
    gpus = await in_thread(find_for, plan) if place.is_here else None
    folder = await in_thread(RunFolder.reopen, record, plan, timing)
    with _closed_on_error(folder):
        require_frozen(folder)
        await in_thread(withdraw_stop, folder.folder)
        if threads is not None:
            await in_thread(want_threads, folder.folder, threads)
            folder.set_threads(threads)
        starts = await in_thread(_starts, folder)
        survey = await _survey(folder, place, failed=failed)
        survey.warnings += await in_thread(why_not_notified, plan, timing)
    resumed = Run(
        folder=folder, survey=survey, executor=place, gpus=gpus, options=options, starts=starts
    )
    async with in_progress(resumed, folder):
        yield resumed


@asynccontextmanager
async def open_stopped(
    run: str | FoundRun | None = None,
    *,
    forget: bool = False,
    root: StrPath | None = None,
    working_directory: StrPath | None = None,
    executor: Executor | None = None,
    grace: float | None = None,
    follow_logs: FollowLogs = "none",
    follow_files: bool = False,
    timing: Timing = TIMING,
) -> AsyncIterator[Run]:
    """Ends the latest run of the working directory that is in progress, or that of the name or id
    `run`, while the block runs. `find_run` tells before which one that is.

    The process that is at the run is asked to end it. What still runs then, because its runner was
    killed or because it is with a cluster, is ended: SIGTERM, `grace` seconds, SIGKILL, or as the
    cluster does that. What it left is collected. The run can be resumed, but not with `forget`:
    then its record is put away, and its experiments stay as they are. Raises `HermesError` if there
    is no such run, if its process does not answer, or if with `forget` a job may still be alive.
    """
    options = RunOptions(
        grace=grace, follow_logs=follow_logs, follow_files=follow_files, timing=timing
    )
    purpose = Purpose.FORGET if forget else Purpose.STOP
    record, plan = await in_thread(_found, run, purpose, root, working_directory)
    try:
        folder = await _taken_over(record, plan, options)
        with _closed_on_error(folder):
            place = executor or executor_of(plan)
            survey = await _survey(folder, place, failed=False)
        survey.taken_up = [replace(todo, again=False) for todo in survey.taken_up]
        # All that runs is ended at the same time
        threads = max(plan.settings.threads, len(survey.taken_up))
        folder.plan = with_threads(plan, threads)
        ending = Run(folder=folder, survey=survey, executor=place, options=options, is_ending=True)
        async with in_progress(ending, folder):
            yield ending
            if forget:
                await ending.ended.wait()
                await in_thread(_forget, folder, ending.result.left)
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(withdraw_stop, record.folder)


async def run_file(
    file: StrPath | Plan,
    name: str | None = None,
    *,
    root: StrPath | None = None,
    working_directory: StrPath | None = None,
    comments: Sequence[str] = (),
    executor: Executor | str | None = None,
    timing: Timing = TIMING,
    **settings: Unpack[SettingArguments],
) -> RunResult:
    """Executes a hermes file, or a plan, to its end. A job that fails raises nothing: see the
    result.

    Arguments and errors are those of `open_run`. In a notebook the progress is shown below the
    cell.
    """
    # Imported when it is used: the command never does
    from .show.notebook import in_notebook, shown

    async with open_run(
        file,
        name,
        root=root,
        working_directory=working_directory,
        comments=comments,
        executor=executor,
        follow_logs="none",
        follow_files=False,
        timing=timing,
        **settings,
    ) as run:
        if in_notebook():
            async with shown(run):
                await run.ended.wait()
    return run.result


async def _taken_over(record: RunRecord, plan: Plan, options: RunOptions) -> RunFolder:
    """Waits until the process that is at the run has ended it."""
    timing = options.timing
    ends = time.monotonic() + options.grace_of(plan) + timing.takeover
    while True:
        try:
            await in_thread(ask_to_stop, record.folder)
        except OSError:
            raise HermesError(f"the run `{escape(record.run_id)}` has just ended") from None
        try:
            return await in_thread(RunFolder.reopen, record, plan, timing)
        except HermesError:
            if time.monotonic() > ends:
                raise
        await anyio.sleep(timing.control_poll)


def _refuse(given: Sequence[str]) -> None:
    if given:
        names = ", ".join(f"`{name}`" for name in given)
        raise TypeError(f"a plan has its settings already: give {names} to `compile_file`")


def executor_of(plan: Plan) -> Executor:
    """The one that the settings name."""
    # Imported when they are used: most runs need only one
    if plan.settings.executor == "slurm":
        from .executors.slurm.executor import SLURM

        return SLURM
    from .executors.local import LOCAL

    return LOCAL


def _found(
    run: str | FoundRun | None,
    purpose: Purpose,
    root: StrPath | None,
    working_directory: StrPath | None,
) -> tuple[RunRecord, Plan]:
    if not isinstance(run, FoundRun):
        run = finding.find_run(run, purpose, root=root, working_directory=working_directory)
    plan = run.record.plan()
    if not plan.working_directory.is_dir():
        where = escape(str(plan.working_directory))
        raise HermesError(f"the working directory `{where}` of the run is not there")
    # Found now, in a thread: it reads files
    getattr(plan, "warnings")  # noqa: B009
    return run.record, plan


def _forget(folder: RunFolder, left: int) -> None:
    """Lets the run's folder go when it is closed, if all of its jobs are known to have ended."""
    recorded = folder.recorded()
    alive = ["a job with the cluster"] * left + [
        metadata.identifier
        for _, metadata in experiments_of(folder)
        if is_unfinished(metadata, recorded)
    ]
    if alive:
        raise HermesError(
            f"the run `{escape(folder.run_id)}` was not put away: "
            f"`{escape(alive[0])}` may still be alive",
            hint="`hermes stop` again, where its job runs",
        )
    folder.is_forgotten = True


async def _survey(folder: RunFolder, executor: Executor, *, failed: bool) -> Survey:
    held = await executor.held(folder, failed=failed)
    return await in_thread(partial(survey_run, folder, failed=failed, held=held))


def _starts(folder: RunFolder) -> Starts:
    """What the runs of this name tell each other. Opened before the experiments are looked at, so
    that nothing can happen between."""
    try:
        settled = partial(settled_by_others, folder)
        return Starts(folder.experiments, folder.name, folder.run_id, settled)
    except OSError as exc:
        where = escape(str(exc.filename or folder.experiments))
        raise HermesError(f"cannot write to `{where}`: {exc.strerror}") from None


@contextmanager
def _closed_on_error(folder: RunFolder, *, done: bool = False) -> Iterator[None]:
    """Or this process would keep the run's lock."""
    try:
        yield
    except BaseException:
        folder.close(done=done)
        raise
