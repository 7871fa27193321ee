"""Running the job of an experiment again: `plan_rerun` and `open_rerun`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Unpack

import msgspec

from .api import executor_of, open_plan
from .blocking import in_thread
from .errors import HermesError, escape
from .language.compiling import compile_again, recorded_place
from .language.plan import Plan
from .language.settings import PlanArguments, find_root
from .run.news import FollowLogs
from .run.options import RunOptions
from .run.runner import Run
from .storage.code_then import CodeThen, code_then
from .storage.files import read_regular
from .storage.layout import RE_EXECUTION
from .storage.metadata import Metadata
from .storage.query import Experiment
from .storage.untracked_then import untracked_then
from .timing import TIMING, Timing

CODES = ("now", "then")
"""Which code a job can be run with again."""


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """The job of an experiment, to be run again. `plan` has this one job, `name` groups what comes
    of it, and `told` says what is changed, line by line."""

    experiment: Experiment
    plan: Plan
    name: str
    told: tuple[str, ...]
    with_code_of_then: bool = False


def plan_rerun(
    experiment: Experiment,
    changes: Mapping[str, object] | None = None,
    *,
    name: str | None = None,
    comments: Sequence[str] = (),
    code: str = "now",
    **settings: Unpack[PlanArguments],
) -> Rerun:
    """Compiles the job of an experiment once more, with parameters or arguments changed.

        rerun = hermes.plan_rerun(hermes.find_experiment("160008326976"), {"lr": 0.1})
        async with hermes.open_rerun(rerun) as run:
            ...

    A name in `changes` is that of a parameter, else that of an argument without its dashes. The
    settings are those that were in force then, but for `settings`; the working directory is that of
    then, and the name too, if no other is given. The job is run with the `code` of `now` or of
    `then`. Blocks. Raises `HermesError`.
    """
    directory, metadata = str(experiment.directory), experiment.metadata
    path = f"{directory}/{RE_EXECUTION}"
    if code not in CODES:
        raise HermesError(f"the code is that of `now` or of `then`, not of `{escape(code)}`")
    try:
        text = read_regular(path).decode("utf-8", "surrogateescape")
    except OSError as exc:
        raise HermesError(
            f"`{escape(directory)}` cannot be run again: {exc.strerror}: `{RE_EXECUTION}`"
        ) from None
    if code == "then":
        # What is put together is to the run what it would have frozen itself
        settings["freeze"] = True
    here = _working_directory(directory, metadata, recorded_place(text))
    plan, told = compile_again(
        text,
        path,
        working_directory=here,
        root=_root(here, metadata),
        rerun_of=metadata.identifier,
        changes={key: _as_text(value) for key, value in (changes or {}).items()},
        comments=comments,
        **settings,
    )
    return Rerun(
        experiment=experiment,
        plan=plan,
        name=name or metadata.name,
        told=told,
        with_code_of_then=code == "then",
    )


@asynccontextmanager
async def open_rerun(
    rerun: Rerun,
    *,
    follow_logs: FollowLogs = "all",
    follow_files: bool = True,
    timing: Timing = TIMING,
) -> AsyncIterator[Run]:
    """Runs the job while the block runs; otherwise as `open_run`.

    With the code of then, that is put together in the folder of the run first. Raises `HermesError`
    if it cannot be restored.
    """
    then: CodeThen | None = None
    told: tuple[str, ...] = ()
    if rerun.with_code_of_then:
        then, told = await in_thread(_code_then, rerun, timing.freeze)
    options = RunOptions(
        grace=None, follow_logs=follow_logs, follow_files=follow_files, timing=timing
    )
    place = executor_of(rerun.plan)
    async with open_plan(rerun.plan, rerun.name, place, options, then=then) as run:
        for line in told:
            run.warn(line)
        yield run


def _code_then(rerun: Rerun, limit: float) -> tuple[CodeThen, tuple[str, ...]]:
    """The code of then, and what people should know of it."""
    directory, metadata = str(rerun.experiment.directory), rerun.experiment.metadata
    then = code_then(directory, metadata, rerun.plan.working_directory, limit)
    untracked = untracked_then(then, metadata, rerun.plan, limit)
    return then._replace(untracked=untracked.files), untracked.told


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _working_directory(directory: str, metadata: Metadata, place: str | None) -> Path:
    """That of the job, wherever the project is by now."""
    near = os.path.normpath(f"{os.path.realpath(directory)}/{place}") if place else ""
    for folder in (near, metadata.working_directory):
        if folder and os.path.isdir(folder):
            return Path(folder)
    where = escape(metadata.working_directory)
    raise HermesError(f"the working directory `{where}` of the experiment is not there")


def _root(here: Path, metadata: Metadata) -> Path:
    """That of the experiment, which a call may have given."""
    way = os.path.relpath(metadata.root, metadata.working_directory)
    root = Path(os.path.normpath(here / way))
    return root if root.is_dir() else find_root(here)
