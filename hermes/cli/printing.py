"""How `hermes logs` prints."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import hermes
from hermes.show import printed

from .app import say


def print_logs(
    found: Sequence[hermes.FoundExperiment],
    root: Path | None,
    streams: Sequence[str],
    *,
    follow: bool,
    tail: int | None,
    raw: bool,
) -> None:
    """Prints what these experiments have printed; with `follow` until they have ended."""
    # `hermes logs | head` and Ctrl-C end quietly: nothing is lost by that
    for number in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    printer = _Printer(found, root, raw=raw)
    if follow:
        _follow(found, streams, printer, tail)
        _tell_left(found)
    else:
        for each in found:
            for stream in streams:
                for data in printed.blocks(str(each.directory), stream, tail):
                    printer.take(each.identifier, stream, data)
                printer.end(each.identifier, stream)
    if not printer.has_printed:
        say("nothing was printed")


def _follow(
    found: Sequence[hermes.FoundExperiment],
    streams: Sequence[str],
    printer: _Printer,
    tail: int | None,
) -> None:
    import anyio

    async def show() -> None:
        starts = {}
        if tail is not None:
            starts = {each.identifier: printed.starts(str(each.directory), tail) for each in found}
        async with hermes.follow_logs(found, starts) as chunks:
            async for chunk in chunks:
                if chunk.stream in streams:
                    printer.take(chunk.identifier, chunk.stream, chunk.data)
                    sys.stdout.flush()

    anyio.run(show)
    for each in found:
        for stream in streams:
            printer.end(each.identifier, stream)


def _tell_left(found: Sequence[hermes.FoundExperiment]) -> None:
    """Says which jobs have ended without anybody who has written down how."""
    for each in found:
        try:
            status = hermes.load_experiment(each.directory).status
        except hermes.HermesError:
            continue
        if status is hermes.Status.RUNNING:
            say(f"{each.identifier} runs no more; `hermes resume` finds out how it ended")


class _Printer:
    """Prints what jobs have printed: the bytes, or lines, of several jobs with their names."""

    def __init__(
        self, found: Sequence[hermes.FoundExperiment], root: Path | None, *, raw: bool
    ) -> None:
        self.has_printed = False
        self._raw = raw
        self._lines: dict[tuple[str, str], printed.Lines] = {}
        identifiers = [each.identifier for each in found]
        shorts = list(hermes.short_names(identifiers, root).values())
        for stream in printed.FILES:
            names = printed.names(shorts, stream) if len(found) > 1 else [""]
            for identifier, name in zip(identifiers, names, strict=True):
                self._lines[identifier, stream] = printed.Lines(name)

    def take(self, identifier: str, stream: str, data: bytes) -> None:
        self.has_printed = True
        if self._raw:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        for text in self._lines[identifier, stream].take(data):
            sys.stdout.write(f"{text}\n")

    def end(self, identifier: str, stream: str) -> None:
        """No more comes of this job on this stream."""
        for text in self._lines[identifier, stream].end():
            sys.stdout.write(f"{text}\n")
