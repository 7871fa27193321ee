"""Collection for one run: jobs come and go, what they make is followed, and what they leave is
taken.

Notifications make it quick, a final scan of the tree makes it complete. While a job runs its files
are hard-linked, so the job goes on with them undisturbed; when it has ended, its own names for them
are taken away.
"""

from __future__ import annotations

import math
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar, TypeVarTuple

import anyio

from ..blocking import in_thread
from ..model import Problem
from ..storage.files import Home, is_folder, lstat
from .behind import MAX_FOLDERS, Behind
from .claims import Contested, owner
from .dangling import Dangling
from .links import JobFiles
from .record import LinkRecord
from .tree import CLOCK_GRAIN, Tree, depth
from .watching import Awatch, NoThreadError, WatchEndedError, Watcher

MAX_WATCHES = 8192
"""Directories that are watched; the system's default limit is 8,192 on small machines, for all
programs of a user together. The rest of a larger tree is scanned twice a second.
"""

PAUSE = 0.02
"""Seconds before watching begins: to set watches takes 10 ms and to end them as long. Also between
two attempts.
"""

SCAN_PAUSE = 0.5
"""Seconds between two scans for what cannot be watched, and from the last notification to the scan
for what none told of.
"""

IDLE = 1.0
"""Seconds between two checks, while nothing is notified, for directories that a final scan has
found.
"""

