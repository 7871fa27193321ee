"""What one job's experiment directory holds of its files: links while the job runs, the files
themselves afterwards.

A file is hard-linked, so the job goes on with it undisturbed. All of this blocks.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import msgspec

from ..model import Problem, ProblemKind
from ..storage.copying import left_in_place, move, take_away
from ..storage.files import (
    NO_LINKS,
    Home,
    everything_below,
    is_folder,
    lstat,
    same_content,
    size_of,
)
from ..storage.mending import leads_to, led_anew, replace_link
from .claims import last_name_carries
from .linking import Key, inode_of, key_of, link_beside, replace
from .record import LinkRecord
from .tree import depth

TRIES = 5
"""How often a file is linked anew that is replaced again and again while it is taken, by processes
that outlived their job.
"""


class Link(msgspec.Struct, eq=False):
    """Something collected: what it was, and where it is below the experiment directory."""

    key: Key
    stored: str
    inherited: bool = False
    """Collected by an earlier runner: that the job's own file is missing does not mean that the job
    has deleted it.
    """


class JobFiles:
    """The files of one job, in the working directory `top` and in its experiment directory `home`.

    Paths are relative to `top`, and are the same below `home` unless something else stood there.
    With `adopted`, an earlier runner has collected what `record` tells.
    """

    def __init__(
        self,
        identifier: str,
        top: str,
        home: Home,
        *,
        record: LinkRecord | None = None,
        adopted: bool = False,
    ) -> None:
        self.identifier = identifier
        self.directory = home.path
        self.began = 0 if adopted else time.time_ns()
        """Nanoseconds since the epoch; 0 if an earlier runner knows."""

        self.inode = home.inode
        self._home = home
        self._top = top
        self._record = record or LinkRecord(None)
        self._is_adopted = adopted
        self.taken_links: list[tuple[str, str]] = []
        """Symbolic links that were taken: path, and path below the experiment directory."""

        self.keeps_names = False
        """Whether the job's own names stay until `clear`, because links lead to them."""

        self._kept: list[tuple[str, Key]] = []
        self._was_here: bool | None = None
        self.has_ended = False
        """Whether the job has ended: then files are taken, and no more linked first."""

        self.links: dict[str, Link] = {}
        """What is in both places."""

        self.taken: list[tuple[str, int]] = []
        """What is in the experiment directory alone: path relative to that, and bytes."""

        self.seen: set[str] = set()
        """Paths that were found, those whose last name carries the identifier."""

        self.made: set[str] = set()
        """Folders that collection has made below the experiment directory."""

        self._known: set[str] = set()
        """Folders below the experiment directory that are known to be folders, and no links to
        some.
        """

        self._moving: set[str] = set()
        """Paths that an option moves as a whole: they are not followed meanwhile."""

        self._announced: set[str] = set()
        self.fresh: deque[str] = deque()
        """Paths that have come in and were not given to `take_fresh` yet."""

        self.problems: dict[Problem, None] = {}
        if adopted:
            self._inherit()

    def _inherit(self) -> None:
        """What an earlier runner has collected. All else in the directory is the job's own."""
        if not self._home.is_there:
            return
        recorded = self._record.read()
        start = len(self.directory) + 1
        for absolute, status in everything_below(self.directory):
            stored = absolute[start:]
            key = key_of(absolute, status)
            if key is None:
                continue
            path = recorded.get((stored, key))
            if path is None and self._is_same(stored, key):
                # Collected as the job ended, or just before the runner was killed
                path = stored
            if path is not None:
                is_alone = not os.path.lexists(self._absolute(path))
                self.links[path] = Link(key, stored, inherited=is_alone)

    def _is_same(self, path: str, key: Key) -> bool:
        """Whether the job's own file of this path is this one, and carries the identifier."""
        try:
            status = lstat(self._absolute(path)) if self.identifier in path else None
            return status is not None and key_of(self._absolute(path), status) == key
        except OSError:
            return False

    # While the job runs

    def note(self, path: str) -> None:
        """Remembers a path for the end of the job, if its own name carries the identifier: what is
        below one comes with it.
        """
        if last_name_carries(path, self.identifier):
            self.seen.add(path)

    def follow(self, path: str, status: os.stat_result) -> bool:
        """Makes the experiment directory hold what `path` holds now, as `status` tells.

        False if that fails: it is tried again, and reported, when the job has ended.
        """
        self.note(path)
        if any(path == each or path.startswith(f"{each}/") for each in self._moving):
            return True
        try:
            if stat.S_ISDIR(status.st_mode):
                self.release(path)
                self.make_folder(path)
                self.announce(path)
                return True
            if path in self.made:
                # The folder has become a file
                self.drop_below(path)
            key = key_of(self._absolute(path), status)
            if key is None:
                self.release(path)
            else:
                self._link(path, key)
        except OSError:
            return False
        return True

    def drop(self, path: str) -> None:
        """If the job has deleted its file, it goes here too, at once, or rotating checkpoints would
        fill the disk.
        """
        try:
            if lstat(self._absolute(path)) is not None:
                return
        except OSError:
            return
        self.seen.discard(path)
        if self.links[path].inherited:
            stored = self.links.pop(path).stored
            self.taken.append((stored, size_of(f"{self.directory}/{stored}")))
        self.release(path)

    def drop_below(self, path: str) -> None:
        """The same for all that was in a folder, and for the folder itself."""
        below = f"{path}/"
        for each in [each for each in self.links if each.startswith(below)]:
            self.drop(each)
        self._drop_folders([each for each in self.made if each == path or each.startswith(below)])

    def drop_deleted(self) -> None:
        """The same for everything. What an earlier runner has collected is kept."""
        for path in [path for path, link in self.links.items() if not link.inherited]:
            self.drop(path)
        self._drop_folders(self.made)

    def give_back(self, path: str) -> None:
        """Takes away what was linked from `path` and from below it, which an option is about to
        move as a whole.
        """
        below = f"{path}/"
        self._moving.add(path)
        for each in [each for each in self.links if each == path or each.startswith(below)]:
            if not self.links[each].inherited:
                self.release(each)
        self._remove_folders([each for each in self.made if each == path or each.startswith(below)])

    def release(self, path: str) -> None:
        """Takes away what was collected from `path`, unless something else stands there by now."""
        link = self.links.pop(path, None)
        if link is not None:
            self._record.remove(path)
        if link is not None and self._holds(link):
            with suppress(OSError):
                os.unlink(f"{self.directory}/{link.stored}")

    def announce(self, stored: str) -> None:
        if stored not in self._announced:
            self._announced.add(stored)
            self.fresh.append(stored)

    def take_fresh(self) -> list[str]:
        """The paths that were not announced before. May be called by several threads: each path is
        given once.
        """
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self.fresh.popleft())
        return taken

    # Links and folders

    def _link(self, path: str, key: Key) -> None:
        """Makes the experiment directory hold the file or link. Raises `OSError`."""
        known = self.links.get(path)
        if known is not None and not self._holds(known):
            # The job took it away from there, or put something else there; it need not lose its
            # other file too
            known = None
        if known is not None and known.key == key:
            return
        self.make_folder(path.rpartition("/")[0])
        source = self._absolute(path)
        if known is None:
            target = link_beside(source, f"{self.directory}/{path}", key)
        else:
            target = f"{self.directory}/{known.stored}"
            replace(source, target, key)
        # The file may have been replaced since it was looked at
        linked = os.readlink(target) if isinstance(key, str) else inode_of(os.lstat(target))
        stored = target[len(self.directory) + 1 :]
        self.links[path] = Link(linked, stored)
        if not self.has_ended:
            self._record.add(path, stored, linked)
        self.announce(stored)

    def _holds(self, link: Link) -> bool:
        """Whether the experiment directory still has what was collected there."""
        target = f"{self.directory}/{link.stored}"
        if not self._is_here():
            return False
        try:
            if isinstance(link.key, str):
                return os.readlink(target) == link.key
            return inode_of(os.lstat(target)) == link.key
        except OSError:
            return False

    def make_folder(self, path: str) -> None:
        """Makes a folder below the experiment directory, and those above it. Raises `OSError` if
        something else stands there.
        """
        if not self._is_here():
            raise OSError(errno.ENOTDIR, "something else is in the place of its directory")
        if not path:
            return
        if path in self._known and not is_folder(f"{self.directory}/{path}"):
            # The job has put something else in its place, which may lead anywhere
            self._known.clear()
        missing = []
        while path and path not in self._known:
            missing.append(path)
            path = os.path.dirname(path)
        for folder in reversed(missing):
            target = f"{self.directory}/{folder}"
            try:
                os.mkdir(target, self._mode(folder))
                self.made.add(folder)
            except FileExistsError:
                if not is_folder(target):
                    raise OSError(
                        errno.ENOTDIR, "its place in the experiment directory is taken"
                    ) from None
            self._known.add(folder)

    def _is_here(self) -> bool:
        """Whether the experiment directory is in its place. While files are taken, as it was when
        that began.
        """
        if not self.has_ended:
            return self._home.is_there
        if self._was_here is None:
            self._was_here = self._home.is_there
        return self._was_here

    def _mode(self, folder: str) -> int:
        """What is private in the working directory is from the start private in the experiment
        directory, too.
        """
        try:
            # The working directory may have a link here
            return stat.S_IMODE(os.stat(self._absolute(folder)).st_mode) | stat.S_IRWXU
        except OSError:
            return 0o777

    def _drop_folders(self, folders: Iterable[str]) -> None:
        """Takes away those of the folders that collection has made, if their originals are gone and
        they hold nothing.
        """
        self._remove_folders([each for each in folders if not is_folder(self._absolute(each))])

    def _remove_folders(self, folders: Iterable[str]) -> None:
        """Takes away those of the folders that collection has made that hold nothing."""
        if not folders or not self._is_here():
            return
        for folder in sorted(folders, key=depth, reverse=True):
            with suppress(OSError):
                os.rmdir(f"{self.directory}/{folder}")
                self.made.discard(folder)
                self._known.discard(folder)

    # The end of the job

    def begin_taking(self) -> None:
        """From now on nothing is believed of the experiment directory that was seen while the job
        ran.
        """
        self._known.clear()
        self._moving.clear()

    def take(self, path: str, status: os.stat_result) -> None:
        """Brings a file or link over for good and takes the job's own name for it away. Raises
        `OSError`.
        """
        source = self._absolute(path)
        for _ in range(TRIES):
            key = key_of(source, status)
            if key is None:
                break
            try:
                self._link(path, key)
            except OSError as exc:
                if exc.errno not in NO_LINKS:
                    raise
                self._move(path)
                return
            if self.links[path].key == key:
                # No link any more before the source goes: a link without a source means that the
                # job has deleted it
                stored = self.links.pop(path).stored
                self.taken.append((stored, status.st_size))
                self.seen.discard(path)
                if isinstance(key, str):
                    self.taken_links.append((path, stored))
                if self.keeps_names:
                    self._kept.append((path, key))
                else:
                    self._take_name_away(source)
                return
            status = os.lstat(source)
        raise OSError(errno.EBUSY, "it changes all the time")

    def _take_name_away(self, source: str) -> None:
        # In a folder of another user it stays, and nothing is missing
        with suppress(PermissionError):
            os.unlink(source)

    def _move(self, path: str) -> None:
        """The slower way, where hard links do not work, as across file systems."""
        # What was linked before it was replaced by something that cannot be
        self.release(path)
        self.make_folder(path.rpartition("/")[0])
        source, target = self._absolute(path), f"{self.directory}/{path}"
        if self._is_adopted and same_content(source, target):
            # A runner was killed before it could remove what it had copied
            take_away(source, target)
        else:
            target = move(source, target, self.report, kind=ProblemKind.NOT_COLLECTED)
        stored = target[len(self.directory) + 1 :]
        self.taken.append((stored, size_of(target)))
        self.announce(stored)

    def enter(self, folder: str, status: os.stat_result) -> list[str]:
        """Makes a folder that is about to be taken, and gives the names in the job's own. Raises
        `OSError`.
        """
        self.release(folder)
        self.make_folder(folder)
        self.announce(folder)
        absolute = self._absolute(folder)
        if status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            # A folder that the job has closed, even to itself; not if it is another user's
            with suppress(PermissionError):
                os.chmod(absolute, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
        return sorted(os.listdir(absolute))

    def leave(self, folder: str, status: os.stat_result) -> None:
        """Gives a folder that has been taken the mode and times that the job's own had, which goes;
        but it stays open to its owner.
        """
        if folder in self.made:
            self.made.discard(folder)
            with suppress(OSError):
                target = f"{self.directory}/{folder}"
                os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
                os.chmod(target, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)

    def end_taking(self) -> None:
        """Takes away what was made for something that is gone by now."""
        self._remove_folders(self.made)

    def mend(self, tops: Sequence[tuple[str, str]], owner: Callable[[str], object]) -> None:
        """Leads links that were taken to where their targets are now, if they would dangle.

        `owner` tells whose a path is, relative to the working directory.
        """
        for path, stored in self.taken_links:
            link = f"{self.directory}/{stored}"
            folder, old_folder = os.path.dirname(link), os.path.dirname(self._absolute(path))
            with suppress(OSError):
                target = os.readlink(link)
                is_absolute = target.startswith("/")
                if not is_absolute and os.path.lexists(os.path.join(folder, target)):
                    continue
                led = leads_to(old_folder, target, tops)
                place = f"{self.directory}/{led}"
                if led is not None and owner(led) is self and lstat(place) is not None:
                    replace_link(link, target, led_anew(folder, target, place))
                    continue
                # Its old folder may have gone by now
                place = os.path.normpath(os.path.join(old_folder, target))
                if not is_absolute and os.path.lexists(place):
                    # It leads to something that stays
                    replace_link(link, target, led_anew(folder, target, place))

    def clear(self) -> None:
        """Takes the job's own names away that were kept."""
        kept, self._kept, self.keeps_names = self._kept, [], False
        for path, key in kept:
            source = self._absolute(path)
            try:
                status = lstat(source)
                if status is not None and key_of(source, status) == key:
                    self._take_name_away(source)
                elif status is not None and not stat.S_ISDIR(status.st_mode):
                    # Replaced meanwhile, by a process that has outlived the job
                    self.take(path, status)
            except OSError as exc:
                self.could_not_take(path, exc)

    def close(self) -> None:
        self._record.discard()

    # Problems

    def report(self, problem: Problem) -> None:
        self.problems[problem] = None

    def could_not_take(self, path: str, exc: OSError) -> None:
        text = f"`{path}` could not be collected: {exc.strerror}"
        self.report(Problem.of(ProblemKind.NOT_COLLECTED, text, exc))

    def could_not_look(self, folder: str, exc: OSError) -> None:
        """There may be files of the job in a folder that cannot be read."""
        text = f"`{folder}` could not be looked into: {exc.strerror}"
        self.report(Problem.of(ProblemKind.NOT_COLLECTED, text, exc))

    def leave_special(self, path: str, mode: int) -> None:
        """A FIFO, a socket or a device stays where it is."""
        self.release(path)
        self.report(left_in_place(path, mode, ProblemKind.NOT_COLLECTED))

    def leave_contested(self, path: str) -> None:
        text = f"`{path}` carries two live identifiers, it was left where it is"
        self.report(Problem(ProblemKind.LEFT_IN_PLACE, text))

    def _absolute(self, path: str) -> str:
        return f"{self._top}/{path}"
