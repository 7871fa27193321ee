"""Links that would dangle when what they lead to has been collected. All of this blocks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from ..storage.files import lstat
from ..storage.mending import leads_to, led_anew, replace_link
from .behind import Behind
from .links import JobFiles
from .tree import Tree


class _Leading(NamedTuple):
    """A link to what a job has left: its absolute path, its target, and where that is."""

    path: str
    target: str
    led: str
    job: JobFiles


class Dangling:
    """The links to what jobs that have ended left, found before that is taken.

    `owner` tells whose a path is. If there are such links, the jobs' own names for their files stay
    until `mend`, so that a link leads somewhere at any moment: another job may look.
    """

    def __init__(
        self,
        tree: Tree,
        behind: Behind,
        owner: Callable[[str], object],
        jobs: Sequence[JobFiles],
    ) -> None:
        self._owner = owner
        self._jobs = jobs
        self._tree = tree
        self._behind = behind
        self._links = [link for each in (tree, behind) for link in self._leading(each)]
        for link in self._links:
            link.job.keeps_names = True

    @cached_property
    def _tops(self) -> list[tuple[str, str]]:
        # Few runs have links, and this takes its time
        top = self._tree.top
        return [(top, ""), (os.path.realpath(top), ""), *self._behind.roots.items()]

    def _leading(self, tree: Tree | Behind) -> Iterator[_Leading]:
        for folder, name, target in tree.links():
            if any(job.identifier in target for job in self._jobs):
                real = os.path.realpath(tree.absolute(folder))
                led = leads_to(real, target, self._tops)
                job = self._owner(led) if led is not None else None
                if led is not None and isinstance(job, JobFiles) and job in self._jobs:
                    yield _Leading(f"{real}/{name}", target, led, job)

    def mend(self) -> None:
        """Leads the links to the new places, before the old ones go."""
        for job in self._jobs:
            if job.taken_links:
                job.mend(self._tops, self._owner)
        for link, target, led, job in self._links:
            place = f"{job.directory}/{led}"
            if lstat(place) is not None:
                replace_link(link, target, led_anew(os.path.dirname(link), target, place))
        for job in self._jobs:
            job.clear()
