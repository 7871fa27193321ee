"""Sends a message to one address by Apprise. A program of its own: so Apprise costs a run nothing,
and one of its many services that hangs or prints can be ended.

It reads a request as JSON from its standard input: `address`, `title` and `text`. Without a text
nothing is sent, and it only looks whether Apprise knows such an address. The last line that it
prints is what went wrong as JSON, or null.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys

MISSING = "Apprise is not installed"
UNKNOWN = "Apprise does not know such an address"


class Warnings(logging.Handler):
    """Keeps the latest warning: why something was not sent. It may come from any thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.latest = "it was not delivered"

    def emit(self, record: logging.LogRecord) -> None:
        self.latest = record.getMessage()


def problem_of(request: dict[str, str | None]) -> str | None:
    """Why nothing was sent; None if it was."""
    try:
        apprise = importlib.import_module("apprise")
    except ImportError:
        return MISSING
    warnings = Warnings()
    logging.getLogger("apprise").addHandler(warnings)
    service = apprise.Apprise()
    try:
        if not service.add(request["address"]):
            return UNKNOWN
        title, text = request["title"], request["text"]
        if text is None or service.notify(title=title, body=text, body_format="text"):
            return None
    except Exception as exc:
        # A service may be anybody's code
        return f"{type(exc).__name__}: {exc}"
    return warnings.latest


if __name__ == "__main__":
    print(json.dumps(problem_of(json.load(sys.stdin))))
