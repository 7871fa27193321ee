"""Which experiments were removed, so that no run takes their jobs for unfinished ones.

A file for each name, of lines that are appended in one write:

    removed <identifier> <key> settled|again

All functions here block.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .files import open_regular, read_regular, write_all
from .layout import removals_file

SETTLED, AGAIN = "settled", "again"


class Removed(NamedTuple):
    """An experiment that was removed. Unless `again`, its job is not started again by runs that go
    on with what is there."""

    key: str
    again: bool


def write_removals(experiments: str, name: str, keys: Mapping[str, str], *, again: bool) -> None:
    """Writes down that these experiments of a name, with the keys of their jobs, are about to be
    removed. It is on the disk when this returns. Raises `OSError`.

    An experiment that is there all the same counts as not removed.
    """
    path = removals_file(experiments, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    how = AGAIN if again else SETTLED
    lines = [f"removed {identifier} {key} {how}\n" for identifier, key in keys.items()]
    fd = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        # The end of a line that was not written whole
        write_all(fd, "".join(["\n", *lines]).encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def read_removals(experiments: str, name: str) -> dict[str, Removed]:
    """The experiments of a name that were removed, by their identifiers."""
    found = {}
    with contextlib.suppress(OSError):
        text = read_regular(removals_file(experiments, name)).decode("utf-8", "replace")
        for line in text.split("\n")[:-1]:
            match line.split(" "):
                case ["removed", identifier, key, how]:
                    found[identifier] = Removed(key, how == AGAIN)
    return found


def settled_keys(removed: Mapping[str, Removed], there: Iterable[tuple[str, str]]) -> set[str]:
    """The keys of the jobs that are not to be started again: those whose latest experiment was
    removed. `there` are identifiers and keys of the experiments of the name."""
    latest: dict[str, str] = {}
    for identifier, key in there:
        latest[key] = max(identifier, latest.get(key, ""))
    keys: dict[str, str] = {}
    for identifier, (key, _) in removed.items():
        if identifier > max(latest.get(key, ""), keys.get(key, "")):
            keys[key] = identifier
    return {key for key, identifier in keys.items() if not removed[identifier].again}
