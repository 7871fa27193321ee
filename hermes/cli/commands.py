"""The commands: what the help says of each, and which module has it.

A command is built when it is asked for. To build all of them would take longer than to run a job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from .app import OPTIONS, app

COMMANDS = {
    "exec": ("execute", "Execute a hermes file, or one command."),
    "resume": ("execute", "Go on with an unfinished run."),
    "stop": ("execute", "End a run."),
    "compile": ("execute", "Print the commands of a hermes file."),
    "ls": ("looking", "List experiments."),
    "show": ("looking", "Show all about one experiment."),
    "logs": ("looking", "Print what jobs have printed."),
    "compare": ("comparing", "Compare groups of experiments, or two experiments."),
    "plot": ("comparing", "Draw the curves of a metric."),
    "report": ("reporting", "Write an HTML page about experiments."),
    "export": ("reporting", "Write experiments as CSV, JSON lines or Parquet."),
    "status": ("watching", "Tell which runs are in progress or unfinished."),
    "attach": ("watching", "Look on at a run that goes on elsewhere."),
    "set": ("changing", "Change how many jobs of a run go on at once."),
    "pause": ("changing", "Start no more jobs of a run."),
    "continue": ("changing", "Start jobs of a paused run again."),
    "add": ("changing", "Add the jobs of a hermes file to a run."),
    "rm": ("housekeeping", "Remove experiments."),
    "rerun": ("housekeeping", "Run the job of an experiment again."),
    "create": ("examples", "Write a commented hermes file to start from."),
    "demo": ("examples", "Write a small example and run it."),
    "help": ("main", "Show help for hermes or for one of its commands."),
}
"""The module of each command, and a line of help, in the order in which the help shows them."""


class Commands(TyperGroup):
    """`hermes` as a command that has the others."""

    def __init__(self, **attributes: Any) -> None:
        """`attributes` are those of `TyperGroup`."""
        super().__init__(**attributes)
        # Nobody adds any
        self.commands = cast(MutableMapping[str, Any], Built())

    def list_commands(self, ctx: object) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def format_commands(self, ctx: object, formatter: Any) -> None:
        """Writes the list of the help, for which nothing need be built."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


class Built(Mapping[str, TyperCommand]):
    """The commands by their names."""

    def __init__(self) -> None:
        self._built: dict[str, TyperCommand] = {}

    def __getitem__(self, name: str) -> TyperCommand:
        if name not in self._built:
            module, line = COMMANDS[name]
            import_module(f".{module}", __package__)
            (found,) = (each for each in app.registered_commands if each.name == name)
            found.short_help = line
            alone = typer.Typer(add_completion=False, **OPTIONS)
            alone.registered_commands.append(found)
            self._built[name] = cast(TyperCommand, typer.main.get_command(alone))
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)
