"""Arguments that name files of the working directory, for jobs that run in another one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import escape
from .binding import Binding
from .source import Source, Word
from .sweeps import distinct


def relative_paths(
    bindings: Iterable[Binding], standard: Iterable[Word], source: Source, working_directory: Path
) -> Iterator[str]:
    """A warning for each argument that is a relative path and leads to something that is there.

    `standard` are the arguments of all jobs. Program and script are no arguments: their paths are
    made absolute.
    """
    told: set[str] = set()
    for text, word in _arguments(bindings, standard):
        path = text.partition("=")[2] if text.startswith("-") else text
        if path in told or not _is_there(working_directory, path):
            continue
        told.add(path)
        yield (
            f"{source.at(word.span)}: `{escape(path)}` is there in the working directory, but the "
            f"jobs run in directories of their own (`cwd: experiment`); write "
            f"`{escape(str(working_directory / path))}` if it is meant"
        )


def _arguments(bindings: Iterable[Binding], standard: Iterable[Word]) -> Iterator[tuple[str, Word]]:
    """Each argument by the values that it can have."""
    for word in standard:
        yield word.text, word
    for binder, above, values in bindings:
        files = binder.stand_in.files
        for index, template in enumerate(binder.words):
            if index in files or (binder.stand_in.is_code and index == binder.stand_in.position):
                continue
            for _ in distinct(template.slots, above, values):
                yield template.fill(values), template.word


def _is_there(working_directory: Path, path: str) -> bool:
    is_relative = path.strip("./") != "" and not os.path.isabs(path)
    return is_relative and os.path.lexists(working_directory / path)
