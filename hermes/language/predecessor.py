"""Words of rlmate, which Hermes follows, that mean something else or nothing here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import escape

if TYPE_CHECKING:
    # The table of settings needs the words alone, also where no file is read
    from .source import Source, Word

HEADER = "STD"
"""What `hermes create` of rlmate writes, and rlmate itself does not read any more."""

HEADER_HINT = "write `STD-H` above hermes options, and `STD-E` above arguments of the scripts"

KEYS = ("bot_id", "chat_id")
"""Settings that say where Telegram messages go, a line for each chat."""

KEY_LINE = re.compile(rf"({'|'.join(KEYS)})\b")
"""Any character may follow. The bot tells people to write `chat_id=1`."""

NO_MESSAGES = "belongs to rlmate and does nothing here: the setting `notify` sends messages"

MESSAGES = (
    "belongs to rlmate and does nothing here; write `notify: tgram://BOT_ID/CHAT_ID` for messages "
    "by Telegram"
)

HERMES_IO = re.compile(
    rb"^[ \t]*(?:from[ \t]+rlmate[ \t]+import\b[^\n#]*\bhermes_io\b"
    rb"|(?:import|from)[ \t]+rlmate\.hermes_io\b)",
    re.MULTILINE,
)
"""The import of a module that asks `.hermes_pids`, which rlmate writes, where its files go. Without
an answer all jobs write to the same folder.
"""

_GLUED = re.compile(r"[^\s:'\"\\]+?(?=#)|[^\s:/'\"\\]+(?=//)")


def glued_comments(source: Source, words: Iterable[Word]) -> Iterator[str]:
    """A warning for each word with a `#` or `//` inside, where a comment begins for rlmate.

    Addresses (`http://x/y#z`) are left alone, and what is in quotes.
    """
    for word in words:
        glued = glued_comment(source.text[word.span.start : word.span.end])
        if glued:
            yield f"{source.at(word.span)}: {glued}"


def glued_comment(raw: str) -> str | None:
    """What to write in place of a word, as it is written, in which rlmate would see a comment."""
    glued = _GLUED.match(raw)
    if not glued:
        return None
    comment = raw[glued.end() :]
    mark = "#" if comment[0] == "#" else "//"
    apart = f"{raw[: glued.end()]} {mark} {comment.removeprefix(mark)}".rstrip()
    return (
        f"`{escape(raw)}` is one word; write `{escape(apart)}` if a comment begins there, or "
        "quote it"
    )
