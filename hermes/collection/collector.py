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
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..blocking import Bell
from ..experiments.files import (
    NO_LINKS,
    everything_below,
    free_name,
    is_folder,
    kind_of,
    lstat,
    move,
    size_of,
    unfinished,
)
from ..model import IDENTIFIER
from . import notify
from .notify import Watcher

NOT_SEARCHED = frozenset({".git", "node_modules"})
"""Directories that are never searched, beside `experiments/` and virtual environments (known by their `pyvenv.cfg`)."""

SETTLED_NS = 2_000_000_000
"""A directory's entries are remembered once its last change is this old: the time stamps of file systems
are coarse (2 s on FAT), so within this time an entry may be added without a new stamp."""

MAX_WATCHES = 8192
"""Directories that are watched; the system's default limit is 8,192 on small machines, for all programs of a user together.
The rest of a larger tree is looked at twice a second."""

PAUSE = 0.02
"""Seconds after something was notified in which more may come: what comes then is looked at together."""

LOOK = 0.5
"""Seconds between two looks at what cannot be watched, and from the last notification to the look for what none told of."""

IDLE = 1.0
"""Seconds after which one that waits for notifications looks whether there is anything else to do."""

TRIES = 5
"""How often a file is linked anew that is replaced again and again while it is taken, by processes that outlived their job."""

SHORTEST = 29
"""Characters of an identifier: shorter names carry none."""

Key = tuple[int, int] | str
"""What a path held when it was collected: device and inode of a file, target of a link."""


@dataclass(slots=True, eq=False)
class Link:
    """Something collected: what it was, and where it is below the experiment directory."""

    key: Key
    stored: str
    inherited: bool = False
    """Collected by an earlier runner: that the job's own file is missing does not mean that the job has deleted it."""


@dataclass(slots=True, eq=False)
class Claim:
    """A live job's right to everything that carries its identifier."""

    identifier: str
    directory: str
    links: dict[str, Link] = field(default_factory=dict)
    """What is in both places, by path relative to the working directory."""

    taken: list[tuple[str, int]] = field(default_factory=list)
    """What is in the experiment directory alone: path relative to that, and bytes."""

    seen: set[str] = field(default_factory=set)
    """Paths whose last part carries the identifier, found so far."""

    made: set[str] = field(default_factory=set)
    """Folders that collection has made below the experiment directory."""

    known: set[str] = field(default_factory=set)
    """Folders below the experiment directory that are known to be folders, and no links to some."""

    moving: set[str] = field(default_factory=set)
    """Paths that an option moves as a whole: they are not followed meanwhile."""

    told: set[str] = field(default_factory=set)
    fresh: list[str] = field(default_factory=list)
    """Paths that have come in and were not announced yet."""

    problems: dict[str, None] = field(default_factory=dict)
    has_ended: bool = False
    """Whether its job has: then files are taken, and no more linked first."""

    def tell(self, stored: str) -> None:
        if stored not in self.told:
            self.told.add(stored)
            self.fresh.append(stored)


@dataclass(slots=True, eq=False)
class _Folder:
    """What a directory held when it was last read."""

    stamp: tuple[int, int, int, int]
    read_at: int


