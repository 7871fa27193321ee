"""Experiments by their identifiers, found by the names of their directories alone: that takes no
longer than the system needs to list them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from ..errors import HermesError, escape
from .columns import row_of
from .found import FoundExperiment, experiments
from .places import directories_in, folders_of
from .reading import metadata_of, summaries_of

_PART = re.compile(r"\w+", re.ASCII)
"""What can be a part of an identifier; a filter never is one word."""

MOST_NAMED = 5
"""Identifiers that are named to somebody whose part fits several."""


def experiment_directories(
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
) -> dict[str, str]:
    """The directories of all experiments by their identifiers, the newest first. Blocks.

    They may turn out to hold nothing that can be read.
    """
    found: dict[str, str] = {}
    for folder in folders_of(root, working_directory, _ignore):
        for directory in directories_in(folder, _ignore):
            found.setdefault(os.path.basename(directory), directory)
    return dict(sorted(found.items(), reverse=True))


def find_experiment(
    part: str | None = None,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
) -> FoundExperiment:
    """The experiment whose identifier holds `part`; the latest one without. Blocks.

    `root` is as in `experiments`. Raises `HermesError` if that is not one experiment, or if its
    metadata cannot be read.
    """
    known = experiment_directories(root, working_directory)
    if part is not None:
        return read_experiment(known[_the_one(part, known)])
    for directory in known.values():
        if os.path.lexists(directory) and (found := _read(directory)) is not None:
            return found
    raise HermesError("there are no experiments yet", hint="`hermes exec` makes some")


def find_experiments(
    words: Sequence[str],
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
) -> list[FoundExperiment]:
    """The experiments that are meant by any of these words, each once, the newest first.

    A word is a part of an identifier, or a filter. Blocks. Raises `HermesError`.
    """
    found: dict[str, FoundExperiment] = {}
    for word in words:
        wanted: Iterable[FoundExperiment]
        if _PART.fullmatch(word):
            wanted = [find_experiment(word, root, working_directory)]
        else:
            wanted = experiments(word, root, working_directory)
        found.update((each.identifier, each) for each in wanted)
    return [found[identifier] for identifier in sorted(found, reverse=True)]


def read_experiment(directory: str) -> FoundExperiment:
    """An experiment by its directory. Blocks. Raises `HermesError` if there is none in it."""
    metadata = metadata_of(directory)
    if metadata.identifier != os.path.basename(directory):
        raise HermesError(
            f"`{escape(directory)}` holds the metadata of `{escape(metadata.identifier)}`"
        )
    return FoundExperiment(row_of(directory, metadata, summaries_of(directory)))


def short_names(
    identifiers: Iterable[str],
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
) -> dict[str, str]:
    """Short parts by which commands find these experiments among all that there are: the time of
    day, or all of the identifier. Blocks."""
    counts = Counter(map(_time_of_day, experiment_directories(root, working_directory)))
    return {
        each: _time_of_day(each) if counts[_time_of_day(each)] < 2 else each for each in identifiers
    }


def _the_one(part: str, known: Collection[str]) -> str:
    fitting = [part] if part in known else [each for each in known if part in each]
    if not part or not fitting:
        name = f', `"name = {escape(part)}"` means those of a name' if part.isidentifier() else ""
        raise HermesError(
            f"no experiment has `{escape(part)}` in its identifier",
            hint=f"`hermes ls` lists them{name}",
        )
    if len(fitting) > 1:
        names = [f"`{each}`" for each in fitting[:MOST_NAMED]]
        more = [f"{len(fitting) - MOST_NAMED} more"] if len(fitting) > MOST_NAMED else []
        raise HermesError(f"`{escape(part)}` may be {', '.join(names + more)}")
    return fitting[0]


def _read(directory: str) -> FoundExperiment | None:
    try:
        return read_experiment(directory)
    except HermesError:
        return None


def _time_of_day(identifier: str) -> str:
    parts = identifier.split("_")
    return parts[3] if len(parts) > 3 else identifier


def _ignore(text: str) -> None:
    """What is told of folders concerns other experiments."""
