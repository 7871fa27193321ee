"""Links that lead to something that is collected: they lead to its new place afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from .files import unfinished


def leads_to(folder: str, target: str, tops: Sequence[tuple[str, str]]) -> str | None:
    """Where a link in the absolute path `folder` leads, relative to the working directory; None if
    that is elsewhere. A pure function of texts: links on the way are not followed.

    `tops` are absolute paths, and what they are relative to the working directory: that itself is
    the empty path.
    """
    absolute = os.path.normpath(os.path.join(folder, target))
    for top, path in tops:
        if absolute.startswith(f"{top}/"):
            rest = absolute[len(top) + 1 :]
            return f"{path}/{rest}" if path else rest
    return None


def led_anew(folder: str, target: str, place: str) -> str:
    """The target that leads a link in `folder` to `place`: absolute if `target` was. Blocks."""
    if target.startswith("/"):
        return place
    parent, name = os.path.split(place)
    return os.path.relpath(f"{os.path.realpath(parent)}/{name}", os.path.realpath(folder))


def replace_link(path: str, old: str, new: str) -> bool:
    """Replaces a link, in one step, if it still leads to `old`. False if that is not possible.
    Blocks.
    """
    temporary = unfinished(path)
    try:
        os.symlink(new, temporary)
        # Right before: a job may be about to replace it itself
        if os.readlink(path) == old:
            os.rename(temporary, path)
            return True
    except OSError:
        pass
    with suppress(OSError):
        os.unlink(temporary)
    return False
