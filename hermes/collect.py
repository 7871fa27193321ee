"""Collection: every file or directory whose name carries a live identifier gets into that job's experiment directory.

Notifications make it quick, a final look at the tree makes it complete. While a job runs its files are hard-linked, so the
job goes on with them undisturbed; when it has ended, its own names for them are taken away.

All of this blocks: `Collector.watch` occupies one worker thread for the whole run, `Collector.finish` is called in another.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .files import NO_LINKS, PART, free_name, kind_of, lstat, move, real_folder, size_of
from .model import IDENTIFIER

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

NOT_SEARCHED = frozenset({".git", "node_modules"})
"""Directories that are never searched, beside `experiments/` and virtual environments (known by their `pyvenv.cfg`)."""

SETTLED_NS = 2_000_000_000
"""A directory's entries are remembered once its modification time is this old: the time stamps of file systems
are coarse (2 s on FAT), so within this time an entry may be added without a new stamp."""

MAX_WATCHES = 8192
"""Directories that are watched; the system's default limit is 8,192 on small machines, for all programs of a user together.
The rest of a larger tree is looked at twice a second."""

STEP_MS = 10
DEBOUNCE_MS = 50
LOOK_MS = 500
"""A batch of notifications ends after a quiet `STEP_MS`, at the latest after `DEBOUNCE_MS`: 15 ms from a file's creation to
its link, where the defaults of watchfiles (50 and 1600 ms) take 84 ms. `LOOK_MS` is the pause between two looks at what
cannot be watched."""

Key = tuple[int, int] | str
"""What a path held when it was collected: device and inode of a file, target of a link."""


@dataclass(slots=True)
class Link:
    """Something collected: what it was, and where it is below the experiment directory."""

    key: Key
    stored: str
    inherited: bool = False
    """Collected by an earlier runner: that the job's own file is missing does not mean that the job has deleted it."""


@dataclass(slots=True)
class Claim:
    """A live job's right to everything that carries its identifier."""

    identifier: str
    directory: str
    links: dict[str, Link] = field(default_factory=dict)
    """What is in both places, by path relative to the working directory."""

    taken: list[str] = field(default_factory=list)
    """What is in the experiment directory alone, by path relative to that."""

    seen: set[str] = field(default_factory=set)
    """Paths whose last part carries the identifier, found so far."""

    told: set[str] = field(default_factory=set)
    fresh: list[str] = field(default_factory=list)
    """Paths that have come in and were not announced yet."""

    problems: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Folder:
    """What a directory held when it was last read."""

    stamp: tuple[int, int, int]
    read_at: int


