"""Collection for jobs that run in a copy of the working directory: from the copy, and from the
original, to which links in the copy lead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import anyio

from ..storage.files import Home
from .collector import Collected, Collector

ORIGINAL = ".original"
"""Ends the name of the record of what was collected from the original."""


OnFiles = Callable[[list[tuple[str, str]]], object]


def collector_of(
    folder: str, working_directory: str, *, experiments: str, on_files: OnFiles,
    on_warning: Callable[[str], object], lives_elsewhere: Callable[[str], bool],
) -> Collector | BothCollectors:  # fmt: skip
    """Collects for jobs that run in a folder: the working directory, or a copy of it."""
    if folder == working_directory:
        made: Callable[..., Collector | BothCollectors] = partial(
            Collector, working_directory=folder
        )
    else:
        made = partial(BothCollectors, copy=folder, original=working_directory)
    return made(
        experiments=experiments,
        on_files=on_files,
        on_warning=on_warning,
        lives_elsewhere=lives_elsewhere,
    )


class BothCollectors:
    """Two collectors that are used as one; see `Collector`.

    A file belongs to the one in whose folder it really is: what is behind a link that leads from
    the copy to the original is the original's.
    """

    def __init__(
        self,
        *,
        copy: str,
        original: str,
        experiments: str,
        on_files: OnFiles,
        on_warning: Callable[[str], object],
        lives_elsewhere: Callable[[str], bool],
    ) -> None:
        self._copy, self._original = (
            Collector(
                working_directory=folder,
                experiments=experiments,
                on_files=on_files,
                on_warning=on_warning,
                lives_elsewhere=lives_elsewhere,
                but_behind=other,
            )
            for folder, other in ((copy, original), (original, copy))
        )

    @property
    def scan_took(self) -> float:
        return self._copy.scan_took + self._original.scan_took

    def add(
        self,
        identifier: str,
        directory: str | Home,
        *,
        record: str | None = None,
        adopted: bool = False,
    ) -> None:
        self._copy.add(identifier, directory, record=record, adopted=adopted)
        other = None if record is None else f"{record}{ORIGINAL}"
        self._original.add(identifier, directory, record=other, adopted=adopted)

    def finish(self, identifiers: Sequence[str]) -> dict[str, Collected]:
        # Links of the copy may lead to what the original holds
        first, second = self._original.finish(identifiers), self._copy.finish(identifiers)
        return {each: _merged(first[each], second[each]) for each in identifiers}

    def tell(self) -> None:
        self._copy.tell()
        self._original.tell()

    def owned(self, identifier: str, path: str) -> bool:
        return self._copy.owned(identifier, path)

    def give_back(self, identifier: str, path: str) -> None:
        self._copy.give_back(identifier, path)
        self._original.give_back(identifier, path)

    async def watch(self, stop: anyio.Event) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._copy.watch, stop)
            tasks.start_soon(self._original.watch, stop)


def _merged(one: Collected, other: Collected) -> Collected:
    problems = dict.fromkeys([*one.problems, *other.problems])
    return Collected(one.files + other.files, one.fresh + other.fresh, list(problems))
