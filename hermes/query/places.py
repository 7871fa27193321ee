"""Where experiment directories are: below which folders, and which folders in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import HermesError
from ..language.settings import absolute, find_root, layered
from ..language.source import Source
from ..model import is_identifier
from ..storage.layout import EXPERIMENTS, METADATA, PART, RUNS
from . import rlmate

DEPTH = 3
"""Folders between one called `experiments` and what is in an experiment: script, name, itself."""


def folders_of(
    root: str | os.PathLike[str] | None,
    working_directory: str | os.PathLike[str] | None,
    warn: Callable[[str], None],
) -> list[str]:
    """The folders below which experiments are looked for.

    Those are `experiments/` in the root and where the root's settings say. A folder that is named
    as root, or the working directory, may itself hold experiments.
    """
    base = Path(os.path.abspath(working_directory or "."))
    home = find_root(base) if root is None else absolute(base, root)
    if root is not None and not home.is_dir():
        raise HermesError(f"there is no folder `{home}`")
    found = [home / EXPERIMENTS]
    try:
        settings = layered(home, Source.of("", b""), (), {}, warn)
        found.append(absolute(home, settings.path_to_experiments) / EXPERIMENTS)
    except HermesError as exc:
        warn(exc.message)
    present = [str(folder) for folder in found if folder.is_dir()]
    if root is None:
        if base.name == EXPERIMENTS or any(is_name(name) for name in _listed(str(base))):
            present.append(str(base))
    elif not present:
        present.append(str(home))
    return list({os.path.realpath(folder): folder for folder in present}.values())


def is_name(name: str) -> bool:
    """Whether an experiment's directory may be called so, ours or rlmate's."""
    return is_identifier(name) or rlmate.is_name(name)


def directories_in(folder: str, warn: Callable[[str], None]) -> Iterator[str]:
    """The directories in a folder that may be experiments', in no order.

    `warn` is told of those that hold metadata and are called something else.
    """
    for inner, names in names_in(folder, warn):
        yield from (f"{inner}/{name}" for name in names)


def names_in(
    folder: str, warn: Callable[[str], None], depth: int = DEPTH
) -> Iterator[tuple[str, list[str]]]:
    """The same, folder by folder."""
    try:
        with os.scandir(folder) as entries:
            folders = [each.name for each in entries if each.is_dir()]
    except OSError:
        return
    names: list[str] = []
    others: list[str] = []
    for name in folders:
        (names if is_name(name) else others).append(name)
    if names:
        yield folder, names
    for name in others:
        path = os.path.join(folder, name)
        if name.endswith(PART):
            # What is being removed
            continue
        if os.path.lexists(f"{path}/{METADATA}"):
            warn(f"the name of `{path}` is no identifier")
        elif depth > 1 and name != RUNS:
            yield from names_in(path, warn, depth - 1)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