class Collector:
    """Collects for all jobs of one run below one working directory.

    `on_files` is called from the watching thread with `(identifier, relative path)` pairs, `on_warning` at most once.
    """

    def __init__(
        self,
        working_directory: str,
        experiments: str,
        on_files: Callable[[list[tuple[str, str]]], object],
        on_warning: Callable[[str], object],
    ) -> None:
        self.top = working_directory
        self._excluded = os.path.realpath(experiments)
        self._on_files = on_files
        self._on_warning = on_warning
        self._lock = threading.Lock()
        self._claims: dict[str, Claim] = {}
        self._contested: set[str] = set()
        self._folders: dict[str, _Folder] = {}
        self._watchable: set[str] = set()
        self._grown = False
        self._budget = MAX_WATCHES
        self._stop = threading.Event()

    # Jobs come and go

    def add(self, identifier: str, directory: str, *, adopted: bool = False) -> None:
        """From now on what carries `identifier` belongs into `directory`.

        With `adopted`, what carries it there already was collected by an earlier runner.
        """
        claim = Claim(identifier, directory)
        if adopted:
            claim.links = dict(_inherited(claim))
        with self._lock:
            self._claims[identifier] = claim

    def finish(self, identifiers: Sequence[str]) -> dict[str, Claim]:
        """The final look for jobs that have ended: what they left is in their directories afterwards, and nowhere else.

        One look serves them all. Files that nobody was told about yet are in `Claim.fresh`.
        """
        with self._lock:
            self._look()
            for identifier in identifiers:
                claim = self._claims[identifier]
                for path in sorted(claim.seen | claim.links.keys(), key=lambda path: path.count("/")):
                    self._take(claim, path)
            return {identifier: self._claims.pop(identifier) for identifier in identifiers}

    def owned(self, identifier: str, path: str) -> bool:
        """Whether `path`, relative to the working directory, will be collected under the same path anyway."""
        with self._lock:
            claim = self._owner(path)
            return claim is not None and claim.identifier == identifier

    # Watching

    def stop(self) -> None:
        """Makes `watch` return, within `STEP_MS`."""
        self._stop.set()

    def watch(self) -> None:
        """Collects as files appear, until `stop`. Nothing is lost if this fails or misses something: then it comes later."""
        from watchfiles._rust_notify import RustNotify

        watcher: RustNotify | None = None
        with self._lock:
            self._look()
        while not self._stop.is_set():
            began = time.monotonic()
            folders, whole = self._to_watch()
            try:
                successor = RustNotify(folders, False, False, 0, False, True)
            except Exception as exc:
                self._cannot_watch(exc)
                continue
            if watcher is not None:
                self._drain(watcher)
            watcher = successor
            # What came between the last look and the new watches
            self._look_again()
            if not self._follow(watcher, whole, 4 * (time.monotonic() - began)):
                watcher = None
        if watcher is not None:
            watcher.close()

    def _cannot_watch(self, exc: Exception) -> None:
        """A directory has just gone, or the limit of watches is reached: then fewer are watched, in the end none."""
        with self._lock:
            gone = {folder for folder in self._watchable if not os.path.isdir(self._absolute(folder))}
            self._watchable -= gone
            for folder in gone:
                self._folders.pop(folder, None)
        if not gone:
            if self._budget == MAX_WATCHES:
                self._on_warning(f"not all directories can be watched, files may be collected later: {exc}")
            self._budget //= 2
            if self._budget == 0:
                while not self._stop.wait(LOOK_MS / 1000):
                    self._look_again()

    def _follow(self, watcher: RustNotify, whole: bool, pause: float) -> bool:
        """Handles notifications until other directories have to be watched. False if the watcher is of no more use."""
        # Setting new watches takes its time in a large tree; it must not take all of it
        not_before = time.monotonic() + min(pause, 1.0)
        next_look = time.monotonic() + LOOK_MS / 1000
        while not self._stop.is_set():
            try:
                changes = watcher.watch(DEBOUNCE_MS, STEP_MS, LOOK_MS, self._stop)
            except Exception:
                # One name that is not UTF-8 and it raises for ever
                with contextlib.suppress(Exception):
                    watcher.close()
                return False
            if isinstance(changes, set):
                self._handle({path for _, path in changes})
            if not whole and time.monotonic() >= next_look:
                self._look_again()
                next_look = time.monotonic() + LOOK_MS / 1000
            if self._grown and whole and time.monotonic() >= not_before:
                break
        return True

    def _drain(self, watcher: RustNotify) -> None:
        """Takes what an outgoing watcher still holds."""
        with contextlib.suppress(Exception):
            changes = watcher.watch(1, 1, 1, None)
            if isinstance(changes, set):
                self._handle({path for _, path in changes})
        with contextlib.suppress(Exception):
            watcher.close()

    def _to_watch(self) -> tuple[list[str], bool]:
        """The directories to watch, those near the top first, and whether these are all."""
        with self._lock:
            self._grown = False
            folders = sorted(filter(_is_utf8, self._watchable), key=lambda folder: (folder.count("/"), folder))
            whole = len(folders) == len(self._watchable) and len(folders) <= self._budget
            return [self._absolute(folder) for folder in folders[: self._budget]], whole

    def _look_again(self) -> None:
        with self._lock:
            self._look()
        self._announce()

    def _announce(self) -> None:
        with self._lock:
            fresh = [(claim.identifier, path) for claim in self._claims.values() for path in claim.fresh]
            for claim in self._claims.values():
                claim.fresh.clear()
        if fresh:
            self._on_files(fresh)

    def _handle(self, paths: set[str]) -> None:
        """Looks at the places of some notifications; what they say happened is not relied upon."""
        start = len(self.top) + 1
        with self._lock:
            # What is there before what is gone: a renamed file is linked under its new name first
            gone: list[str] = []
            for absolute in paths:
                path = absolute[start:]
                if path and not self._notice(path):
                    gone.append(path)
            for path in gone:
                self._vanished(path)
        self._announce()

    def _notice(self, path: str) -> bool:
        """Looks at one path; False if nothing is there."""
        status = lstat(self._absolute(path))
        if status is None:
            return False
        claim = self._owner(path)
        if claim is not None:
            self._follow_entry(claim, path, status)
        elif stat.S_ISDIR(status.st_mode) and path not in self._folders and self._searched(path):
            self._look_below(path)
        return True

    def _vanished(self, path: str) -> None:
        claim = self._owner(path)
        if claim is None:
            return
        below = f"{path}/"
        for each in [each for each in claim.links if each == path or each.startswith(below)]:
            self._drop(claim, each)

    # Who owns what

    def _owner(self, path: str) -> Claim | None:
        """The live job whose identifier stands nearest to the end of `path`; None too where two stand in one name."""
        if not self._claims:
            return None
        for part in reversed(path.split("/")):
            claims = self._claims_in(part)
            if len(claims) == 1 and not self._is_contested(path):
                return claims[0]
            if claims:
                self._contested.add(path)
                for claim in claims:
                    claim.problems[f"`{path}` carries two live identifiers, it was left where it is"] = None
                return None
        return None

    def _is_contested(self, path: str) -> bool:
        # Contested stays contested: when one of two owners ends, the other must not get the file
        return bool(self._contested) and any(path == each or path.startswith(f"{each}/") for each in self._contested)

    def _claims_in(self, name: str) -> list[Claim]:
        if len(name) < 29:
            return []
        found = {match[1] for match in IDENTIFIER.finditer(name)}
        return [self._claims[identifier] for identifier in sorted(found) if identifier in self._claims]

    def _absolute(self, path: str) -> str:
        return f"{self.top}/{path}" if path else self.top

    # Looking at the tree

    def _look(self) -> None:
        """Finds what carries a live identifier. Directories that have not changed since they were read are not read again."""
        if "" not in self._folders:
            self._look_below("")
            return
        for path, known in list(self._folders.items()):
            try:
                status = os.lstat(self._absolute(path))
            except OSError:
                self._folders.pop(path, None)
                self._watchable.discard(path)
                continue
            if (status.st_dev, status.st_ino, status.st_mtime_ns) != known.stamp or known.read_at - status.st_mtime_ns < SETTLED_NS:
                self._look_below(path)

    def _look_below(self, start: str) -> None:
        """Reads a directory, and those below it that are not known yet."""
        pending = [start]
        while pending:
            path = pending.pop()
            names, folders = self._read(path)
            for name in names:
                below = f"{path}/{name}" if path else name
                claim = self._owner(below)
                status = lstat(self._absolute(below)) if claim is not None else None
                if claim is not None and status is not None:
                    claim.seen.add(below)
                    self._follow_entry(claim, below, status)
            pending += [folder for folder in folders if folder not in self._folders]

    def _read(self, path: str) -> tuple[list[str], list[str]]:
        """The names in a directory that carry an identifier, and the directories in it that are to be searched."""
        marked: list[str] = []
        folders: list[str] = []
        absolute = self._absolute(path)
        try:
            status = os.lstat(absolute)
            read_at = time.time_ns()
            with os.scandir(absolute) as entries:
                for entry in entries:
                    name = entry.name
                    if name == "pyvenv.cfg":
                        marked, folders = [], []
                        break
                    if len(name) >= 29 and IDENTIFIER.search(name):
                        marked.append(name)
                        if self._claims_in(name):
                            continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{path}/{name}" if path else name)
        except OSError:
            # Gone, or not ours to read
            self._folders.pop(path, None)
            self._watchable.discard(path)
            return [], []
        folders = [folder for folder in folders if self._searched(folder)]
        self._folders[path] = _Folder((status.st_dev, status.st_ino, status.st_mtime_ns), read_at)
        self._watch_too(path)
        return marked, folders

    def _watch_too(self, path: str) -> None:
        if path not in self._watchable:
            self._watchable.add(path)
            self._grown = True

    def _searched(self, path: str) -> bool:
        if os.path.basename(path) in NOT_SEARCHED:
            return False
        absolute = self._absolute(path)
        return not (os.path.basename(absolute) == os.path.basename(self._excluded) and os.path.realpath(absolute) == self._excluded)

    # Following what a running job does

    def _follow_entry(self, claim: Claim, path: str, status: os.stat_result) -> None:
        """Makes the experiment directory hold what `path` holds now."""
        if os.path.basename(path) and self._claims_in(os.path.basename(path)):
            claim.seen.add(path)
        try:
            if stat.S_ISDIR(status.st_mode):
                self._mirror(claim, path)
            elif stat.S_ISREG(status.st_mode):
                self._link(claim, path, (status.st_dev, status.st_ino))
            elif stat.S_ISLNK(status.st_mode):
                self._link(claim, path, os.readlink(self._absolute(path)))
        except FileNotFoundError:
            # It was there a moment ago; whoever took it away caused the next notification
            return
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                claim.problems[f"`{path}` could not be collected: {exc.strerror}"] = None

    def _mirror(self, claim: Claim, path: str) -> None:
        """A directory of the job, with all that is in it."""
        if not real_folder(claim.directory, path):
            raise OSError(errno.ENOTDIR, "its place in the experiment directory is taken")
        self._tell(claim, path)
        # Watched before it is read, or what is made in between would be seen by neither
        self._watch_too(path)
        for below, status in self._below(path):
            owner = self._owner(below)
            if owner is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                real_folder(owner.directory, below)
                self._tell(owner, below)
                self._watch_too(below)
            else:
                self._follow_entry(owner, below, status)

    def _below(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """Everything below a directory, directories before what is in them; any depth, no link followed."""
        pending = [path]
        while pending:
            folder = pending.pop()
            for name in _names(self._absolute(folder)):
                status = lstat(f"{self._absolute(folder)}/{name}")
                if status is not None:
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(f"{folder}/{name}")
                    yield f"{folder}/{name}", status

    def _link(self, claim: Claim, path: str, key: Key) -> None:
        known = claim.links.get(path)
        if known is not None and known.key == key:
            return
        source = self._absolute(path)
        if not real_folder(claim.directory, os.path.dirname(path)):
            raise OSError(errno.ENOTDIR, "its place in the experiment directory is taken")
        target = f"{claim.directory}/{known.stored if known else path}"
        if known is None:
            target = self._place(source, target, key)
        else:
            temporary = free_name(f"{target}{PART}")
            _hard_link(source, temporary, key)
            os.replace(temporary, target)
        claim.links[path] = Link(_key_of(target, key), os.path.relpath(target, claim.directory))
        self._tell(claim, path)

    def _place(self, source: str, target: str, key: Key) -> str:
        """Links `source` to `target`, or beside it where something else already is."""
        there = lstat(target)
        if there is not None and (there.st_dev, there.st_ino) == key:
            return target
        while True:
            free = free_name(target)
            # Somebody else may take the name in between
            with contextlib.suppress(FileExistsError):
                _hard_link(source, free, key)
                return free

    def _drop(self, claim: Claim, path: str) -> None:
        """The job has deleted its file: it goes here too, at once, or rotating checkpoints would fill the disk."""
        if lstat(self._absolute(path)) is not None:
            return
        link = claim.links.pop(path)
        if link.inherited:
            claim.taken.append(link.stored)
            return
        target = f"{claim.directory}/{link.stored}"
        with contextlib.suppress(OSError):
            os.unlink(target)
        folder = os.path.dirname(link.stored)
        while folder and lstat(self._absolute(folder)) is None:
            with contextlib.suppress(OSError):
                os.rmdir(f"{claim.directory}/{folder}")
            folder = os.path.dirname(folder)

    def _tell(self, claim: Claim, path: str) -> None:
        if path not in claim.told:
            claim.told.add(path)
            claim.fresh.append(path)

    # The end of a job

    def _take(self, claim: Claim, path: str) -> None:
        """Brings `path` over for good and takes the job's own name for it away."""
        absolute = self._absolute(path)
        status = lstat(absolute)
        if status is None:
            if path in claim.links:
                self._drop(claim, path)
            return
        owner = self._owner(path)
        if owner is not claim:
            return
        try:
            if stat.S_ISDIR(status.st_mode):
                self._take_folder(claim, path)
            elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                self._take_file(claim, path, status)
            else:
                claim.problems[f"`{path}` is {kind_of(status.st_mode)}, it was left where it is"] = None
        except OSError as exc:
            claim.problems[f"`{path}` could not be collected: {exc.strerror}"] = None

    def _take_folder(self, claim: Claim, path: str) -> None:
        if not real_folder(claim.directory, path):
            raise OSError(errno.ENOTDIR, "its place in the experiment directory is taken")
        self._tell(claim, path)
        folders = [path]
        for below, status in self._below(path):
            if not stat.S_ISDIR(status.st_mode):
                self._take(claim, below)
            elif self._owner(below) is claim:
                folders.append(below)
                real_folder(claim.directory, below)
        for folder in reversed(folders):
            self._watchable.discard(folder)
            # Not empty where something had to be left behind
            with contextlib.suppress(OSError):
                os.rmdir(self._absolute(folder))

    def _take_file(self, claim: Claim, path: str, status: os.stat_result) -> None:
        absolute = self._absolute(path)
        key: Key = os.readlink(absolute) if stat.S_ISLNK(status.st_mode) else (status.st_dev, status.st_ino)
        try:
            self._link(claim, path, key)
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
            self._move(claim, path)
            return
        now = os.lstat(absolute)
        if isinstance(key, tuple) and claim.links[path].key != (now.st_dev, now.st_ino):
            # Replaced in this very moment, by a process that outlived its job
            self._link(claim, path, (now.st_dev, now.st_ino))
        # Not a link any more before the source goes: a link without a source means that the job has deleted it
        claim.taken.append(claim.links.pop(path).stored)
        os.unlink(absolute)

    def _move(self, claim: Claim, path: str) -> None:
        """The slower way, where hard links do not work: another file system, or one without them."""
        source, known = self._absolute(path), claim.links.pop(path, None)
        if not real_folder(claim.directory, os.path.dirname(path)):
            raise OSError(errno.ENOTDIR, "its place in the experiment directory is taken")
        if known is not None:
            # What was linked before it was replaced by something that cannot be
            os.unlink(f"{claim.directory}/{known.stored}")
        target = free_name(f"{claim.directory}/{path}")

        def report(problem: str) -> None:
            claim.problems[problem] = None

        move(source, target, report)
        claim.taken.append(os.path.relpath(target, claim.directory))
        self._tell(claim, path)


def collected(claim: Claim) -> Iterator[tuple[str, int]]:
    """Path and size in bytes of everything collected, paths relative to the experiment directory."""
    for path in claim.taken:
        yield path, size_of(f"{claim.directory}/{path}")


def _inherited(claim: Claim) -> Iterator[tuple[str, Link]]:
    """What stands in the experiment directory under a path that carries the identifier."""
    start = len(claim.directory) + 1
    for folder, folders, names in os.walk(claim.directory):
        for name in (*names, *(each for each in folders if os.path.islink(f"{folder}/{each}"))):
            path = f"{folder}/{name}"[start:]
            status = lstat(f"{folder}/{name}")
            if claim.identifier in path and status is not None:
                is_link = stat.S_ISLNK(status.st_mode)
                key: Key = os.readlink(f"{folder}/{name}") if is_link else (status.st_dev, status.st_ino)
                yield path, Link(key, path, inherited=True)


def _hard_link(source: str, target: str, key: Key) -> None:
    if isinstance(key, str):
        os.symlink(key, target)
    else:
        os.link(source, target, follow_symlinks=False)


def _key_of(target: str, key: Key) -> Key:
    """What was linked in the end: the file may have been replaced since it was looked at."""
    if isinstance(key, str):
        return key
    status = os.lstat(target)
    return status.st_dev, status.st_ino


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
