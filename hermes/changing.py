"""What programs call to find a run that another process executes, and to change it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import anyio

from .blocking import in_thread
from .errors import HermesError, escape
from .run import finding
from .run.adding import added_to
from .run.finding import FoundRun, Purpose
from .storage.run_record import is_locked
from .storage.wishes import count_taken, is_taken_in, want_jobs, want_pause, want_threads
from .timing import TIMING, Timing

StrPath = str | os.PathLike[str]


async def find_run(
    run: str | None = None,
    *,
    purpose: Purpose | str = Purpose.RESUME,
    root: StrPath | None = None,
    working_directory: StrPath | None = None,
) -> FoundRun:
    """The run that `open_resumed` (`purpose` is "resume"), or `open_stopped` ("stop", or "forget")
    would take, and what else there is. They take it in place of a name or an id.

    `run` is a name, an id, or a part of an id that only one run has. Raises `HermesError` if there
    is no such run, or if several could be meant.
    """
    find = partial(finding.find_run, root=root, working_directory=working_directory)
    return await in_thread(find, run, Purpose(purpose))


async def change_run(
    run: str | FoundRun | None = None,
    *,
    threads: int | None = None,
    is_paused: bool | None = None,
    root: StrPath | None = None,
    working_directory: StrPath | None = None,
    timing: Timing = TIMING,
) -> FoundRun:
    """Changes the latest run of the working directory that is in progress, or that of the name or
    id `run`: how many jobs go on at once, and whether more are started. Jobs that run go on.

    Returns the run when its process has taken that in, within half a second. It holds for a resumed
    run too, so one that nobody executes can be changed by its name or id. Raises `HermesError` if
    there is no such run.
    """
    if threads is not None and threads < 1:
        raise HermesError(f"`threads` has to be at least 1, not {threads}")
    found = await _found(run, root, working_directory)
    try:
        if threads is not None:
            await in_thread(want_threads, found.record.folder, threads)
        if is_paused is not None:
            await in_thread(want_pause, found.record.folder, is_paused)
    except OSError as exc:
        raise _not_changed(found, exc) from None
    await _until_taken_in(found.record.folder, partial(is_taken_in, found.record.folder), timing)
    return found


async def add_to_run(
    file: StrPath,
    run: str | FoundRun | None = None,
    *,
    root: StrPath | None = None,
    working_directory: StrPath | None = None,
    timing: Timing = TIMING,
) -> int:
    """Adds the jobs of a hermes file at the end of the latest run that is in progress, or of that
    of the name or id `run`. They run where its other jobs do, and with its settings.

    Returns how many jobs were added, when the run's process has taken them in; where nobody
    executes the run they wait for whoever resumes it. Raises `HermesError` if the file or its jobs
    cannot be used, and if the run has ended meanwhile: nothing is added then.
    """
    found = await _found(run, root, working_directory)
    plan = await in_thread(found.record.plan)
    folder = found.record.folder
    addition, count = await in_thread(added_to, plan, found.name, file, folder)
    try:
        number = await in_thread(want_jobs, folder, addition)
    except OSError as exc:
        raise _not_changed(found, exc) from None
    await _until_taken_in(folder, lambda: count_taken(folder) >= number, timing)
    if not await in_thread(os.path.isdir, folder):
        # Taken in and done already, or too late: the experiments tell
        raise HermesError(
            f"the run `{escape(found.run_id)}` has just ended; the jobs may not have been added",
            hint=f"`hermes exec --resume -f {escape(os.fspath(file))} -n {escape(found.name)}` runs"
            " those that were not",
        )
    return count


async def _until_taken_in(folder: str, is_taken_in: Callable[[], bool], timing: Timing) -> None:
    """Waits for the process of a run, if there is one that answers."""
    ends = time.monotonic() + timing.takeover
    while not await in_thread(is_taken_in):
        is_there = await in_thread(os.path.isdir, folder) and await in_thread(is_locked, folder)
        if not is_there or time.monotonic() > ends:
            return
        await anyio.sleep(timing.control_poll / 4)


async def _found(
    run: str | FoundRun | None, root: StrPath | None, working_directory: StrPath | None
) -> FoundRun:
    if isinstance(run, FoundRun):
        return run
    return await find_run(
        run, purpose=Purpose.CHANGE, root=root, working_directory=working_directory
    )


def _not_changed(run: FoundRun, error: OSError) -> HermesError:
    if not os.path.isdir(run.record.folder):
        return HermesError(f"the run `{escape(run.run_id)}` has just ended")
    return HermesError(f"cannot write to `{escape(run.record.folder)}`: {error.strerror}")
