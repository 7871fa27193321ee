"""Paths that several jobs copy or move when they end: one may get what another has written."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import escape
from ..model import PLACEHOLDER, PLACEHOLDERS
from .binding import Binding
from .source import Source
from .sweeps import Sweep, Template

FIELDS = {"copy_after": "-ca", "move_after": "-ma"}

OWN = tuple(f"{{{name}}}" for name in PLACEHOLDERS if name != "gpus")
"""What no two jobs have in common that run at the same time."""


def shared_paths(
    bindings: Iterable[Binding], source: Source, working_directory: Path, threads: int
) -> Iterator[str]:
    """A warning for each path that two jobs copy or move after, if they may run at the same time.

    No job is made: jobs and paths are counted by the values of their sweeps.
    """
    if threads == 1:
        return
    told: set[str] = set()
    # Paths without a value of a sweep, with the number of jobs that name them so far
    fixed: dict[str, int] = {}
    for binder, above, values in bindings:
        jobs = _combinations(above, None)
        here: set[str] = set()
        for field, flag in FIELDS.items():
            for template in dict.fromkeys(binder.options.templates(field)):
                path = os.path.normpath(os.path.expanduser(template.fill(values)))
                is_shared = _combinations(above, template) < jobs
                if not template.slots:
                    fixed[path] = fixed.get(path, 0) + (jobs if path not in here else 0)
                    here.add(path)
                    is_shared = fixed[path] > 1
                if not is_shared or path in told or any(own in path for own in OWN):
                    continue
                if field == "copy_after" and _is_there(working_directory, path):
                    # Most likely a file that jobs read
                    continue
                told.add(path)
                place = source.place(template.word.span)
                yield (
                    f"{escape(place.path)}:{place.line}: `{flag} {escape(path)}` is the same file "
                    f"for jobs that run at the same time (threads: {threads}), so one may get what "
                    f"another has written; write {_instead(path)}, and let the script do so too, "
                    "or give each job a directory of its own: `cwd: experiment` in PRE"
                )


def _combinations(above: tuple[Sweep, ...], template: Template | None) -> int:
    """How many jobs the sweeps around an entry yield; how many different paths a template."""
    total = 1
    for sweep in above:
        columns = [c for c in sweep.columns if template is None or c.slot in template.slots]
        sizes = [
            len(column.values)
            if template is None or not isinstance(column.values, tuple)
            else len(set(column.values))
            for column in columns
        ]
        if sweep.in_step:
            total *= max(sizes, default=1)
        else:
            for size in sizes:
                total *= size
    return total


def _is_there(working_directory: Path, path: str) -> bool:
    if os.path.lexists(working_directory / path):
        return True
    return glob.has_magic(path) and any(
        glob.iglob(path, root_dir=working_directory, recursive=True)
    )


def _instead(path: str) -> str:
    if glob.has_magic(path):
        return f"`{PLACEHOLDER}` into the names"
    stem, suffix = os.path.splitext(path)
    return f"`{escape(stem)}_{PLACEHOLDER}{escape(suffix)}`"
