"""The records of runs that can be resumed, and how they are found again.

A record is found where it lies. What it says of folders is relative to that place, so that a run
stays whole when its project is renamed, moved, or mounted elsewhere; the absolute paths are for
people, and for what lies on another disk. All functions here block.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from ..errors import HermesError, escape
from ..language.compiling import from_recipe, recorded_addition
from ..language.plan import Plan, with_threads
from ..language.settings import find_root
from . import layout
from .files import open_regular, read_regular, write_atomic
from .layout import EXPERIMENTS, JOURNAL, LOCK, POINTER, RUN_RECORD, notify_file
from .metadata import decoded, encoded
from .wishes import additions, read_wishes

Warn = Callable[[str], None]

RESERVE = 64 * 1024
"""Bytes that a run keeps, in its lock file, for the final metadata of jobs that end when the disk
is full."""


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in `run.json`. `recipe` is that of the run's plan.

    The relative paths are empty in records of the time before there were any.
    """

    format: int = layout.FORMATS[RUN_RECORD]
    run_id: str
    name: str
    recipe: dict[str, object]
    root_from_experiments: str = ""
    experiments_from_root: str = ""
    working_directory_from_root: str = ""


class PointerFile(msgspec.Struct, frozen=True, kw_only=True):
    """What leads from a project to a run whose experiments are elsewhere.

    `folder`, the run's, and `working_directory` are relative to the folder that holds the
    `experiments/` in which this file lies. `absolute` is the run's folder too.
    """

    format: int = layout.FORMATS[POINTER]
    run_id: str
    folder: str
    absolute: str
    working_directory: str


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has not come to its good end, with the folder in which its record lies.

    All paths are where things are now.
    """

    folder: str
    run_id: str
    name: str
    working_directory: str
    recipe: dict[str, object]

    def plan(self) -> Plan:
        """The plan of the run, as it was when the run began and with what was changed since.

        Raises `HermesError`.
        """
        path = f"{self.folder}/{RUN_RECORD}"
        try:
            plan = from_recipe(self.recipe)
            for addition in additions(self.folder):
                part = recorded_addition(plan, addition.path, addition.text)
                plan = plan.with_added(part)
            plan = _with_notify(plan, self.folder)
            threads = read_wishes(self.folder).threads
            return plan if threads is None else with_threads(plan, threads)
        except (KeyError, TypeError, AttributeError) as exc:
            raise HermesError(f"`{escape(path)}` does not hold a plan: {exc!r}") from None


def write_record(folder: str, run_id: str, name: str, plan: Plan) -> None:
    """Raises `OSError` if that is not possible."""
    root, experiments = str(plan.root), str(plan.experiments)
    record = RunFile(
        run_id=run_id,
        name=name,
        recipe=plan.recipe,
        root_from_experiments=os.path.relpath(root, experiments),
        experiments_from_root=os.path.relpath(experiments, root),
        working_directory_from_root=os.path.relpath(plan.working_directory, root),
    )
    notify = plan.settings.notify
    if notify is not None:
        data = notify.text.encode("utf-8", "surrogateescape")
        write_atomic(notify_file(folder), data, sync=True, mode=0o600)
    write_atomic(f"{folder}/{RUN_RECORD}", encoded(record), sync=True)


def _with_notify(plan: Plan, folder: str) -> Plan:
    """The same plan, which sends word as the run in `folder` does."""
    try:
        text = read_regular(notify_file(folder)).decode("utf-8", "surrogateescape")
        return replace(plan, settings=plan.settings.with_notify(text))
    except FileNotFoundError:
        return plan
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else str(exc)
        where = escape(notify_file(folder))
        return plan.with_warning(f"`notify` sends nothing: cannot read `{where}`: {why}")


def read_record(folder: str, working_directory: str | None = None) -> RunRecord:
    """`working_directory` is that of the run, if it is known from elsewhere.

    Raises `HermesError` for a record that is torn, foreign or newer; it is left as it is.
    """
    path = f"{folder}/{RUN_RECORD}"
    record = _read(path)
    recorded = record.recipe.get("working_directory")
    if not isinstance(recorded, str):
        raise HermesError(f"`{escape(path)}` does not hold a plan: no working directory")
    recipe = _placed(record, os.path.dirname(os.path.dirname(folder)))
    if working_directory is not None and os.path.isdir(working_directory):
        recipe["working_directory"] = working_directory
    return RunRecord(
        folder=folder,
        run_id=record.run_id,
        name=record.name,
        working_directory=str(recipe["working_directory"]),
        recipe=recipe,
    )


def _read(path: str) -> RunFile:
    try:
        data = read_regular(path)
    except OSError as exc:
        raise HermesError(f"cannot read `{escape(path)}`: {exc.strerror}") from None
    return decoded(data, RunFile, file=RUN_RECORD, path=path)


def runs_in(experiments: str, warn: Warn) -> list[RunRecord]:
    """The runs that may be resumed, the latest first: those of this folder, and those to which a
    pointer in it leads.

    What cannot be read, and what was copied, is told to `warn`.
    """
    runs = layout.runs_folder(experiments)
    try:
        with os.scandir(runs) as entries:
            found = sorted(entries, key=lambda entry: entry.name, reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        warn(f"cannot read `{escape(runs)}`: {exc.strerror}")
        return []
    records = []
    for entry in found:
        try:
            if entry.name.endswith(POINTER):
                record = _pointed_to(entry.path, os.path.dirname(experiments))
            elif _is_of_a_run(entry):
                record = read_record(entry.path)
            else:
                continue
            if record is not None:
                _check_original(record)
                records.append(record)
        except HermesError as exc:
            # Unless the run has just ended
            if entry.name.endswith(POINTER) or _is_of_a_run(entry):
                warn(exc.message)
    return records


def _is_of_a_run(entry: os.DirEntry[str]) -> bool:
    """Whether it is the folder of a run: not one that is only being made, or being removed."""
    if entry.name == layout.ENVIRONMENTS or not entry.is_dir(follow_symlinks=False):
        return False
    return any(os.path.lexists(f"{entry.path}/{name}") for name in (RUN_RECORD, JOURNAL))


def leave_pointer(plan: Plan, folder: str, run_id: str) -> None:
    """Leaves word of a run in the working directory's own root, if its experiments are elsewhere.

    Where that root cannot be written to there is no pointer, and the run is found by `--root` and
    by the settings alone.
    """
    home = str(find_root(plan.working_directory))
    if is_same(f"{home}/{EXPERIMENTS}", str(plan.experiments)):
        return
    pointer = PointerFile(
        run_id=run_id,
        folder=os.path.relpath(folder, home),
        absolute=folder,
        working_directory=os.path.relpath(plan.working_directory, home),
    )
    path = layout.pointer(f"{home}/{EXPERIMENTS}", run_id)
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_atomic(path, encoded(pointer), sync=True)


def remove_pointer(plan: Plan, run_id: str) -> None:
    """Takes back what `leave_pointer` has made, in whichever folder that is found from."""
    for home in (plan.working_directory, *plan.working_directory.parents):
        path = layout.pointer(f"{home}/{EXPERIMENTS}", run_id)
        with contextlib.suppress(OSError):
            os.unlink(path)
            # Fails if there is anything else
            os.rmdir(os.path.dirname(path))
            os.rmdir(os.path.dirname(os.path.dirname(path)))


def lock(folder: str) -> int | None:
    """Takes the lock of a run and returns its file descriptor; None if another process has it.

    The lock goes with the process, however that ends. Where the file system has no locks everybody
    gets it. Raises `OSError`.
    """
    fd = open_regular(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        pass
    return fd


def keep_room(locked: int) -> None:
    """Keeps the reserve, in the lock file. Raises `OSError`."""
    os.pwrite(locked, bytes(RESERVE), 0)


def is_locked(folder: str) -> bool:
    """Whether a process executes a run. False where that cannot be found out."""
    try:
        fd = open_regular(f"{folder}/{LOCK}", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def is_same(one: str, other: str) -> bool:
    """Whether two paths lead to the same file, however they are written or mounted."""
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False


def _placed(record: RunFile, experiments: str) -> dict[str, object]:
    """The recipe of a run whose experiments are in `experiments` now."""
    recipe = dict(record.recipe)
    recorded = str(recipe.get("root"))
    if not record.root_from_experiments:
        return recipe
    near = os.path.normpath(f"{experiments}/{record.root_from_experiments}")
    # The near one comes first: after a move the old path may be another project's. It is wrong
    # where the experiments were reached by a link and are not now
    root = near
    for each in (near, recorded):
        if is_same(os.path.join(each, record.experiments_from_root), experiments):
            root = each
            break
    recipe["root"] = root
    moved = os.path.normpath(f"{root}/{record.working_directory_from_root}")
    if os.path.isdir(moved):
        recipe["working_directory"] = moved
    settings = recipe.get("settings")
    if isinstance(settings, dict):
        place = os.path.join(root, os.path.expanduser(str(settings.get("path_to_experiments"))))
        if not is_same(os.path.join(place, EXPERIMENTS), experiments):
            # An absolute path, from before a move
            path = os.path.relpath(os.path.dirname(experiments), root)
            recipe["settings"] = {**settings, "path_to_experiments": path}
    return recipe


def _pointed_to(path: str, home: str) -> RunRecord | None:
    """The run to which a pointer leads; None if it is done."""
    try:
        data = read_regular(path)
    except OSError as exc:
        raise HermesError(f"cannot read `{escape(path)}`: {exc.strerror}") from None
    pointer = decoded(data, PointerFile, file=POINTER, path=path)
    for folder in (os.path.normpath(f"{home}/{pointer.folder}"), pointer.absolute):
        if os.path.exists(f"{folder}/{RUN_RECORD}"):
            return read_record(folder, os.path.normpath(f"{home}/{pointer.working_directory}"))
    if os.path.isdir(os.path.dirname(pointer.absolute)):
        return None
    raise HermesError(
        f"the run `{escape(pointer.run_id)}` is in `{escape(pointer.absolute)}`, "
        "which is not there now"
    )


def _check_original(record: RunRecord) -> None:
    """Raises `HermesError` if a record was copied, and what it was copied from is still there.

    The jobs of a copy would be those of the original.
    """
    if os.path.basename(record.folder) != record.run_id:
        raise HermesError(
            f"`{escape(record.folder)}` is left out: it holds the record of the run "
            f"`{escape(record.run_id)}`"
        )
    here = f"{record.folder}/{RUN_RECORD}"
    data = _read(here)
    settings = data.recipe.get("settings")
    if not data.experiments_from_root or not isinstance(settings, dict):
        return
    root = str(data.recipe.get("root"))
    there = layout.run_folder(
        os.path.normpath(os.path.join(root, data.experiments_from_root)), record.run_id
    )
    try:
        # Not the device: one file system may be mounted twice
        is_copy = _mark(here) != _mark(f"{there}/{RUN_RECORD}")
    except OSError:
        return
    if is_copy:
        raise HermesError(
            f"`{escape(record.folder)}` is left out: it is a copy of the run in `{escape(there)}`"
        )


def _mark(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size
