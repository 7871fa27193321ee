"""What a run needs beyond its experiments: a record of its plan, and a lock that says that somebody is at it.

A run's folder `experiments/.hermes/<run id>/` goes when all its jobs have succeeded; what is left of it can be resumed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import HermesError, escape
from .files import write_atomic
from ..language.plan import Plan, from_recipe

FORMAT = 1
"""Version of `run.json`."""

RECORDS = ".hermes"
"""The folder in `experiments/` with what runs need for themselves."""

RECORD = "run.json"
LOCK = "lock"
STOP = "stop"
"""The file in a run's folder that tells whoever is at the run to end it."""


class Record(NamedTuple):
    """A run that has not come to its good end. `recipe` is that of its plan."""

    folder: str
    run_id: str
    name: str
    working_directory: str
    recipe: dict[str, Any]

    def plan(self) -> Plan:
        """The plan of the run, as it was when the run began. Raises `HermesError` if the record is not of this making."""
        try:
            return from_recipe(self.recipe)
        except (KeyError, TypeError, AttributeError) as exc:
            raise HermesError(f"`{escape(self.folder)}/{RECORD}` does not hold a plan: {exc!r}") from None


def write_record(folder: str, run_id: str, name: str, plan: Plan) -> None:
    """Raises `OSError` if that is not possible."""
    data = {"format": FORMAT, "run_id": run_id, "name": name, "recipe": plan.recipe}
    write_atomic(f"{folder}/{RECORD}", json.dumps(data, indent=1).encode(), sync=True)


def read_record(folder: str) -> Record:
    """Raises `HermesError` for a record that is torn, foreign or newer; it is left as it is."""
    path = f"{folder}/{RECORD}"
    try:
        with open(path, "rb") as file:
            data = json.load(file)
        if data["format"] > FORMAT:
            raise HermesError(f"`{escape(path)}` was written by a newer Hermes")
        return Record(folder, data["run_id"], data["name"], data["recipe"]["working_directory"], data["recipe"])
    except OSError as exc:
        raise HermesError(f"cannot read `{escape(path)}`: {exc.strerror}") from None
    except (ValueError, KeyError, TypeError) as exc:
        raise HermesError(f"`{escape(path)}` is not the record of a run: {exc!r}") from None


def unfinished(experiments: str, working_directory: str, wanted: str | None, warn: Callable[[str], None]) -> list[Record]:
    """The runs of this working directory that may be resumed, the latest first.

    `wanted` is a name or a run's id, None for any. Records that cannot be read are told to `warn`.
    """
    records = f"{experiments}/{RECORDS}"
    try:
        names = sorted((entry.name for entry in os.scandir(records) if entry.is_dir(follow_symlinks=False)), reverse=True)
    except OSError:
        return []
    found = []
    for name in names:
        try:
            record = read_record(f"{records}/{name}")
        except HermesError as exc:
            warn(exc.message)
            continue
        if record.working_directory == working_directory and wanted in (None, record.name, record.run_id):
            found.append(record)
    return found


def lock(folder: str) -> int | None:
    """Takes the lock of a run and returns its file descriptor; None if another process has it.

    The lock goes with the process, however that ends. Where the file system has no locks everybody gets it.
    """
    fd = os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        pass
    return fd
