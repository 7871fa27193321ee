"""Which word of a command is its script.

Launchers come off first, with their options and operands. What stands behind them decides, by the
first rule that fits: an interpreter's script, a path, the first word of the second item, a word
that ends in `.py`, the first word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property

import msgspec
from msgspec.structs import replace

from ..model import holds_identifier
from .launchers import PYTHON_MODULES, Interpreter, Launcher, interpreter_of, launcher_of
from .words import is_option

SUFFIXES = (
    ".py", ".pyw", ".sh", ".bash", ".zsh", ".R", ".r", ".jl", ".m", ".js", ".mjs", ".cjs", ".ts",
    ".pl", ".rb", ".lua", ".php", ".tcl", ".scm", ".rkt", ".jar", ".ipynb", ".do", ".sas", ".nf",
)  # fmt: skip
"""How the names of scripts end."""

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_NUMBERS = re.compile(r"[0-9][0-9.,:-]*")
_MODULE = ("-m", "--module")
_FILE = re.compile(r"(?:\A| )(?:-f |--file=)(\S+)")


class Script(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The script word of a command, and what it means.

    `position` is its index among the words of all items, `folder` the name of the folder for its
    experiments. `is_file` says that there has to be such a file. `is_program` says that the word is
    a program and no script: it may not expect an identifier.
    """

    word: str
    position: int
    is_file: bool = False
    is_program: bool = False
    is_any_word: bool = False
    """Whether it was found by its name among all words, or because none was."""

    name: str | None = None
    """What gives the folder its name, where that is not `word`: the word is code, or there is
    nothing but launchers."""

    start: int = 0
    """The index of the first word behind the launchers."""

    in_shell: bool = False
    """Whether a shell reads the command, on another machine."""

    own_files: bool = False
    """Whether a launcher, such as `docker`, starts it where other files are."""

    is_module: bool = False

    @property
    def is_code(self) -> bool:
        return self.name is not None and not self.is_program

    @property
    def files(self) -> tuple[int, ...]:
        """The indices of the words that are program and script, where they are files of this
        machine: the first word is always a program of it."""
        if self.own_files:
            return (0,)
        is_named = self.name is None and not self.is_module
        return tuple(sorted({0, self.start, *([self.position] if is_named else [])}))

    @cached_property
    def folder(self) -> str:
        return os.path.basename((self.name or self.word).rstrip("/")).removesuffix(".py")


def find_script(
    words: Sequence[str], second_item: int | None, exists: Callable[[str], bool]
) -> Script:
    """Which word of a command is its script.

    `second_item` is the index of the first word of the second item, None if there is only one.
    `exists` tells whether there is a file of that name; it is asked of few words.
    """
    start, own_files, runs_python, in_shell = 0, False, False, False
    while start < len(words) and (launcher := launcher_of(words[start])) is not None:
        behind = behind_launcher(words, start, launcher, exists)
        if behind is None:
            break
        start, own_files = behind, own_files or launcher.own_files
        runs_python, in_shell = launcher.runs_python, in_shell or launcher.own_shell
        if runs_python:
            break
    if start >= len(words):
        # Nothing but launchers: what they start is known to them alone, as to an image
        last = len(words) - 1
        return Script(word=words[last], position=last, is_program=True, name=words[0])
    found = _behind_launchers(
        words, start, second_item, exists, sees_files=not own_files, runs_python=runs_python
    )
    return replace(found, start=start, in_shell=in_shell, own_files=own_files)


def _behind_launchers(
    words: Sequence[str], start: int, second_item: int | None, exists: Callable[[str], bool],
    *, sees_files: bool, runs_python: bool,
) -> Script:  # fmt: skip
    if runs_python and (module := _python_script(words, start)) is not None:
        return module
    interpreter = interpreter_of(words[start])
    if interpreter is not None:
        return _interpreted(words, start, interpreter, sees_files=sees_files)
    if "/" in words[start]:
        return Script(word=words[start], position=start)
    if second_item is not None and second_item > start:
        word = words[second_item]
        is_plain = "{" not in word and not word.startswith("-")
        if is_plain and (word.endswith(SUFFIXES) or exists(word)):
            return Script(word=word, position=second_item)
    for position in range(start, len(words)):
        if words[position].endswith(".py") and not _follows_option(words, position, start):
            return Script(word=words[position], position=position, is_any_word=True)
    return Script(word=words[start], position=start, is_program=True, is_any_word=True)


