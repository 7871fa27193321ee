"""What looks like a shell's work, or was pasted from a page: no shell reads the words of a job.

A word is judged as a shell would judge it: what is quoted so that a shell leaves it alone is meant
as it is, and nothing is said about it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import escape
from . import characters
from .source import Source, Word

ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")

_QUOTED = re.compile(r"'[^']*'|\\.|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_VARIABLE = re.compile(
    r"\$(?:[A-Za-z_]\w*|\(|\{[#!]?[A-Za-z_]\w*(?:$|\}|[-=?+%#/^,@\[]|:[-=?+\d (])[^}]*\}?)",
    re.ASCII,
)
"""What a shell replaces. `${oc.env:HOME}` is for the script: no shell knows such a name."""

_HOME = re.compile(r"(?:^|(?<==))~[\w-]*(?=/|$)")
_OPERATOR = re.compile(r"(?:&|&&|\||\|\||[^;]*;|\|&)$|(?:[0-9]|&)?(?:>|<)")

_JSON = re.compile(r"[\[{]\"")
_STRING = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_BACKSLASH = re.compile(r"(?<!\\)(?:\\\\)*\\[A-Za-z0-9]")
_SEQUENCE = re.compile(r"\{-?\d+\.\.-?\d+(?:\.\.-?\d+)?\}", re.ASCII)
_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))

_BUILTINS = frozenset(
    (
        *(".", "alias", "cd", "eval", "exec", "export", "for", "if", "module", "popd", "pushd"),
        *("set", "source", "ulimit", "unset", "while"),
    )
)
"""What only a shell can do, or what only looks like a program there."""

_SUSPICIOUS = re.compile(r"[$`~|<>&;*(\[{\\]|[^\x00-\x7f]")


class Finding(NamedTuple):
    """What is odd about a word: `kind` is the same for all that is odd in the same way."""

    kind: str
    text: str


def findings(source: Source, words: Iterable[Word], *, but: tuple[str, ...] = ()) -> Iterator[str]:
    """A warning for each odd word, one of a kind in a line. `but` are kinds that are no matter."""
    told: set[tuple[int, str]] = set()
    for word in words:
        raw = source.text[word.span.start : word.span.end]
        found = oddity(raw) if _SUSPICIOUS.search(raw) else None
        line = source.line(word.span.start)
        if found is not None and found.kind not in but and (line, found.kind) not in told:
            told.add((line, found.kind))
            yield f"{source.at(word.span)}: `{escape(raw)}` {found.text}"


def oddity(raw: str) -> Finding | None:
    """What a shell would make of a word as it is written, or what of it cannot be seen."""
    odd = characters.invisible(raw)
    if odd is not None:
        return Finding("invisible", odd)
    bare = _QUOTED.sub("", raw)
    odd = characters.typographic(bare)
    if odd is not None:
        return Finding("typographic", odd)
    home = _HOME.search(bare)
    if home and _has_home(home[0]):
        path = bare[home.start() :]
        text = f"is given as it is, because no shell replaces `{home[0]}`; {_instead(path)}"
        return Finding("home", text)
    expanding = _QUOTED.sub(lambda match: re.sub(r"\\.", "", match[1] or ""), raw)
    variable = _VARIABLE.search(expanding)
    if variable or "`" in expanding:
        what = variable[0] if variable else "`...`"
        text = f"is given as it is, because no shell replaces `{what}`; {_instead(what)}"
        return Finding("variable", text)
    if _OPERATOR.match(bare):
        text = "is an argument like any other, because no shell is there"
        return Finding("operator", f"{text}; write `bash, -c '...'`, or quote the word")
    if "*" in bare:
        text = "is given as it is, because no shell looks for files"
        return Finding("pattern", f"{text}; write the names, or quote the word")
    return _brackets(raw, bare)


def _brackets(raw: str, bare: str) -> Finding | None:
    """What brackets are no help against: quotes group words and go away, white space separates."""
    if _JSON.search(_QUOTED.sub(lambda match: match[0][0], raw)):
        text = "loses its quotes, as in a shell; write `'...'` around it if it is JSON"
        return Finding("quotes", text)
    if _SEQUENCE.search(bare):
        text = "is given as it is, because no shell counts"
        return Finding("sequence", f"{text}; `PROD(..., key=RANGE[...])` makes jobs, quotes a text")
    if _BACKSLASH.search(_STRING.sub("", raw)):
        text = "loses its backslashes, as in a shell; write `'...'` around it if they are meant"
        return Finding("backslash", text)
    if any(bare.count(opening) > bare.count(closing) for opening, closing in _PAIRS):
        if bare in ("(", "["):
            # As `find` and `test` want them
            return None
        text = "ends inside a bracket, because white space separates words"
        return Finding("bracket", f"{text}; quote what is one word")
    return None


def not_expanded_in(assignments: str) -> Iterator[str]:
    """What a shell would replace in the values of `NAME=value` words."""
    expanding = _QUOTED.sub(lambda match: re.sub(r"\\.", "", match[1] or ""), assignments)
    found = [match[0] for match in _VARIABLE.finditer(expanding)]
    found += [match[0] for match in _HOME.finditer(_QUOTED.sub("", assignments))]
    return (what for what in dict.fromkeys(found) if what[0] == "$" or _has_home(what))


def not_expanded(word: str) -> tuple[str, str] | None:
    """Why a word cannot be a program or a path, and what to write; None if it can."""
    assignment = ASSIGNMENT.match(word)
    if assignment and "/" not in assignment[0]:
        return "is an assignment, and no shell is there to make it", f"write `env {word} ...`"
    home = _HOME.match(word)
    variable = _VARIABLE.search(word)
    what = home[0] if home else variable[0] if variable else None
    if what is None:
        return None
    return f"is taken as it is: no shell replaces `{what}`", _instead(word if home else what)


def hint_for_program(word: str) -> str | None:
    """What to write instead of a program that is none, where that can be told from its name."""
    if word in _BUILTINS:
        return f"`{word}` is a shell's; write `bash, -c '...'`"
    if word in ("$", "%", ">", ">>>"):
        return f"leave the prompt `{word}` out"
    if " " in word:
        return "what is in quotes is one word; write it without them"
    return None


def hint_for_script(raw: str, text: str) -> str | None:
    """The same for a script, as it is written, that does not exist."""
    odd = oddity(raw)
    if odd is not None and odd.kind == "operator":
        return f"`{escape(raw)}` {odd.text}"
    return hint_for_program(text) if " " in text else None


def _has_home(tilde: str) -> bool:
    """Whether a shell would replace `~` or `~name`. `~logger` is no user, but a word of Hydra."""
    return tilde == "~" or os.path.expanduser(tilde) != tilde


def _instead(what: str) -> str:
    if what.startswith("~"):
        path = os.path.expanduser(what)
        return f"write `{escape(path)}`" if path != what else "write the whole path"
    return "write its value or `bash, -c '...'`, or put it in `'...'` if it is meant as it is"
