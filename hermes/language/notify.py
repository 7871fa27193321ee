"""Where a run sends word: the kind of the setting `notify`. Nothing here sends anything.

What it says may hold secrets. So it is kept out of everything that others read: `Notify.shown`
stands there instead.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

import msgspec

from .kinds import Kind

HIDDEN = "***"
"""Stands for what is not shown."""

_COMMAND = re.compile(r"command\s*:\s*")
_BEGINS = r"(?:[A-Za-z][A-Za-z0-9+.-]*://|\$)"
_BETWEEN = re.compile(rf"[\s,]+(?={_BEGINS})")
_ADDRESS = re.compile(rf"{_BEGINS}\S+")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)
_PIECE = re.compile(r"[\w-]{4,}")


class Notify(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run sends word: to Apprise addresses, or to one command.

    `text` is how it was written. One of `addresses` and `command`, its words, is empty.
    """

    text: str
    addresses: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Notify {self.shown}>"

    @property
    def shown(self) -> str:
        """What others may read of it: `tgram://***`, `command: curl ***`."""
        if self.command:
            more = f" {HIDDEN}" if len(self.command) > 1 else ""
            return f"command: {self.command[0]}{more}"
        return " ".join(map(shown_address, self.addresses))


def shown_address(address: str) -> str:
    """An address without its secrets: `tgram://***`; `$NAME`, which is none."""
    if _VARIABLE.fullmatch(address):
        return address
    scheme, mark, _ = address.partition("://")
    return f"{scheme}://{HIDDEN}" if mark and "$" not in scheme else HIDDEN


def expanded(address: str, environment: Mapping[str, str]) -> str:
    """An address with the values of its `$NAME` and `${NAME}`. Raises `KeyError` for a variable
    that is not set."""
    return _VARIABLE.sub(lambda found: environment[found[1] or found[2]], address)


def without(text: str, secrets: Iterable[str]) -> str:
    """`text` in which no piece of the secrets stands any more that is long enough to be one."""
    found = {piece for secret in secrets for piece in _PIECE.findall(f"{secret} {unquote(secret)}")}
    for piece in sorted(found, key=len, reverse=True):
        text = text.replace(piece, HIDDEN)
    return text


def _parse_notify(text: str) -> Notify:
    text = text.strip()
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ValueError("expected a text without control characters")
    command = _COMMAND.match(text)
    if command:
        return Notify(text=text, command=_words(text[command.end() :]))
    addresses = tuple(_BETWEEN.split(text))
    if not all(map(_ADDRESS.fullmatch, addresses)):
        raise ValueError(
            "expected addresses of Apprise such as `tgram://BOT_TOKEN/CHAT_ID`, or `command: ...`"
        )
    return Notify(text=text, addresses=addresses)


def _words(text: str) -> tuple[str, ...]:
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise ValueError(f"the command cannot be split into words: {str(exc).lower()}") from None
    if not words or not words[0]:
        raise ValueError("expected a program behind `command:`")
    return tuple(words)


def _taken_notify(given: str | Iterable[str]) -> Notify:
    return _parse_notify(given if isinstance(given, str) else " ".join(given))


NOTIFY = Kind(
    noun="addresses or a command",
    metavar="WHERE",
    parse=_parse_notify,
    write=lambda notify: notify.text,
    take=_taken_notify,
    shown=lambda notify: notify.shown,
)