CLOCK_STEP = 10_000_000
"""Nanoseconds by which the times of files may be behind the clock."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Collected(NamedTuple):
    """What collection has brought for a job, once that is final.

    `files` are paths relative to the experiment directory, and bytes. `fresh` are the paths of
    which `on_files` has not been told. `problems` are of the kinds `NOT_COLLECTED`, `LEFT_IN_PLACE`
    and `DISK_FULL`.
    """

    files: list[tuple[str, int]]
    fresh: list[str]
    problems: list[Problem]


class Collector:
    """Collects for all jobs of one run below one working directory, and never from `experiments`.

    `on_files` is called with `(identifier, path below the experiment directory)` pairs, and
    `on_warning` at most once, both in the thread of the loop in which `watch` runs. Every path is
    given once, to `on_files` or in `Collected.fresh`, and to `on_files` only before that loop knows
    what `finish` returns. `lives_elsewhere` tells of an identifier whether it is that of a live job
    of another run. Links that lead into the folder `but_behind` are not looked behind. All other
    methods block, and can be called in any thread.
    """

    def __init__(
        self,
        *,
        working_directory: str,
        experiments: str,
        on_files: Callable[[list[tuple[str, str]]], object],
        on_warning: Callable[[str], object],
        max_watches: int = MAX_WATCHES,
        clock_grain: float = CLOCK_GRAIN,
        awatch: Awatch | None = None,
        lives_elsewhere: Callable[[str], bool] = lambda identifier: False,
        but_behind: str | None = None,
    ) -> None:
        self.top = working_directory
        self.scan_took = 0.0
        """Seconds that the last final scan has taken."""

        self._lives_elsewhere = lives_elsewhere
        self._on_files = on_files
        self._on_warning = on_warning
        self._awatch = awatch
        self._budget = max_watches
        self._has_warned = False
        self._is_stopped = self._is_finishing = False
        self._limiter = anyio.CapacityLimiter(1)
        self._lock = threading.Lock()
        # All that follows is changed under the lock only
        self._jobs: dict[str, JobFiles] = {}
        self._homes: set[tuple[int, int] | None] = set()
        """Experiment directories, which links may bring into the tree."""

        self._contested: set[str] = set()
        self._emptied: set[str] = set()
        """Directories of ended jobs in which something had to be left, perhaps another job's."""

        self._tree = Tree(
            top=working_directory,
            experiments=experiments,
            is_owned=self._is_owned,
            visit=self._visit,
            clock_grain=clock_grain,
        )
        self._behind = Behind(self._tree, experiments, self._visit_behind, clock_grain, but_behind)

    # Jobs come and go

    def add(
        self,
        identifier: str,
        directory: str | Home,
        *,
        record: str | None = None,
        adopted: bool = False,
    ) -> None:
        """From now on what carries `identifier` belongs into `directory`.

        `record` is a file that keeps what is collected while the job runs. With `adopted`, an
        earlier runner has written it.
        """
        home = directory if isinstance(directory, Home) else Home.of(directory)
        job = JobFiles(identifier, self.top, home, record=LinkRecord(record), adopted=adopted)
        with self._lock:
            self._jobs[identifier] = job
            self._homes.add(home.inode)
            if adopted:
                # Its files may be older than the last scan
                self._tree.forget("")
                self._behind.forget()

    def finish(self, identifiers: Sequence[str]) -> dict[str, Collected]:
        """The final scan for jobs that have ended: what they left is in their directories
        afterwards, and nowhere else.
        """
        self._is_finishing = True
        with self._lock:
            self._is_finishing = False
            jobs = [self._jobs[identifier] for identifier in identifiers]
            for job in jobs:
                job.has_ended = True
            began = time.monotonic()
            self._tree.scan()
            self._behind.scan()
            self.scan_took = time.monotonic() - began
            dangling = Dangling(self._tree, self._behind, self._owner, jobs)
            for job in jobs:
                self._take_all(job)
            dangling.mend()
            self._tell_closed(jobs)
            for folder in sorted(self._emptied, key=depth, reverse=True):
                self._remove(folder)
            return {job.identifier: self._close(job) for job in jobs}

    def tell(self) -> None:
        """Gives `on_warning` what `finish` has found."""
        if self._behind.is_cut:
            self._warn(
                f"behind the directory links of the working directory only {MAX_FOLDERS:,} folders "
                "are searched for files of jobs"
            )

    def owned(self, identifier: str, path: str) -> bool:
        """Whether `path`, relative to the working directory, will be collected under the same path
        anyway.
        """
        with self._lock:
            return self._owner(path) is self._jobs[identifier]

    def give_back(self, identifier: str, path: str) -> None:
        """Takes away what was linked from `path` and from below it, because an option is about to
        move that as a whole.

        What is still there when the job is finished is collected after all.
        """
        with self._lock:
            self._jobs[identifier].give_back(path)

    # Watching

    async def watch(self, stop: anyio.Event) -> None:
        """Collects as files appear, until `stop` is set. Nothing is lost if this fails or misses
        something: then it comes later.
        """
        with anyio.move_on_after(PAUSE):
            await stop.wait()
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._cancel_when, stop, tasks.cancel_scope)
            with Watcher(tasks, self._awatch) as watcher:
                try:
                    await self._watch(watcher)
                except Exception as exc:
                    self._warn(f"files are collected only when their jobs end: {exc}")

    async def _cancel_when(self, stop: anyio.Event, scope: anyio.CancelScope) -> None:
        try:
            await stop.wait()
        finally:
            self._is_stopped = True
            scope.cancel()

    async def _watch(self, watcher: Watcher) -> None:
        await self._in_thread(self._scan)
        while True:
            began = time.monotonic()
            folders, are_all = await self._in_thread(self._to_watch)
            try:
                are_watched = await watcher.watch(folders, self._limiter)
            except NoThreadError:
                await anyio.sleep(SCAN_PAUSE)
                await self._in_thread(self._scan)
                continue
            except Exception as exc:
                await self._watch_less(exc)
                continue
            # What came between the last scan and the new watches
            await self._in_thread(self._scan)
            # To set watches takes its time in a large tree; it must not take all of it
            pause = min(4 * (time.monotonic() - began), 1.0)
            try:
                await self._follow(
                    watcher, pause, can_grow=are_all, poll=not (are_all and are_watched)
                )
            except WatchEndedError:
                # It may do so again and again
                await anyio.sleep(PAUSE)

    async def _follow(self, watcher: Watcher, pause: float, *, can_grow: bool, poll: bool) -> None:
        """Handles notifications until other directories have to be watched, after `pause` at the
        earliest. Raises `WatchEndedError`.
        """
        now = time.monotonic()
        grow_at, scan_at = now + pause, now + SCAN_PAUSE
        while True:
            has_grown = can_grow and self._tree.grown
            if has_grown and now >= grow_at:
                return
            until = min(now + IDLE, scan_at, grow_at if has_grown else math.inf)
            changed = await watcher.changed(max(0.0, until - now))
            # What a final scan has taken away is notified too, and is nobody's if there are no jobs
            if changed and self._jobs:
                await self._in_thread(self._handle, changed)
            now = time.monotonic()
            if changed and not poll:
                scan_at = now + SCAN_PAUSE
            if now >= scan_at:
                # Quiet again: one scan for what no notification told of, as when directories come
                # and go quickly
                await self._in_thread(self._scan)
                now = time.monotonic()
                scan_at = now + SCAN_PAUSE if poll else math.inf

    async def _watch_less(self, exc: Exception) -> None:
        """A directory has just gone or was closed, or the limit of watches is reached: then fewer
        are watched, in the end none.
        """
        if await self._in_thread(self._forget_closed) or isinstance(exc, FileNotFoundError):
            await anyio.sleep(PAUSE)
            return
        self._warn(f"not all directories can be watched, files may be collected later: {exc}")
        self._budget = min(self._budget, len(self._tree)) // 2
        while self._budget == 0:
            await anyio.sleep(SCAN_PAUSE)
            await self._in_thread(self._scan)

    async def _in_thread(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Calls something in a worker thread, and announces what it has collected there."""
        result = await in_thread(function, *arguments, limiter=self._limiter)
        # A final scan may have the lock for long, and the loop must not wait for that: a list of
        # the values is made at once
        jobs = list(self._jobs.values())
        fresh = [(job.identifier, path) for job in jobs for path in job.take_fresh()]
        if fresh:
            self._on_files(fresh)
        return result

    def _warn(self, message: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._on_warning(message)

    def _to_watch(self) -> tuple[list[str], bool]:
        """The directories to watch, those near the top first, and whether these are all."""
        with self._lock:
            self._tree.grown = False
            folders = self._tree.nearest(self._budget)
            return [self._tree.absolute(path) for path in folders], len(folders) == len(self._tree)

    def _forget_closed(self) -> bool:
        with self._lock:
            return self._tree.forget_closed()

    # While jobs run

    def _scan(self) -> None:
        """Finds what has come and what is gone."""
        with self._lock:
            self._tree.scan()
            for job in self._jobs.values():
                job.drop_deleted()

    def _handle(self, changed: Iterable[str]) -> None:
        """Looks at the places of some notifications; what they say happened is not relied upon."""
        top = f"{self.top}/"
        with self._lock:
            # What is there before what is gone: a renamed file is linked under its new name first
            stale: list[tuple[str, bool]] = []
            for absolute in changed:
                if self._is_stopped:
                    # What is told last is that the final scan has taken everything away
                    return
                if not absolute.startswith(top):
                    continue
                path = absolute[len(top) :]
                # A folder that was made again has to be read and watched again, and may even have
                # its old inode
                was_folder = self._tree.forget(path)
                if self._is_finishing:
                    # The final scan that waits for this finds it, too
                    continue
                if not self._notice(path) or was_folder:
                    stale.append((path, was_folder))
            for path, was_folder in stale:
                for job in self._jobs.values():
                    if path in job.links:
                        job.drop(path)
                    elif was_folder:
                        job.drop_below(path)

    def _notice(self, path: str) -> bool:
        """Collects what one path holds now; False if nothing is there."""
        found = self._owner(path)
        try:
            status = lstat(self._tree.absolute(path))
        except OSError:
            return True
        if status is None:
            return False
        if (status.st_dev, status.st_ino) in self._homes:
            return True
        if isinstance(found, JobFiles):
            found.follow(path, status)
        if stat.S_ISDIR(status.st_mode) and path not in self._tree:
            search = self._tree.is_searched(path) if found is None else isinstance(found, JobFiles)
            if search:
                self._tree.scan_below(path)
        return True

    def _visit(self, path: str, inode: tuple[int, int], is_folder: bool) -> bool | None:
        """Collects what stands under a name that a scan has found. Whether a directory is to be
        searched, None if it is no job's.
        """
        if is_folder and inode in self._homes:
            return False
        job = self._owner(path)
        if not isinstance(job, JobFiles):
            return None if job is None else False
        if job.has_ended and not is_folder and path not in job.made:
            job.note(path)
            return False
        link = job.links.get(path)
        if link is not None and not is_folder and link.key == inode:
            # Most files of a job are linked by now, and that they are needs no system call each
            return False
        try:
            status = lstat(self._tree.absolute(path))
        except OSError:
            # To be tried again, and reported, when the job has ended
            job.note(path)
            return False
        return status is not None and job.follow(path, status)

    def _is_owned(self, path: str) -> bool:
        return isinstance(self._owner(path), JobFiles)

    def _owner(self, path: str) -> JobFiles | Contested | None:
        """Whose a path is. That it is contested is reported with all whose it might be."""
        found = owner(path, self._jobs, self._contested, self._lives_elsewhere)
        if isinstance(found, Contested):
            self._contested.add(found.path)
            for identifier in sorted(found.identifiers & self._jobs.keys()):
                self._jobs[identifier].leave_contested(found.path)
            return found
        return None if found is None else self._jobs.get(found)

    def _visit_behind(self, path: str, inode: tuple[int, int]) -> bool:
        if inode in self._homes:
            return True
        job = self._owner(path)
        if isinstance(job, JobFiles):
            job.note(path)
        return job is not None

    # The end of a job

    def _take_all(self, job: JobFiles) -> None:
        job.begin_taking()
        for path in sorted(job.seen | job.links.keys(), key=depth):
            # What is below a folder of the job has come with that
            if path in job.seen or path in job.links:
                self._take(job, path)
        job.end_taking()

    def _take(self, job: JobFiles, path: str) -> None:
        """Brings over for good what is at `path`, and below it, and takes the job's own names for
        it away.
        """
        if not self._is_reached(path):
            if path in job.links:
                job.drop(path)
            return
        pending = [path]
        entered: list[tuple[str, os.stat_result]] = []
        while pending:
            path = pending.pop()
            try:
                status = lstat(self._tree.absolute(path))
                if status is None:
                    if path in job.links:
                        job.drop(path)
                elif self._owner(path) is not job:
                    continue
                elif stat.S_ISDIR(status.st_mode):
                    pending += [f"{path}/{name}" for name in job.enter(path, status)]
                    entered.append((path, status))
                elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                    job.take(path, status)
                else:
                    job.leave_special(path, status.st_mode)
            except OSError as exc:
                job.could_not_take(path, exc)
        for folder, status in reversed(entered):
            job.leave(folder, status)
            self._remove(folder)

    def _is_reached(self, path: str) -> bool:
        """Whether all above `path` are folders, none of them a link to one that is not looked
        at.
        """
        parent = os.path.dirname(path)
        while parent and parent not in self._tree and parent not in self._behind:
            if not is_folder(self._tree.absolute(parent)):
                return False
            parent = os.path.dirname(parent)
        return True

    def _remove(self, folder: str) -> None:
        """Removes a folder that has been taken; later, if something had to be left in it."""
        try:
            os.rmdir(self._tree.absolute(folder))
        except FileNotFoundError:
            self._emptied.discard(folder)
        except OSError:
            self._emptied.add(folder)
        else:
            self._emptied.discard(folder)
            self._tree.forget(folder)

    def _tell_closed(self, jobs: Sequence[JobFiles]) -> None:
        """What cannot be looked into may hold files of the jobs, if they could make some there."""
        for path, exc in {**self._tree.closed, **self._behind.closed}.items():
            absolute = self._tree.absolute(path)
            try:
                changed = os.stat(absolute).st_ctime_ns
            except OSError:
                continue
            if self._owner(path) is not None:
                continue
            is_entered = not isinstance(exc, PermissionError) or os.access(absolute, os.X_OK)
            for job in jobs:
                if is_entered or changed >= job.began - CLOCK_STEP:
                    job.could_not_look(path or ".", exc)

    def _close(self, job: JobFiles) -> Collected:
        del self._jobs[job.identifier]
        job.close()
        self._homes.discard(job.inode)
        return Collected(job.taken, job.take_fresh(), list(job.problems))
