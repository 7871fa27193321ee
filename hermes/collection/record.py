"""What has been linked into an experiment directory while its job runs, on the disk.

The next runner, should this one be killed, tells by it what was collected from what the job has put
there itself. It is written only for files that are found while the job runs. All of this blocks.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from ..storage.files import open_regular, read_regular, write_all
from ..storage.layout import FORMATS, LINKS
from .linking import Key


class LinkRecord:
    """The links of one job, in the run's folder, out of the reach of jobs.

    A line is a link: format, path in the working directory, path in the experiment directory, and
    key; the last two are null if it has gone. Without a `path` nothing is kept. Nothing here
    raises: for lack of a record both files are kept.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._is_used = False

    def add(self, path: str, stored: str, key: Key) -> None:
        self._append([path, stored, key])

    def remove(self, path: str) -> None:
        if self._is_used:
            self._append([path, None, None])

    def read(self) -> dict[tuple[str, Key], str]:
        """From what is in the experiment directory, path and key, to the path where it was."""
        if self._path is None:
            return {}
        links: dict[str, tuple[str, Key]] = {}
        with suppress(OSError):
            for line in read_regular(self._path).split(b"\n")[:-1]:
                self._is_used = True
                # The last line of a runner that was killed may be torn
                with suppress(ValueError, TypeError):
                    number, path, stored, key = json.loads(line)
                    links.pop(path, None)
                    if number <= FORMATS[LINKS] and stored is not None:
                        links[path] = stored, key if isinstance(key, str) else (key[0], key[1])
        return {link: path for path, link in links.items()}

    def discard(self) -> None:
        """The job has come to its end, and everything of its is in one place."""
        if self._path is not None and self._is_used:
            with suppress(OSError):
                os.unlink(self._path)

    def _append(self, values: list[object]) -> None:
        if self._path is None:
            return
        with suppress(OSError):
            fd = open_regular(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                self._is_used = True
                write_all(fd, json.dumps([FORMATS[LINKS], *values]).encode() + b"\n")
            finally:
                os.close(fd)
