"""Adding jobs to a run: they are checked before anybody is told of them."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec.structs import replace

from ..language.compiling import compile_addition
from ..language.plan import Plan
from ..storage.frozen import load_frozen
from ..storage.wishes import Addition
from .gpus import find_for


def added_to(
    plan: Plan, name: str, file: str | os.PathLike[str], run_folder: str
) -> tuple[Addition, int]:
    """What is to be added to a run of this plan and name, and how many jobs that are: those of a
    hermes file. Blocks.

    Raises `HermesError` if they cannot be executed, as without a script that is not in the frozen
    code of the run.
    """
    part = compile_addition(plan, file)
    frozen = load_frozen(run_folder, str(plan.working_directory))
    there = part
    if frozen is not None:
        there = replace(part, working_directory=Path(frozen.working_directory))
    there.check(name)
    if plan.settings.executor == "local":
        find_for(part)
    return Addition(path=part.path, text=part.text), part.count