class Collector:
    """Collects for all jobs of one run below one working directory.

    `on_files` is called with `(identifier, path below the experiment directory)` pairs, `on_warning` at most once, both from the
    watching thread. While they run nothing else is collected, so a file is announced before its job is finished.
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
        """Directories that were read, those of jobs too, parents first."""

        self._emptied: set[str] = set()
        """Directories of ended jobs in which something had to be left, perhaps another job's."""

        self._grown = False
        self._budget = MAX_WATCHES
        self._warned = False
        self._stop = threading.Event()
        self._bell: Bell | None = None
        """Wakes whoever watches."""

        self.look_took = 0.0
        """Seconds that the last look at the whole tree has taken."""

    # Jobs come and go

    def add(self, identifier: str, directory: str, *, adopted: bool = False) -> None:
        """From now on what carries `identifier` belongs into `directory`.

        With `adopted`, what carries it there already was collected by an earlier runner.
        """
        claim = Claim(identifier, directory)
        if adopted:
            claim.links = dict(_inherited(claim, self.top))
        with self._lock:
            self._claims[identifier] = claim
            if adopted:
                # Its files may be older than the last look at them
                self._folders.clear()

    def finish(self, identifiers: Sequence[str]) -> dict[str, Claim]:
        """The final look for jobs that have ended: what they left is in their directories afterwards, and nowhere else.

        One look serves them all. Files that nobody was told about yet are in `Claim.fresh`.
        """
        with self._lock:
            for identifier in identifiers:
                self._claims[identifier].has_ended = True
            began = time.monotonic()
            self._look()
            self.look_took = time.monotonic() - began
            for identifier in identifiers:
                self._take_all(self._claims[identifier])
            for folder in sorted(self._emptied, key=_depth, reverse=True):
                self._remove(folder)
            return {identifier: self._claims.pop(identifier) for identifier in identifiers}

    def owned(self, identifier: str, path: str) -> bool:
        """Whether `path`, relative to the working directory, will be collected under the same path anyway."""
        with self._lock:
            claim = self._owner(path)
            return claim is not None and claim.identifier == identifier

    def give_back(self, identifier: str, path: str) -> None:
        """Takes away what was linked from `path` and from below it, because an option is about to move that as a whole.

        What is still there when the job is finished is collected after all.
        """
        below = f"{path}/"
        with self._lock:
            claim = self._claims[identifier]
            claim.moving.add(path)
            for each in [each for each in claim.links if each == path or each.startswith(below)]:
                if not claim.links[each].inherited:
                    self._release(claim, each)
            for folder in sorted(
                (each for each in claim.made if each == path or each.startswith(below)),
                key=_depth,
                reverse=True,
            ):
                if _remove_empty(f"{claim.directory}/{folder}"):
                    claim.made.discard(folder)
                    claim.known.discard(folder)

    # Watching

    def stop(self) -> None:
        """Makes `watch` return, in a moment."""
        bell = self._bell
        # Rung first, and heard until it is gone: whoever is woken by it finds `_stop` set
        if bell is not None:
            bell.ring()
        self._stop.set()

    def watch(self) -> None:
        """Collects as files appear, until `stop`. Nothing is lost if this fails or misses something: then it comes later."""
        if self._stop.wait(PAUSE):
            # Over already. To set up watches takes 10 ms, and to end them as long
            return
        try:
            with contextlib.closing(Bell()) as bell:
                self._bell = bell
                try:
                    self._watch(bell)
                except Exception as exc:
                    self._warn_of_nothing(exc)
        except OSError as exc:
            # No file descriptor left
            self._warn_of_nothing(exc)

    def _warn_of_nothing(self, exc: Exception) -> None:
        self._warn(f"files are collected only when their jobs end: {exc}")
        self._stop.wait()

    def _watch(self, bell: Bell) -> None:
        watcher: Watcher | None = None
        self._look_again()
        while not self._stop.is_set():
            began = time.monotonic()
            folders, all_of_them = self._to_watch()
            try:
                successor = notify.watcher(folders)
            except Exception as exc:
                self._cannot_watch(exc)
                continue
            if watcher is not None:
                self._drain(watcher)
            watcher = successor
            # What came between the last look and the new watches
            self._look_again()
            can_grow = all_of_them or len(folders) < self._budget
            if not self._follow(
                watcher,
                bell,
                4 * (time.monotonic() - began),
                can_grow=can_grow,
                poll=not (all_of_them and watcher.is_complete),
            ):
                watcher = None
        if watcher is not None:
            watcher.close()

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            self._on_warning(message)

    def _cannot_watch(self, exc: Exception) -> None:
        """A directory has just gone or was closed, or the limit of watches is reached: then fewer are watched, in the end none."""
        with self._lock:
            gone = [folder for folder in self._folders if not self._is_open(folder)]
            for folder in gone:
                self._forget(folder)
        if gone or isinstance(exc, FileNotFoundError):
            self._stop.wait(PAUSE)
            return
        self._warn(f"not all directories can be watched, files may be collected later: {exc}")
        self._budget = min(self._budget, len(self._folders)) // 2
        while self._budget == 0 and not self._stop.wait(LOOK):
            self._look_again()

    def _is_open(self, folder: str) -> bool:
        absolute = self._absolute(folder)
        # The working directory itself may be reached by a link
        return os.access(absolute, os.R_OK) and (is_folder(absolute) or not folder)

    def _follow(
        self, watcher: Watcher, bell: Bell, pause: float, *, can_grow: bool, poll: bool
    ) -> bool:
        """Handles notifications until other directories have to be watched. False if the watcher is of no more use."""
        # Setting new watches takes its time in a large tree; it must not take all of it
        now = time.monotonic()
        not_before = now + min(pause, 1.0)
        look_at: float | None = now + LOOK
        while not self._stop.wait(PAUSE):
            if self._grown and can_grow and time.monotonic() >= not_before:
                break
            # A final look in another thread may find directories to be watched
            watcher.wait(bell, IDLE if look_at is None else max(0.0, look_at - time.monotonic()))
            if not self._claims:
                # Nobody's: that a final look has taken thousands of files away is told in vain
                continue
            try:
                changed = watcher.changed()
            except Exception:
                # It may do so for ever
                with contextlib.suppress(Exception):
                    watcher.close()
                return False
            now = time.monotonic()
            if changed:
                self._handle(changed)
                look_at = look_at if poll else now + LOOK
            if look_at is not None and now >= look_at:
                # Quiet again: one look for what no notification told of, as when directories come and go quickly
                self._look_again()
                look_at = now + LOOK if poll else None
        return True

    def _drain(self, watcher: Watcher) -> None:
        """Takes what an outgoing watcher still holds."""
        with contextlib.suppress(Exception):
            self._handle(watcher.changed())
        with contextlib.suppress(Exception):
            watcher.close()

    def _to_watch(self) -> tuple[list[str], bool]:
        """The directories to watch, those near the top first, and whether these are all."""
        with self._lock:
            self._grown = False
            folders = sorted(self._folders, key=lambda folder: (_depth(folder), folder))[
                : self._budget
            ]
            return [self._absolute(folder) for folder in folders], len(folders) == len(
                self._folders
            )

    def _look_again(self) -> None:
        """Looks for what has come and for what is gone."""
        with self._lock:
            self._look()
            for claim in self._claims.values():
                for path in [path for path, link in claim.links.items() if not link.inherited]:
                    self._drop(claim, path)
                self._drop_folders(claim, claim.made)
            self._announce()

    def _announce(self) -> None:
        fresh = [
            (claim.identifier, path) for claim in self._claims.values() for path in claim.fresh
        ]
        for claim in self._claims.values():
            claim.fresh.clear()
        if fresh:
            self._on_files(fresh)

    def _handle(self, changed: Iterable[str]) -> None:
        """Looks at the places of some notifications; what they say happened is not relied upon."""
        start = len(self.top) + 1
        with self._lock:
            # What is there before what is gone: a renamed file is linked under its new name first
            stale: list[tuple[str, bool]] = []
            for absolute in changed:
                if self._stop.is_set():
                    # What is told last is that the final look has taken everything away
                    return
                path = absolute[start:]
                if not path:
                    continue
                # A folder that was made again has to be read and watched again, and may even have its old inode
                was_folder = self._forget(path)
                if not self._notice(path) or was_folder:
                    stale.append((path, was_folder))
            for path, was_folder in stale:
                self._sweep(path, was_folder)
            self._announce()

    def _notice(self, path: str) -> bool:
        """Looks at one path; False if nothing is there."""
        claim = self._owner(path)
        if claim is not None and self._is_new_file(claim, path):
            return True
        try:
            status = lstat(self._absolute(path))
        except OSError:
            return True
        if status is None:
            return False
        if claim is not None:
            self._follow_entry(claim, path, status)
        if (
            stat.S_ISDIR(status.st_mode)
            and path not in self._folders
            and (claim is not None or self._is_searched(path))
        ):
            self._look_below(path)
        return True

    def _is_new_file(self, claim: Claim, path: str) -> bool:
        """Links what is most likely notified: a new file, in a place that is known. Floods are made of them."""
        folder, _, name = path.rpartition("/")
        if (
            path in claim.links
            or path in claim.made
            or claim.moving
            or (folder and folder not in claim.known)
        ):
            return False
        try:
            self._make_folder(claim, folder)
            is_file = self._link_quickly(claim, path) is not None
        except OSError:
            return False
        if is_file and claim.identifier in name:
            claim.seen.add(path)
        return is_file

    def _sweep(self, path: str, was_folder: bool) -> None:
        """Takes away what was collected from `path`, and what below it, if that is gone."""
        below = f"{path}/"
        for claim in self._claims.values():
            if path in claim.links:
                self._drop(claim, path)
            elif was_folder:
                for each in [each for each in claim.links if each.startswith(below)]:
                    self._drop(claim, each)
                self._drop_folders(
                    claim, [each for each in claim.made if each == path or each.startswith(below)]
                )

    # Who owns what

    def _owner(self, path: str) -> Claim | None:
        """The live job whose identifier stands nearest to the end of `path`; None too if two stand in one name of it."""
        if len(self._claims) == 1 and not self._contested:
            # A single job makes the largest floods, and needs no more to be told by
            (only,) = self._claims.values()
            return only if only.identifier in path else None
        owner, end = None, -2
        for match in IDENTIFIER.finditer(path):
            claim = self._claims.get(match[1])
            if claim is None:
                continue
            # Identifiers hold no slash, so this is where the name ends that carries it
            before, end = end, path.find("/", match.start())
            marked = path if end < 0 else path[:end]
            # Contested stays contested: when one of two owners ends, the other must not get it
            if (end == before and claim is not owner) or marked in self._contested:
                self._contested.add(marked)
                for each in self._claims_in(os.path.basename(marked)):
                    each.problems[
                        f"`{marked}` carries two live identifiers, it was left where it is"
                    ] = None
                return None
            owner = claim
        return owner

    def _claims_in(self, name: str) -> list[Claim]:
        if len(name) < SHORTEST:
            return []
        found = {match[1] for match in IDENTIFIER.finditer(name)}
        return [
            self._claims[identifier] for identifier in sorted(found) if identifier in self._claims
        ]

    def _absolute(self, path: str) -> str:
        return f"{self.top}/{path}" if path else self.top

    # Looking at the tree

    def _look(self) -> None:
        """Finds what carries a live identifier. Directories that have not changed since they were read are not read again."""
        if "" not in self._folders:
            self._look_below("")
            return
        for path, known in list(self._folders.items()):
            if path not in self._folders:
                continue
            try:
                status = os.lstat(self._absolute(path))
            except OSError:
                self._forget(path)
                continue
            if _stamp(status) != known.stamp or known.read_at - status.st_ctime_ns < SETTLED_NS:
                self._look_below(path)

    def _look_below(self, start: str) -> None:
        """Reads a directory, and those below it that are not known yet."""
        pending = [start]
        while pending:
            for folder, inode in self._read(pending.pop()):
                known = self._folders.get(folder)
                if known is None or known.stamp[1] != inode:
                    pending.append(folder)

    def _read(self, path: str) -> list[tuple[str, int]]:
        """Collects what stands in one directory. Gives the directories in it that are to be read too, with their inodes."""
        owner = self._owner(path) if path else None
        try:
            # Not through a link that stands here by now
            fd = os.open(
                self._absolute(path),
                os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW if path else os.O_RDONLY,
            )
            try:
                status, read_at = os.fstat(fd), time.time_ns()
                with os.scandir(fd) as entries:
                    found = [
                        (entry.name, entry.inode(), entry.is_dir(follow_symlinks=False))
                        for entry in entries
                    ]
            finally:
                os.close(fd)
        except OSError:
            # Gone, or not ours to read
            self._forget(path)
            return []
        if path and owner is None and any(name == "pyvenv.cfg" for name, *_ in found):
            self._forget(path)
            return []
        known = self._folders.get(path)
        if known is None or known.stamp[:2] != (status.st_dev, status.st_ino):
            self._forget(path)
            self._grown = True
        self._folders[path] = _Folder(_stamp(status), read_at)
        folders = []
        for name, inode, is_dir in found:
            below = f"{path}/{name}" if path else name
            claim = self._owner(below) if owner is not None or len(name) >= SHORTEST else None
            if claim is None:
                search = is_dir and self._is_searched(below)
            elif claim.has_ended and not is_dir and below not in claim.made:
                search = False
                if claim.identifier in name:
                    claim.seen.add(below)
            else:
                link = claim.links.get(below)
                # Most files of a job are linked by now, and that they are needs no system call each
                is_linked = link is not None and not is_dir and link.key == (status.st_dev, inode)
                search = not is_linked and self._follow_name(claim, below)
            if search and is_dir:
                folders.append((below, inode))
        return folders

    def _is_searched(self, path: str) -> bool:
        name = os.path.basename(path)
        if name in NOT_SEARCHED or self._claims_in(name):
            return False
        return (
            name != os.path.basename(self._excluded)
            or os.path.realpath(self._absolute(path)) != self._excluded
        )

    def _forget(self, path: str) -> bool:
        """Knows nothing any more of a directory and those below it. False if it did not know it."""
        if self._folders.pop(path, None) is None:
            return False
        below = f"{path}/" if path else ""
        for each in [each for each in self._folders if each.startswith(below)]:
            del self._folders[each]
        return True

    # Following what a running job does

    def _follow_name(self, claim: Claim, path: str) -> bool:
        """Follows what stands under a name that is a job's. False if that is not possible."""
        try:
            status = lstat(self._absolute(path))
        except OSError:
            # To be tried again, and told, when the job has ended
            if claim.identifier in os.path.basename(path):
                claim.seen.add(path)
            return False
        return status is not None and self._follow_entry(claim, path, status)

    def _follow_entry(self, claim: Claim, path: str, status: os.stat_result) -> bool:
        """Makes the experiment directory hold what `path` holds now. What fails is tried again, and told, when the job has ended."""
        if claim.identifier in path.rpartition("/")[2]:
            claim.seen.add(path)
        if any(path == each or path.startswith(f"{each}/") for each in claim.moving):
            return True
        try:
            if stat.S_ISDIR(status.st_mode):
                self._release(claim, path)
                self._make_folder(claim, path)
                claim.tell(path)
                return True
            if path in claim.made:
                self._sweep(path, was_folder=True)
            key = self._key(path, status)
            if key is None:
                self._release(claim, path)
            else:
                self._link(claim, path, key)
        except OSError:
            return False
        return True

    def _key(self, path: str, status: os.stat_result) -> Key | None:
        """None for what cannot be collected."""
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(self._absolute(path))
        return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None

    def _link(self, claim: Claim, path: str, key: Key) -> bool:
        """Makes the experiment directory hold the file or link. False if it did already."""
        known = claim.links.get(path)
        if known is not None and not _holds(claim, known):
            # Whoever took it away from there, or put something else there, need not lose the job's file too
            known = None
        if known is not None and known.key == key:
            return False
        self._make_folder(claim, path.rpartition("/")[0])
        source = self._absolute(path)
        if known is None:
            target = self._place(source, f"{claim.directory}/{path}", key)
        else:
            target = f"{claim.directory}/{known.stored}"
            _replace(source, target, key)
        claim.links[path] = Link(_key_of(target, key), target[len(claim.directory) + 1 :])
        claim.tell(claim.links[path].stored)
        return True

    def _place(self, source: str, target: str, key: Key) -> str:
        """Links `source` to `target`, or beside it where something else already is."""
        free = target
        while True:
            try:
                _hard_link(source, free, key)
                return free
            except FileExistsError:
                there = lstat(target)
                if there is not None and (there.st_dev, there.st_ino) == key:
                    return target
                free = free_name(target)

    def _make_folder(self, claim: Claim, path: str) -> None:
        """Makes a folder below the experiment directory, and those above it. Raises `OSError` if something else stands there."""
        if not path:
            return
        if path in claim.known and not is_folder(f"{claim.directory}/{path}"):
            # The job has put something else in its place, which may lead anywhere
            claim.known.clear()
        missing = []
        while path and path not in claim.known:
            missing.append(path)
            path = os.path.dirname(path)
        for folder in reversed(missing):
            target = f"{claim.directory}/{folder}"
            try:
                os.mkdir(target, self._mode(folder))
                claim.made.add(folder)
            except FileExistsError:
                if not is_folder(target):
                    raise OSError(
                        errno.ENOTDIR, "its place in the experiment directory is taken"
                    ) from None
            claim.known.add(folder)

    def _mode(self, folder: str) -> int:
        """What is private in the working directory is from the start private in the experiment directory, too."""
        try:
            return stat.S_IMODE(os.lstat(self._absolute(folder)).st_mode) | stat.S_IRWXU
        except OSError:
            return 0o777

    def _drop(self, claim: Claim, path: str) -> None:
        """If the job has deleted its file, it goes here too, at once, or rotating checkpoints would fill the disk."""
        try:
            if lstat(self._absolute(path)) is not None:
                return
        except OSError:
            return
        claim.seen.discard(path)
        if claim.links[path].inherited:
            stored = claim.links.pop(path).stored
            claim.taken.append((stored, size_of(f"{claim.directory}/{stored}")))
        self._release(claim, path)

    def _release(self, claim: Claim, path: str) -> None:
        """Takes away what was collected from `path`, unless it is something else by now."""
        link = claim.links.pop(path, None)
        if link is not None and _holds(claim, link):
            with contextlib.suppress(OSError):
                os.unlink(f"{claim.directory}/{link.stored}")

    def _drop_folders(self, claim: Claim, folders: Iterable[str]) -> None:
        """Takes away those of the folders that collection has made, if their originals are gone and they hold nothing."""
        for folder in sorted(folders, key=_depth, reverse=True):
            if not is_folder(self._absolute(folder)) and _remove_empty(
                f"{claim.directory}/{folder}"
            ):
                claim.made.discard(folder)
                claim.known.discard(folder)

    # The end of a job

    def _take_all(self, claim: Claim) -> None:
        claim.known.clear()
        claim.moving.clear()
        folders = defaultdict[str, list[str]](list)
        for path in claim.seen | claim.links.keys():
            folders[path.rpartition("/")[0]].append(path)
        for folder, paths in sorted(folders.items()):
            # Folders of the job itself are entered later, when their times have been read
            if folder in self._folders and self._owner(folder) is None:
                with contextlib.suppress(OSError):
                    self._make_folder(claim, folder)
                    self._take_files(claim, folder, paths)
        for path in sorted(claim.seen | claim.links.keys(), key=_depth):
            self._take(claim, path)
        # What was made for something that is gone by now
        for folder in sorted(claim.made, key=_depth, reverse=True):
            _remove_empty(f"{claim.directory}/{folder}")

    def _take_files(self, claim: Claim, folder: str, paths: Iterable[str]) -> list[str]:
        """Takes ordinary files of one folder, by two or three system calls each, for floods are made of them. Gives all that are left."""
        there = _inodes(f"{claim.directory}/{folder}") if claim.links else set()
        return [path for path in paths if not self._take_quickly(claim, path, there)]

    def _take_quickly(self, claim: Claim, path: str, there: set[tuple[str, int]]) -> bool:
        """Takes a file, if nothing stands in the way of that. `there` is what its folder in the experiment directory holds."""
        if self._owner(path) is not claim:
            return False
        link = claim.links.get(path)
        try:
            if link is None:
                status = self._link_quickly(claim, path)
            else:
                status = os.lstat(f"{self.top}/{path}")
                is_held = (link.stored.rpartition("/")[2], status.st_ino) in there
                # And it has another name than the job's own, whatever has become of the link since the folder was read
                if (status.st_dev, status.st_ino) != link.key or not is_held or status.st_nlink < 2:
                    return False
        except OSError:
            return False
        if status is None:
            return False
        claim.seen.discard(path)
        self._let_go(claim, path, status.st_size)
        return True

    def _link_quickly(self, claim: Claim, path: str) -> os.stat_result | None:
        """Links an ordinary file for the first time, into a folder that is there. None if it is none. Raises `OSError`."""
        target = f"{claim.directory}/{path}"
        os.link(f"{self.top}/{path}", target, follow_symlinks=False)
        status = os.lstat(target)
        if not stat.S_ISREG(status.st_mode):
            os.unlink(target)
            return None
        claim.links[path] = Link((status.st_dev, status.st_ino), path)
        claim.tell(path)
        return status

    def _let_go(self, claim: Claim, path: str, size: int) -> None:
        """Takes away the job's own name for what has been collected."""
        # Not a link any more before the source goes: a link without a source means that the job has deleted it
        claim.taken.append((claim.links.pop(path).stored, size))
        try:
            os.unlink(f"{self.top}/{path}")
        except OSError as exc:
            self._could_not(claim, path, exc)

    def _could_not(self, claim: Claim, path: str, exc: OSError) -> None:
        claim.problems[f"`{path}` could not be collected: {exc.strerror}"] = None

    def _take(self, claim: Claim, path: str) -> None:
        """Brings `path` over for good and takes the job's own name for it away."""
        try:
            status = self._status(path)
            if status is None:
                if path in claim.links:
                    self._drop(claim, path)
            elif self._owner(path) is not claim:
                return
            elif stat.S_ISDIR(status.st_mode):
                self._take_folder(claim, path)
            elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                self._take_file(claim, path, status)
            else:
                self._release(claim, path)
                claim.problems[
                    f"`{path}` is {kind_of(status.st_mode)}, it was left where it is"
                ] = None
        except OSError as exc:
            self._could_not(claim, path, exc)

    def _status(self, path: str) -> os.stat_result | None:
        """None if nothing is there, or only behind a link in the place of a folder."""
        parent = os.path.dirname(path)
        while parent and parent not in self._folders:
            if not is_folder(self._absolute(parent)):
                return None
            parent = os.path.dirname(parent)
        return lstat(self._absolute(path))

    def _take_folder(self, claim: Claim, path: str) -> None:
        self._release(claim, path)
        entered: list[tuple[str, os.stat_result]] = []
        pending = [path]
        while pending:
            folder = pending.pop()
            if self._owner(folder) is not claim:
                continue
            try:
                status, names = self._enter(claim, folder)
            except OSError as exc:
                self._could_not(claim, folder, exc)
                continue
            entered.append((folder, status))
            for below in self._take_files(claim, folder, [f"{folder}/{name}" for name in names]):
                if is_folder(self._absolute(below)):
                    pending.append(below)
                else:
                    self._take(claim, below)
        for folder, status in reversed(entered):
            self._leave(claim, folder, status)

    def _enter(self, claim: Claim, folder: str) -> tuple[os.stat_result, list[str]]:
        absolute = self._absolute(folder)
        status = os.lstat(absolute)
        self._make_folder(claim, folder)
        claim.tell(folder)
        if status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            # A folder that the job has closed, even to itself
            os.chmod(absolute, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
        return status, sorted(os.listdir(absolute))

    def _leave(self, claim: Claim, folder: str, status: os.stat_result) -> None:
        """Gives a folder that has been taken the mode and times that the job's own had, which goes; but it stays open to its owner."""
        if folder in claim.made:
            claim.made.discard(folder)
            with contextlib.suppress(OSError):
                os.utime(f"{claim.directory}/{folder}", ns=(status.st_atime_ns, status.st_mtime_ns))
                os.chmod(f"{claim.directory}/{folder}", stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
        self._remove(folder)

    def _remove(self, folder: str) -> None:
        """Removes a folder that has been taken; later, if something had to be left in it."""
        try:
            os.rmdir(self._absolute(folder))
        except FileNotFoundError:
            self._emptied.discard(folder)
        except OSError:
            self._emptied.add(folder)
        else:
            self._emptied.discard(folder)
            self._folders.pop(folder, None)

    def _take_file(self, claim: Claim, path: str, status: os.stat_result) -> None:
        absolute = self._absolute(path)
        for _ in range(TRIES):
            key = self._key(path, status)
            if key is None:
                raise OSError(errno.EBUSY, "it changes all the time")
            try:
                is_new = self._link(claim, path, key)
            except OSError as exc:
                if exc.errno not in NO_LINKS:
                    raise
                self._move(claim, path)
                return
            if not is_new:
                break
            status = os.lstat(absolute)
            if claim.links[path].key == self._key(path, status):
                break
        self._let_go(claim, path, status.st_size)

    def _move(self, claim: Claim, path: str) -> None:
        """The slower way, where hard links do not work: another file system, or one without them."""
        # What was linked before it was replaced by something that cannot be
        self._release(claim, path)
        self._make_folder(claim, path.rpartition("/")[0])
        target = free_name(f"{claim.directory}/{path}")

        def report(problem: str) -> None:
            claim.problems[problem] = None

        move(self._absolute(path), target, report)
        stored = target[len(claim.directory) + 1 :]
        claim.taken.append((stored, size_of(target)))
        claim.tell(stored)


def collected(claim: Claim) -> Iterator[tuple[str, int]]:
    """Path and size in bytes of everything collected, paths relative to the experiment directory."""
    yield from claim.taken


def _inherited(claim: Claim, top: str) -> Iterator[tuple[str, Link]]:
    """What stands in the experiment directory under a path that carries the identifier."""
    start = len(claim.directory) + 1
    for absolute, status in everything_below(claim.directory):
        path = absolute[start:]
        if claim.identifier in path and not stat.S_ISDIR(status.st_mode):
            key: Key = (
                os.readlink(absolute)
                if stat.S_ISLNK(status.st_mode)
                else (status.st_dev, status.st_ino)
            )
            yield path, Link(key, path, inherited=not os.path.lexists(f"{top}/{path}"))


def _inodes(folder: str) -> set[tuple[str, int]]:
    """Names in a folder with their inodes; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {(entry.name, entry.inode()) for entry in entries}
    except OSError:
        return set()


def _holds(claim: Claim, link: Link) -> bool:
    """Whether the experiment directory still has what was collected there."""
    target = f"{claim.directory}/{link.stored}"
    try:
        return _key_of(target, link.key) == link.key
    except OSError:
        return False


def _hard_link(source: str, target: str, key: Key) -> None:
    if isinstance(key, str):
        os.symlink(key, target)
    else:
        os.link(source, target, follow_symlinks=False)


def _replace(source: str, target: str, key: Key) -> None:
    temporary = unfinished(target)
    _hard_link(source, temporary, key)
    try:
        os.replace(temporary, target)
    except OSError:
        os.unlink(temporary)
        raise


def _key_of(target: str, key: Key) -> Key:
    """What was linked in the end: the file may have been replaced since it was looked at."""
    if isinstance(key, str):
        return os.readlink(target)
    status = os.lstat(target)
    return status.st_dev, status.st_ino


def _remove_empty(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except OSError:
        return False
    return True


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    # Anybody can set the modification time; the system alone sets the time of the last change
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _depth(path: str) -> int:
    return path.count("/")
