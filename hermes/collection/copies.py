"""The hermes options `-cb`, `-ca` and `-ma`: copying and moving into the experiment directory, and never out of it."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from ..experiments.files import (
    Report,
    copy,
    free_name,
    lstat,
    matches,
    move,
    real_folder,
    remove,
    same_content,
    size_of,
    unfinished,
)
from ..model import PLACEHOLDER, Options

Origin = Literal["copied-before", "copied-after", "moved"]


class Stowed(NamedTuple):
    """Something that is in the experiment directory now: `path` relative to it, size in bytes, how it got there."""

    path: str
    bytes: int
    origin: Origin


class Stowage(NamedTuple):
    """Copies and moves for one job. Relative paths start at `working_directory`; `experiments` is never copied into itself.

    `collected` tells of a path, relative to the working directory, whether collection will bring it to the same place anyway;
    `give_back` makes collection leave one alone that is moved as a whole.
    """

    options: Options
    identifier: str
    working_directory: str
    directory: str
    experiments: str
    collected: Callable[[str], bool]
    give_back: Callable[[str], None]
    report: Report

    def before(self) -> list[Stowed]:
        return list(self._stow("-cb", self.options.copy_before, "copied-before"))

    def after(self) -> list[Stowed]:
        """Copies first: the same file may be asked to be copied and moved."""
        return [
            *self._stow("-ca", self.options.copy_after, "copied-after"),
            *self._stow("-ma", self.options.move_after, "moved"),
        ]

    def _stow(self, flag: str, paths: tuple[str, ...], origin: Origin) -> Iterator[Stowed]:
        if not paths:
            return
        shared = self._shared_names()
        done: set[str] = set()
        for path in dict.fromkeys(paths):
            path = path.replace(PLACEHOLDER, self.identifier)
            found = self._found(path)
            # What a job wrote there itself, or a runner that is gone has moved, is not missing
            there = origin == "moved" and os.path.lexists(
                f"{self.directory}/{os.path.basename(path)}"
            )
            if not found and path not in done and not there:
                self.report(f"`{flag} {path}`: no such file or directory")
            for source in found:
                if source in done:
                    continue
                done.add(source)
                try:
                    stowed = self._bring(source, os.path.basename(source) in shared, origin)
                except OSError as exc:
                    self.report(f"`{flag} {path}`: {exc.strerror}")
                else:
                    if stowed is not None:
                        yield Stowed(stowed, size_of(f"{self.directory}/{stowed}"), origin)

    def _found(self, path: str) -> list[str]:
        """Absolute paths. What exists under just this name is meant, even if the name holds a wildcard's characters."""
        whole = self._whole(path)
        if lstat(whole) is not None or not glob.has_magic(path):
            return [whole] if lstat(whole) is not None else []
        return matches(path, self.working_directory, self.experiments)

    def _whole(self, path: str) -> str:
        """The absolute path, without `.` and `..`."""
        parts = os.path.join(self.working_directory, path).split("/")
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
            p.replace(PLACEHOLDER, self.identifier)
            for p in (*options.copy_before, *options.copy_after, *options.move_after)
        }
        sources = {self._whole(each) for each in patterns if not glob.has_magic(each)}
        sources |= {source for pattern in patterns for source in self._found(pattern)}
        return {
            name for name, count in Counter(map(os.path.basename, sources)).items() if count > 1
        }

    def _bring(self, source: str, under_relative_path: bool, origin: Origin) -> str | None:
        """Where `source` was stored, relative to the experiment directory; None if nothing of it could be."""
        from_working_directory = os.path.relpath(source, self.working_directory)
        name = os.path.basename(source) or "root"
        if under_relative_path:
            name = "/".join(part for part in from_working_directory.split("/") if part != "..")
        if from_working_directory == name and self.collected(name):
            # Collection links it to this very place; a second copy would only stand beside it
            return None
        if origin == "moved" and self.directory.startswith(f"{source}/"):
            raise OSError(0, "it holds the experiment directory")
        if not real_folder(self.directory, os.path.dirname(name)):
            raise OSError(0, "its place in the experiment directory is taken")
        target = f"{self.directory}/{name}"
        if origin == "moved":
            self.give_back(from_working_directory)
            target = free_name(target)
            move(source, target, self.report)
        elif same_content(source, target):
            # Copied before the job and unchanged, or by a runner that did not get any further
            return name
        else:
            target = free_name(target)
            status = os.stat(source)
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise OSError(0, "neither a file nor a directory")
            within = f"{source}/".startswith(f"{self.experiments}/")
            part = unfinished(target)
            try:
                copy(
                    source,
                    part,
                    self.report,
                    skip=self.directory if within else self.experiments,
                    follow=True,
                )
                os.rename(part, target)
            except OSError:
                remove(part)
                raise
        return os.path.relpath(target, self.directory)
