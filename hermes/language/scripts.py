"""Which word of a command is its script. Only words are looked at, never the disk."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..model import PLACEHOLDER

INTERPRETERS = frozenset({
    "bash", "sh", "dash", "zsh", "ksh", "fish", "Rscript", "julia", "node", "nodejs", "deno", "bun",
    "perl", "ruby", "lua", "luajit", "php", "tclsh", "octave", "octave-cli", "guile", "racket",
})  # fmt: skip
"""Programs that take a script as their argument, by base name."""

PYTHONS = ("python", "pypy", "ipython")
"""How the names of others begin, whatever version follows."""

_SUFFIX = re.compile(r"[^/]\.[A-Za-z]\w*$")
"""What makes a word look like a file; `0.5` does not."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """The script word of a command, and what it means.

    `position` is its index among the words of all items, `folder` the name of the folder for its
    experiments. `is_file` says that there has to be such a file; `is_interpreter` that the word
    itself is an interpreter.
    """

    word: str
    position: int
    is_file: bool = False
    is_interpreter: bool = False

    @cached_property
    def folder(self) -> str:
        return os.path.basename(self.word.rstrip("/")).removesuffix(".py")


@lru_cache(maxsize=1000)
def is_interpreter(program: str) -> bool:
    """Whether a program takes a script as its argument; `python_train.py` is a script itself."""
    base = os.path.basename(program)
    return not base.endswith(".py") and (base in INTERPRETERS or base.startswith(PYTHONS))


def find_script(items: Sequence[Sequence[str]]) -> Script:
    """Which word of a command is its script: the first rule that fits.

    Of the first item the first two words and the last are looked at, of the second the first two.
    """
    first = items[0]
    second = items[1] if len(items) > 1 else ()
    interpreter = is_interpreter(first[0])
    if "/" in first[0] and not interpreter:
        return Script(word=first[0], position=0)
    if len(second) > 1 and second[0] == "-m":
        return Script(word=second[1], position=len(first) + 1)
    if second and first[-1] == "-m":
        return Script(word=second[0], position=len(first))
    if second and not second[0].startswith("-"):
        word = second[0]
        is_file = interpreter or "/" in word or bool(_SUFFIX.search(word))
        return Script(word=word, position=len(first), is_file=is_file)
    if interpreter and len(first) > 1 and not first[1].startswith("-"):
        return Script(word=first[1], position=1, is_file=True)
    return Script(word=first[0], position=0, is_interpreter=interpreter)


def items_of(words: list[str]) -> list[list[str]]:
    """Splits a command into items, so that `find_script` finds its script.

    The first item ends after an interpreter's own options. After `-c` there is code and no script:
    it gets the identifier as its first argument.
    """
    end = 1
    while end < len(words) and words[end].startswith("-") and words[end] not in ("-c", "-m"):
        end += 1
    if not is_interpreter(words[0]) or end == len(words):
        return [words]
    if words[end] == "-c":
        placed = any(PLACEHOLDER in word for word in words)
        return [words if placed else [*words[: end + 2], PLACEHOLDER, *words[end + 2 :]]]
    return [words[:end], words[end:]]
