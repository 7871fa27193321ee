"""Who owns a path: the live job whose identifier stands nearest to its end. Pure functions of
values.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Set
from typing import NamedTuple

from ..model import IDENTIFIER, IDENTIFIER_LENGTH

SHORTEST = IDENTIFIER_LENGTH
"""Characters of an identifier: shorter names carry none."""


class Contested(NamedTuple):
    """A name that belongs to nobody, because it carries the identifiers of several jobs.

    `path` ends with that name, `identifiers` are those of them that are live.
    """

    path: str
    identifiers: frozenset[str]


def carriers(path: str, live: Container[str]) -> dict[str, frozenset[str]]:
    """The names in a path that carry live identifiers, outermost first, and which these are.

    Each name is given as the part of the path that ends with it.
    """
    found: dict[str, frozenset[str]] = {}
    for match in IDENTIFIER.finditer(path):
        if match[1] in live:
            # An identifier holds no slash, so the name that carries it ends at the next one
            end = path.find("/", match.start())
            name = path if end < 0 else path[:end]
            found[name] = found.get(name, frozenset()) | {match[1]}
    return found


def owner(
    path: str,
    live: Container[str],
    contested: Set[str],
    lives_elsewhere: Callable[[str], bool] = lambda identifier: False,
) -> str | Contested | None:
    """The identifier of the live job that `path` belongs to, or why it belongs to none; None if it
    carries no live one.

    `contested` are paths that were found to be contested before. They remain so: when one of two
    owners has ended, the other must not get what may be the first one's. `lives_elsewhere` tells of
    an identifier that is not in `live` whether it is a live one of another run; it is asked only
    about names beside one that is.
    """
    carried = IDENTIFIER.findall(path)
    if len(carried) <= 1 and not contested:
        # Nearly always, and asked for every file
        return carried[0] if carried and carried[0] in live else None
    nearest: str | None = None
    found = carriers(path, live)
    if found:
        others = {identifier for identifier in carried if identifier not in live}
        if others := set(filter(lives_elsewhere, others)):
            found = carriers(path, others.union(*found.values()))
    for name, identifiers in found.items():
        if len(identifiers) > 1 or name in contested:
            return Contested(name, identifiers)
        (nearest,) = identifiers
    return nearest


def last_name_carries(path: str, identifier: str) -> bool:
    """Whether the path's own name carries the identifier, and not only a folder above it."""
    return identifier in path.rpartition("/")[2]
