"""The hermes options `-cb`, `-ca` and `-ma`: copying and moving into the experiment directory, and
never out of it.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import msgspec

from ..model import Options, Problem, ProblemKind, filled
from ..storage.copying import Report, copy, kind_of, move, take_away
from ..storage.files import (
    Home,
    beside,
    everything_below,
    lstat,
    matches,
    real_folder,
    remove,
    rename_new,
    same_content,
    size_of,
    unfinished,
)
from ..storage.metadata import Origin, StoredFile


class Copies(msgspec.Struct, frozen=True, kw_only=True):
    """Copies and moves for one job. Relative paths start at `working_directory`; `experiments` is
    never copied into itself. If that is a copy of the `original` working directory, what is not in
    it is looked for there.

    `placeholders` are the values that paths can hold in braces. `owned` tells of a path, relative
    to the working directory, whether collection will bring it to the same place anyway; `give_back`
    makes collection leave one alone that is moved as a whole. What cannot be brought is given to
    `report`. All of this blocks.
    """

    options: Options
    placeholders: Mapping[str, str]
    working_directory: str
    home: Home
    experiments: str
    owned: Callable[[str], bool]
    give_back: Callable[[str], None]
    report: Report
    original: str | None = None

    @property
    def directory(self) -> str:
        return self.home.path

    def before(self) -> list[StoredFile]:
        """Copies what `-cb` names. Gives what was brought."""
        return list(self._bring("-cb", self.options.copy_before, "copied-before"))

    def after(self) -> list[StoredFile]:
        """Copies what `-ca` names, then moves what `-ma` names: a file may be named by both. Gives
        what was brought.
        """
        return [
            *self._bring("-ca", self.options.copy_after, "copied-after"),
            *self._bring("-ma", self.options.move_after, "moved"),
        ]

    def _bring(self, flag: str, paths: tuple[str, ...], origin: Origin) -> Iterator[StoredFile]:
        if not paths:
            return
        shared = self._shared_names()
        done: set[str] = set()
        for path in dict.fromkeys(paths):
            path = self._filled(path)
            found = self._found(path)
            # What a job wrote there itself, or a runner that is gone has moved, is not missing
            there = origin != "copied-before" and os.path.lexists(
                f"{self.directory}/{os.path.basename(path)}"
            )
            if not found and path not in done and not there:
                text = f"`{flag} {path}`: no such file or directory"
                self.report(Problem(ProblemKind.NOT_COPIED, text))
            for source in found:
                if source in done:
                    continue
                done.add(source)
                try:
                    stored = self._bring_one(source, os.path.basename(source) in shared, origin)
                except OSError as exc:
                    text = f"`{flag} {path}`: {exc.strerror}"
                    self.report(Problem.of(ProblemKind.NOT_COPIED, text, exc))
                else:
                    if stored is not None:
                        yield StoredFile(stored, size_of(f"{self.directory}/{stored}"), origin)

    def _filled(self, path: str) -> str:
        return os.path.expanduser(filled(path, self.placeholders))

    def _found(self, path: str) -> list[str]:
        """Absolute paths. What exists under just this name is meant, even if the name holds a
        wildcard's characters.
        """
        for start in self._starts:
            whole = self._whole(path, start)
            found = [whole] if lstat(whole) is not None else []
            if not found and glob.has_magic(path):
                found = matches(path, start, self.experiments)
            if found:
                return [self._linked(each) or each for each in found]
        return []

    @property
    def _starts(self) -> tuple[str, ...]:
        """Where relative paths may begin, the likelier one first."""
        given = self.working_directory, self.original
        return tuple(each for each in given if each is not None)

    def _linked(self, path: str) -> str | None:
        """What of the original a link in the copy stands for; None if it is no such link."""
        start = f"{self.working_directory}/"
        if self.original is None or not path.startswith(start) or not os.path.islink(path):
            return None
        counterpart = f"{self.original}/{path.removeprefix(start)}"
        return counterpart if os.readlink(path) == counterpart else None

    def _whole(self, path: str, start: str | None = None) -> str:
        """The absolute path, without `.` and `..`."""
        parts = os.path.join(start or self.working_directory, path).split("/")
        if ".." in parts:
            after = len(parts) - parts[::-1].index("..")
            above = "/".join(parts[:after])
            real = os.path.realpath(above)
            # Behind a link, `..` does not lead back to where the link is
            if real != os.path.realpath(os.path.normpath(above)):
                return os.path.normpath("/".join([real, *parts[after:]]))
        return os.path.normpath("/".join(parts))

    def _shared_names(self) -> set[str]:
        """Base names that different paths of this job have in common."""
        options = self.options
        patterns = {
            self._filled(p)
            for p in (*options.copy_before, *options.copy_after, *options.move_after)
        }
        sources = {self._whole(each) for each in patterns if not glob.has_magic(each)}
        sources |= {source for pattern in patterns for source in self._found(pattern)}
        return {
            name for name, count in Counter(map(os.path.basename, sources)).items() if count > 1
        }

    def _bring_one(self, source: str, under_relative_path: bool, origin: Origin) -> str | None:
        """Where `source` was stored, relative to the experiment directory; None if nothing of it
        could be.
        """
        start = next(
            (each for each in self._starts if source.startswith(f"{each}/")),
            self.working_directory,
        )
        from_working_directory = os.path.relpath(source, start)
        name = os.path.basename(source) or "root"
        if under_relative_path:
            name = "/".join(part for part in from_working_directory.split("/") if part != "..")
        if from_working_directory == name and self.owned(name):
            # Collection links it to this very place; a second copy would only stand beside it
            return None
        if origin == "moved" and self.directory.startswith(f"{source}/"):
            raise OSError(errno.EBUSY, "it holds the experiment directory")
        self.home.check()
        if not real_folder(self.directory, os.path.dirname(name)):
            raise OSError(errno.ENOTDIR, "its place in the experiment directory is taken")
        target = f"{self.directory}/{name}"
        if origin == "moved":
            self.give_back(from_working_directory)
            if same_content(source, target, in_part=True):
                # By a runner that was killed before it could remove what it had copied
                take_away(source, target)
            else:
                target = move(source, target, self.report, kind=ProblemKind.NOT_COPIED)
        elif same_content(source, target):
            # Copied before the job and unchanged, or by a runner that did not get any further
            return name
        else:
            target = self._copy(source, target)
        return os.path.relpath(target, self.directory)

    def _copy(self, source: str, target: str) -> str:
        """Copies to `target`, or to a free name beside it, which is returned. It appears there only
        when it is whole. Raises `OSError`.
        """
        mode = os.stat(source).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, f"it is {kind_of(mode)}")
        within = f"{source}/".startswith(f"{self.experiments}/")
        skip = self.directory if within else self.experiments
        part = unfinished(target)
        try:
            kind = ProblemKind.NOT_COPIED
            copy(source, part, self.report, kind=kind, skip=skip, follow=True)
            self._fill(source, part)
            return beside(target, partial(rename_new, part))
        except OSError:
            remove(part)
            raise

    def _fill(self, source: str, part: str) -> None:
        """Puts what they stand for in the place of links to the original that were copied."""
        if self.original is None:
            return
        for link, _ in list(everything_below(part)):
            counterpart = self._linked(f"{source}{link[len(part) :]}")
            if counterpart is not None:
                os.unlink(link)
                copy(counterpart, link, self.report, kind=ProblemKind.NOT_COPIED, follow=True)
