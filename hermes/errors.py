"""Everything that Hermes raises on purpose is a `HermesError`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """A stretch of one line of a text file.

    Lines and columns count from 1; columns and `width` count characters.
    """

    path: str
    line: int
    column: int
    width: int
    text: str


class HermesError(Exception):
    """Something that the user can mend: what is wrong, and where possible how to mend it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"error: {bounded(self.message)}"]
        if self.hint:
            lines.append(f"hint: {bounded(self.hint)}")
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback: the message, and the line of the cell, or
        of the caller's own module. The way from there through Hermes is no part of what can be
        mended."""
        import traceback

        frames = traceback.extract_tb(self.__traceback__)
        inside = (place for place, frame in enumerate(frames) if _is_ours(frame.filename))
        own = frames[: next(inside, len(frames))][-1:]
        return str(self).split("\n") + [
            f"in line {frame.lineno} of {_where(frame.filename)}: {frame.line}" for frame in own
        ]


def _is_ours(path: str) -> bool:
    return os.path.dirname(path).startswith(os.path.dirname(__file__))


def _where(path: str) -> str:
    is_cell = "ipykernel_" in path or path.startswith("<ipython-input")
    return "the cell" if is_cell else f"`{escape(path)}`"


class HermesFileError(HermesError):
    """A mistake in a hermes file or in `.hermes_settings`, with its place."""

    def __init__(self, message: str, place: Place, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.place = place

    @property
    def path(self) -> str:
        return self.place.path

    @property
    def line(self) -> int:
        return self.place.line

    @property
    def column(self) -> int:
        return self.place.column

    def __str__(self) -> str:
        place = self.place
        # Control characters would move the caret, or reach the terminal
        text = "".join(c if c.isprintable() else " " for c in place.text)
        before = place.column - 1
        if len(text) > 160:
            start = max(0, before - 60)
            text, before = text[start : start + 160], before - start
        message = bounded(escape(self.message))
        caret = "^" * max(1, min(place.width, len(text) - before))
        gutter = " " * (len(str(place.line)) + 1)
        lines = [
            f"error: {message}",
            f"{gutter}--> {escape(place.path)}:{place.line}:{place.column}",
            f"{gutter} |",
            f" {place.line} | {text}",
            f"{gutter} | {' ' * before}{caret}",
        ]
        if self.hint:
            lines.append(f"hint: {bounded(escape(self.hint))}")
        return "\n".join(lines)


class PlanError(HermesError):
    """All that keeps a plan from being executed; nothing was created."""

    SHOWN = 50
    """Problems that are printed one by one; a sweep may have thousands."""

    def __init__(self, problems: Sequence[HermesError]) -> None:
        super().__init__("\n".join(problem.message for problem in problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        shown = [str(problem) for problem in self.problems[: self.SHOWN]]
        more = len(self.problems) - len(shown)
        return "\n\n".join([*shown, f"error: and {more} more problems"] if more else shown)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the known word nearest to `word`, or None if none is near."""
    known = list(known)
    same = next((each for each in known if each.casefold() == word.casefold() != ""), None)
    near = [same] if same else difflib.get_close_matches(word, known, n=10, cutoff=0.5)

    def distance(found: str) -> tuple[int, int, str]:
        # `-cc` is nearer to `-ca` than to `-c`: a wrong character is likelier than one too many
        kept = sum(
            block.size for block in difflib.SequenceMatcher(None, word, found).get_matching_blocks()
        )
        return -kept, abs(len(found) - len(word)), found

    return f"did you mean `{min(near, key=distance)}`?" if near else None


def escape(text: str) -> str:
    """`text` made safe for a terminal: what does not print is shown as an escape sequence."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def shortened(text: str, most: int = 1000) -> str:
    """`text`, or its beginning and how long it is: a command can have 2 MB."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def bounded(message: str, most: int = 3000) -> str:
    """A message whose lines keep their beginning and their end, where they name something huge."""
    return "\n".join(
        line
        if len(line) <= most
        else f"{line[: most // 2]}... ({len(line)} characters) ...{line[-most // 2 :]}"
        for line in message.split("\n")
    )


def _escaped(char: str) -> str:
    return (
        char.encode("unicode_escape").decode()
        if not "\udc80" <= char <= "\udcff"
        else f"\\x{ord(char) & 0xFF:02x}"
    )
