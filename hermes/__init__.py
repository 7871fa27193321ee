"""Hermes runs a researcher's jobs from one small text file and never loses or mixes up a result.

    result = await hermes.run_file("example_file.hermes", "test_agents")

The library never prints, configures logging, installs signal handlers, changes the working directory or exits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .errors import HermesError, HermesFileError, Place, PlanError, did_you_mean, escape
    from .events import Event, FileCollected, JobEnded, JobStarted, LogChunk, QueueChanged, RunEnded, RunStarted, RunWarning
    from .executors import Executor
    from .model import Job, Options, Outcome, Status, signal_name
    from .plan import Plan, compile_command, compile_file, quote
    from .query import Experiment, load_experiment
    from .runner import Run, RunResult, open_resumed, open_run, open_stopped, run_file
    from .settings import Settings
    from .store import rerun_command

_HOMES = {
    "errors": ("HermesError", "HermesFileError", "Place", "PlanError", "did_you_mean", "escape"),
    "events": ("Event", "FileCollected", "JobEnded", "JobStarted", "LogChunk", "QueueChanged", "RunEnded", "RunStarted", "RunWarning"),
    "executors": ("Executor",),
    "model": ("Job", "Options", "Outcome", "Status", "signal_name"),
    "plan": ("Plan", "compile_command", "compile_file", "quote"),
    "query": ("Experiment", "load_experiment"),
    "runner": ("Run", "RunResult", "open_resumed", "open_run", "open_stopped", "run_file"),
    "settings": ("Settings",),
    "store": ("rerun_command",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Event", "Executor", "Experiment", "FileCollected", "HermesError", "HermesFileError", "Job", "JobEnded", "JobStarted",
    "LogChunk", "Options", "Outcome", "Place", "Plan", "PlanError",
    "QueueChanged", "Run", "RunEnded", "RunResult", "RunStarted", "RunWarning",
    "Settings", "Status", "compile_command", "compile_file", "did_you_mean", "escape", "load_experiment", "open_resumed", "open_run",
    "open_stopped", "quote", "rerun_command", "run_file", "signal_name",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports a public name's module when it is first used, so that `import hermes` and `hermes --help` stay light."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hermes' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
