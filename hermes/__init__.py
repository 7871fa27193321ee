"""Hermes runs a researcher's jobs from one small text file and never loses or mixes up a result.

    result = await hermes.run_file("example_file.hermes", "test_agents")

The library never prints, configures logging, installs signal handlers, changes the working
directory or exits.

The map, in the order in which data flows; each part imports only from those above it:

    errors model events timing blocking    what all others share
    language/       text -> jobs: hermes files, settings, sweeps, checks
    storage/        what is on the disk: directories, metadata, identifiers, provenance
    query/          what came of experiments: columns, filters, metrics, statistics
    gpus/           the GPUs of this machine, who gets which, what other runs hold
    collection/     files whose names carry an identifier; copies and moves
    executors/      one job, from its start to its final metadata: local, slurm, fake
    run/            which job runs when, and what is told of it
    show/           runs as text for people
    following       what jobs print, whoever executes them: follow_logs
    removing        experiments that go: plan_removal
    rerunning       the job of an experiment again: plan_rerun, open_rerun
    attaching       looking on at a run that another process executes: open_attached
    changing        a run that another process executes: find_run, change_run, add_to_run
    api             run_file, open_run, open_resumed, open_stopped
    cli/            the command, a user of the public names

The life of a job can be read from top to bottom in `run/runner.py` (`_run_job`) and
`executors/local.py` (`LocalPlace.job`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import open_resumed, open_run, open_stopped, run_file
    from .attaching import AttachedRun, open_attached
    from .changing import add_to_run, change_run, find_run
    from .errors import HermesError, HermesFileError, Place, PlanError, did_you_mean, escape
    from .events import (
        Event,
        FileCollected,
        JobEnded,
        JobStarted,
        LogChunk,
        QueueChanged,
        RunChanged,
        RunEnded,
        RunStanding,
        RunStarted,
        RunWarning,
    )
    from .executors.base import Executor
    from .following import follow_logs
    from .language.compiling import compile_command, compile_file, compile_text
    from .language.plan import Plan
    from .language.settings import SETTINGS, PlanArguments, Setting, SettingArguments, Settings
    from .language.writing import quote
    from .model import (
        Job,
        Options,
        Outcome,
        Problem,
        ProblemKind,
        RunResult,
        Status,
        signal_name,
    )
    from .query.comparing import Comparison
    from .query.differences import Differences, differences
    from .query.found import Experiments, FoundExperiment, experiments
    from .query.lookup import (
        experiment_directories,
        find_experiment,
        find_experiments,
        short_names,
    )
    from .removing import Removal, Removed, finish_removals, plan_removal
    from .rerunning import Rerun, open_rerun, plan_rerun
    from .run.notify import FailedJob, RunMessage
    from .run.runner import Run
    from .run.status import (
        FinishedRun,
        JobStatus,
        Runs,
        RunState,
        RunStatus,
        finished_run,
        run_status,
        runs,
    )
    from .show.drawing import write_plot
    from .show.export import write_export
    from .show.report import write_report
    from .storage.query import Experiment, load_experiment
    from .storage.writer import rerun_command

_HOMES = {
    "errors": ("HermesError", "HermesFileError", "Place", "PlanError", "did_you_mean", "escape"),
    "events": (
        "Event",
        "FileCollected",
        "JobEnded",
        "JobStarted",
        "LogChunk",
        "QueueChanged",
        "RunChanged",
        "RunEnded",
        "RunStanding",
        "RunStarted",
        "RunWarning",
    ),
    "api": ("open_resumed", "open_run", "open_stopped", "run_file"),
    "attaching": ("AttachedRun", "open_attached"),
    "changing": ("add_to_run", "change_run", "find_run"),
    "executors.base": ("Executor",),
    "following": ("follow_logs",),
    "model": (
        "Job",
        "Options",
        "Outcome",
        "Problem",
        "ProblemKind",
        "RunResult",
        "Status",
        "signal_name",
    ),
    "language.compiling": ("compile_command", "compile_file", "compile_text"),
    "language.plan": ("Plan",),
    "language.settings": (
        "SETTINGS",
        "PlanArguments",
        "Setting",
        "SettingArguments",
        "Settings",
    ),
    "language.writing": ("quote",),
    "query.comparing": ("Comparison",),
    "query.differences": ("Differences", "differences"),
    "query.found": ("Experiments", "FoundExperiment", "experiments"),
    "query.lookup": (
        "experiment_directories",
        "find_experiment",
        "find_experiments",
        "short_names",
    ),
    "storage.query": ("Experiment", "load_experiment"),
    "run.finding": ("FoundRun",),
    "run.notify": ("FailedJob", "RunMessage"),
    "removing": ("Removal", "Removed", "finish_removals", "plan_removal"),
    "rerunning": ("Rerun", "open_rerun", "plan_rerun"),
    "run.runner": ("Run",),
    "show.drawing": ("write_plot",),
    "show.export": ("write_export",),
    "run.status": (
        "FinishedRun",
        "finished_run",
        "JobStatus",
        "RunState",
        "RunStatus",
        "Runs",
        "run_status",
        "runs",
    ),
    "show.report": ("write_report",),
    "storage.writer": ("rerun_command",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "SETTINGS", "AttachedRun", "Comparison", "Differences", "Event", "Executor", "Experiment",
    "Experiments", "FailedJob", "FileCollected", "FinishedRun", "FoundExperiment", "FoundRun",
    "HermesError", "HermesFileError", "Job", "JobEnded", "JobStarted", "JobStatus", "LogChunk",
    "Options", "Outcome", "Place", "Plan", "PlanArguments", "PlanError", "Problem",
    "ProblemKind", "QueueChanged", "Removal", "Removed", "Rerun", "Run", "RunChanged",
    "RunEnded", "RunMessage", "RunResult", "RunStanding", "RunStarted", "RunState", "RunStatus",
    "RunWarning", "Runs", "Setting", "SettingArguments", "Settings", "Status", "add_to_run",
    "change_run", "compile_command", "compile_file", "compile_text", "did_you_mean",
    "differences", "escape", "experiment_directories", "experiments", "find_experiment",
    "find_experiments", "find_run", "finish_removals", "finished_run", "follow_logs",
    "load_experiment", "open_attached", "open_rerun", "open_resumed", "open_run",
    "open_stopped", "plan_removal", "plan_rerun", "quote", "rerun_command", "run_file",
    "run_status", "runs", "short_names", "signal_name", "write_export", "write_plot",
    "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports a public name's module when it is first used.

    So `import hermes` and `hermes --help` stay light.
    """
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hermes' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