def behind_launcher(
    words: Sequence[str],
    start: int,
    launcher: Launcher,
    exists: Callable[[str], bool] = lambda _: False,
) -> int | None:
    """The index of the first word that is not the launcher's own; None if it starts nothing."""
    at = start + 1
    if launcher.subcommands:
        at = _skip_options(words, at, launcher)
        if at < len(words) and words[at] in launcher.groups:
            at = _skip_options(words, at + 1, launcher)
        if at >= len(words) or words[at] not in launcher.subcommands:
            return None
        at += 1
    at = _skip_options(words, at, launcher)
    if not launcher.operands:
        # Not all options are known: the word behind one may be its value
        while _is_value(words, at, launcher, exists):
            at = _skip_options(words, at + 1, launcher)
    at += launcher.operands
    while launcher.assignments and at < len(words) and _ASSIGNMENT.match(words[at]):
        at += 1
    return at


def _skip_options(words: Sequence[str], at: int, launcher: Launcher) -> int:
    while at < len(words):
        word = words[at]
        if word == "--":
            return at + 1
        # `env -` is `env -i`
        if not word.startswith("-") or (word == "-" and not launcher.assignments):
            break
        if launcher.runs_python and word in _MODULE:
            break
        at += 1
        if word in launcher.takes:
            at += 1
        elif word in launcher.takes_two:
            at += 2
    return at


def _is_value(
    words: Sequence[str], at: int, launcher: Launcher, exists: Callable[[str], bool]
) -> bool:
    """Whether this word belongs to the option in front of it, because no program is called so, or
    because what follows it is a program."""
    if at >= len(words) or not is_option(words[at - 1]) or _is_started(words[at], launcher):
        return False
    if _NUMBERS.fullmatch(words[at]):
        return True
    follows = words[at + 1 : at + 2]
    return bool(follows) and _is_started(follows[0], launcher) and not exists(words[at])


def _is_started(word: str, launcher: Launcher) -> bool:
    """Whether a word can only be what a launcher starts."""
    if launcher.runs_python and (word in _MODULE or word.endswith(".py")):
        return True
    return interpreter_of(word) is not None or launcher_of(word) is not None


def _python_script(words: Sequence[str], start: int) -> Script | None:
    """The script behind a launcher of Python scripts; None if the rules for all have to decide."""
    if words[start] in _MODULE and start + 1 < len(words):
        return Script(word=words[start + 1], position=start + 1, is_module=True)
    return None


def _interpreted(
    words: Sequence[str], start: int, interpreter: Interpreter, *, sees_files: bool
) -> Script:
    """What stands behind an interpreter and its options."""
    at = start + 1
    if at < len(words) and words[at] in interpreter.subcommands:
        at += 1
    code: int | None = None
    if interpreter.arguments and interpreter.arguments in words[at:]:
        position = words.index(interpreter.arguments, at)
        file = _FILE.search(" ".join(words[at:position]))
        return Script(
            word=words[position], position=position, name=file[1] if file else words[start]
        )
    while at < len(words) and _is_option(words[at], interpreter):
        kind = _kind_of(words[at], interpreter)
        if kind == "module" and at + 1 < len(words):
            return _module(words, at + 1)
        if kind in ("code", "attached"):
            # Of several pieces of code the identifier follows the last, for arguments come then
            code = at + (kind == "code")
        at += 2 if kind in ("code", "value") else 1
        if words[at - 1] == "--":
            break
    if code is not None:
        position = min(code, len(words) - 1)
        return Script(word=words[position], position=position, name=words[start])
    if at < len(words):
        is_file = sees_files and not holds_identifier(words[at]) and words[at] != "-"
        return Script(word=words[at], position=at, is_file=is_file)
    return Script(word=words[start], position=start, is_program=True)


def _is_option(word: str, interpreter: Interpreter) -> bool:
    starts = ("-", "+") if "+o" in interpreter.takes else "-"
    return word.startswith(starts) and word != "-"


def _kind_of(word: str, interpreter: Interpreter) -> str:
    """What an option brings along: `value`, `code` or `module` in the next word, code that is
    `attached`, or nothing: `flag`."""
    if word in interpreter.takes:
        return "value"
    if word in interpreter.code:
        return "code"
    if word in interpreter.module:
        return "module"
    if interpreter.clusters and not word.startswith("--"):
        # Short options written together: the first that takes something takes the rest of the word
        for end, letter in enumerate(word[1:], 2):
            rest, option = word[end:], word[0] + letter
            if option in interpreter.code:
                # A shell's own options may stand behind its `-c`
                is_shell = "+o" in interpreter.takes
                return "attached" if rest and not is_shell else "code"
            if option in interpreter.module:
                return "flag" if rest else "module"
            if option in interpreter.takes:
                return "flag" if rest else "value"
    return "flag"


def _module(words: Sequence[str], position: int) -> Script:
    launcher = PYTHON_MODULES.get(words[position])
    if launcher is not None:
        behind = behind_launcher(words, position, launcher)
        if behind is not None and behind < len(words):
            found = _python_script(words, behind)
            return found or Script(word=words[behind], position=behind)
    return Script(word=words[position], position=position, is_module=True)


def _follows_option(words: Sequence[str], position: int, start: int) -> bool:
    return position > start and is_option(words[position - 1])
