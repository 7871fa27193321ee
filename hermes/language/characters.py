"""Characters that look like others, or like nothing: what word processors, pages and input methods
put in place of those of the keyboard."""

from __future__ import annotations

import unicodedata

ASCII = {
    **dict.fromkeys("“”„‟", '"'),
    **dict.fromkeys("‘’‚‛", "'"),
    **dict.fromkeys("‐‑‒–—―−﹣－", "-"),
}
"""Characters of typography, and what programs know in place of each."""

_WIDE = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
"""Characters as wide as a Chinese one, which are ASCII otherwise."""

_JOINERS = "\u200c\u200d"
"""Invisible, but part of how some scripts and emoji are written."""


def invisible(text: str) -> str | None:
    """What is wrong about the first character of a text that cannot be seen; None if all can."""
    if text.isascii():
        return None
    found = next(filter(_is_invisible, text), None)
    if found is None:
        return None
    name = unicodedata.name(found, "a control character").lower()
    code = f"U+{ord(found):04X}"
    return f"holds {code}, {name}, which looks like a space or like nothing; type it anew"


def typographic(text: str) -> str | None:
    """What to write in place of the first character that only looks like one of the keyboard.

    Wide characters are fine among others that are not ASCII, as in a Chinese sentence.
    """
    if text.isascii():
        return None
    found = next((char for char in text if char in ASCII), None)
    if found is not None:
        return f"holds the typographic `{found}`; write `{ASCII[found]}`, or quote the word"
    if any(not char.isascii() and char not in _WIDE for char in text):
        return None
    found = next(char for char in text if char in _WIDE)
    return f"holds the wide `{found}`; write `{_WIDE[found]}`, or quote the word"


def oddity(text: str) -> str | None:
    """The one or the other."""
    return invisible(text) or typographic(text)


def _is_invisible(char: str) -> bool:
    if char.isascii() or char in _JOINERS:
        return False
    return unicodedata.category(char) in ("Cf", "Zs", "Zl", "Zp", "Cc") and char != "\u3000"
