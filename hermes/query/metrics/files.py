"""Which files of an experiment hold metrics, and what is in them.

Where two kinds of files tell of the same metric, the first of this order counts: event files of
TensorBoard, CSV, JSON lines, JSON, scores of rlmate, standard output. Where two files of one kind
do, the metric of the second has the name of its file (of its folder, for event files) before its
own: `eval/loss`. All functions here block.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

from msgspec.structs import astuple

from ...errors import HermesError, escape
from ...storage.files import lstat, open_regular
from ...storage.layout import OWN, PART, STDOUT
from ...storage.metadata import Metadata, Summary, read_metadata
from .curves import Curve
from .objects import read_lines, read_object
from .printed import LONGEST, read_printed
from .scores import read_scores
from .sinks import Sink, Target
from .tables import read_table
from .tensorboard import read_events

MOST_FILES = 2000
"""Files and folders of an experiment that are looked at."""

DEEPEST = 8
"""Folders in folders that are looked into."""

LARGEST_OBJECT = 2**26
"""Bytes of a JSON file that is read as a whole."""

SMALL = 2**16
"""Bytes of a file that is read by one call."""

LONGEST_LINE = 2**24
"""Bytes of a line that are read at once."""

ENOUGH = 16 * LONGEST
"""Bytes that are too long for a printed metric, in any encoding and style."""

MANY_FILES = 200
"""Files of a job that are not looked through when it has ended."""

MOST_IN_METADATA = 50
"""Metrics that are summed up in the metadata: more make these slow to read."""

SETTINGS = ("config", "param", "args", "settings", "hparams", "options", "environment")
"""A JSON file whose name begins so says how a job was set up, not what came of it."""


class _Source(NamedTuple):
    """A file with metrics. Kinds are sorted by their rank."""

    kind: str
    path: str
    label: str


_KINDS = ("events", "table", "lines", "object", "scores", "printed")


class Summed(NamedTuple):
    """What sums up the metrics of an experiment, by name; what could not be read; and when one of
    its files was last written, in seconds since 1970: 0 if there is none, infinite if one could not
    be read."""

    found: dict[str, Summary]
    problems: list[str]
    changed: float


def summed(directory: str, given: Collection[str]) -> Summed:
    """Sums up what a job left, but for the files that it was given before it began.

    Files of any size are read piece by piece.
    """
    times: list[float] = []
    found, problems = _read(directory, Summary, None, _sources(directory, given), times)
    return Summed(found, problems, max(times, default=0))


def summed_at_end(directory: str, metadata: Metadata) -> dict[str, Summary] | None:
    """The same for the metadata of a job that has just ended; None if the files are many or not
    small, or if it does not go well into JSON."""
    if len(metadata.files) > MANY_FILES:
        return None
    sources = _sources(directory, given_of(metadata))
    status = [lstat(source.path) for source in sources]
    if sum(each.st_size for each in status if each is not None) > SMALL:
        return None
    found, _ = _read(directory, Summary, None, sources)
    are_plain = all(map(math.isfinite, chain.from_iterable(map(astuple, found.values()))))
    return found if are_plain and len(found) <= MOST_IN_METADATA else None


def as_kept(directory: str, metadata: Metadata, written: int) -> Mapping[str, Summary] | None:
    """What the metadata say of the metrics, None if they say nothing, or if one of the files has
    changed after they were `written`, in nanoseconds since 1970."""
    if metadata.metrics is None:
        return None
    given = given_of(metadata)
    paths = [STDOUT]
    paths += (
        file.path
        for file in metadata.files
        if file.path not in given and _kind(os.path.basename(file.path)) is not None
    )
    for path in paths:
        status = lstat(f"{directory}/{path}")
        if status is None or status.st_mtime_ns > written:
            return None
    return metadata.metrics


def summarise(directory: str) -> tuple[dict[str, Summary], list[str]]:
    """What sums up the metrics of an experiment, by name, and what could not be read."""
    return _read(directory, Summary, None)


def read_curves(
    directory: str, names: Collection[str] | None = None
) -> tuple[dict[str, Curve], list[str]]:
    """The curves of the metrics of an experiment, or of those of these names, and what could not be
    read."""
    return _read(directory, Curve, names)


def _read(
    directory: str,
    kind: type[Target],
    names: Collection[str] | None,
    sources: Iterable[_Source] | None = None,
    times: list[float] | None = None,
) -> tuple[dict[str, Target], list[str]]:
    found: dict[str, Target] = {}
    of_kind: dict[str, str] = {}
    problems = []
    sinks: dict[tuple[str, str], Sink[Target]] = {}
    times = [] if times is None else times
    for source in _sources(directory, _given(directory)) if sources is None else sources:
        sink = Sink(kind, names)
        if source.kind == "events":
            # A run that was started again goes on in another file of the same folder
            sink = sinks.setdefault((source.kind, source.label), sink)
        else:
            sinks[source.kind, source.path] = sink
        try:
            wrong = _read_source(source, sink, times)
        except OSError as exc:
            times.append(math.inf)
            wrong = exc.strerror or str(exc)
        if wrong is not None:
            path = escape(os.path.relpath(source.path, directory))
            problems.append(f"`{path}`: {wrong}")
    for (rank, where), sink in sinks.items():
        for name, target in sink.found.items():
            key = name
            if of_kind.get(name) == rank:
                key = f"{where if rank == 'events' else _label(where, directory)}/{name}"
            if key not in of_kind:
                # Also of those that nobody has asked for: names must not depend on that
                of_kind[key] = rank
                if names is None or key in names:
                    found[key] = target
    return found, problems


def _read_source(source: _Source, sink: Sink[Any], times: list[float]) -> str | None:
    fd = open_regular(source.path, os.O_RDONLY)
    try:
        status = os.fstat(fd)
        times.append(status.st_mtime)
        if source.kind == "printed" and status.st_size <= SMALL:
            # Most of all files, so that each step counts
            read_printed(os.read(fd, SMALL).decode("utf-8", "replace").split("\n"), sink)
            return None
        with open(fd, "rb", closefd=False) as file:
            return _read_file(source.kind, file, sink)
    finally:
        os.close(fd)


def _read_file(kind: str, file: BinaryIO, sink: Sink[Any]) -> str | None:
    if kind == "events":
        return read_events(file, sink)
    if kind == "lines":
        return read_lines(_lines(file), sink)
    if kind == "object":
        return _read_json(file, sink)
    if kind == "printed":
        read_printed(_text(_pieces(file)), sink)
        return None
    read = read_table if kind == "table" else read_scores
    return read(_text(_lines(file)), sink)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Raises `OSError` for a line without end, which would fill the memory."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            raise OSError(errno.EFBIG, f"a line has more than {LONGEST_LINE >> 20} MiB")
        yield line


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Lines, those without end in pieces that end where a carriage return parts them."""
    rest = b""
    while read := file.readline(LONGEST_LINE):
        whole, parted, rest = (rest + read).rpartition(b"\n" if read.endswith(b"\n") else b"\r")
        if parted:
            yield whole
        # Of what is too long for any metric the start is enough to know that
        rest = rest[:ENOUGH]
    if rest:
        yield rest


def _text(lines: Iterable[bytes]) -> Iterator[str]:
    return (line.decode("utf-8", "replace") for line in lines)


def _read_json(file: BinaryIO, sink: Sink[Any]) -> str | None:
    first, second = file.readline(LARGEST_OBJECT), file.readline(LARGEST_OBJECT)
    file.seek(0)
    # Stable-Baselines3 calls such a file `progress.json`
    if first.rstrip().endswith(b"}") and second.startswith(b"{"):
        return read_lines(_lines(file), sink)
    data = file.read(LARGEST_OBJECT + 1)
    if len(data) > LARGEST_OBJECT:
        return f"it has more than {LARGEST_OBJECT >> 20} MiB"
    return read_object(data, sink)


def _sources(directory: str, given: Collection[str]) -> list[_Source]:
    """The files of an experiment that may hold metrics, in the order in which they count."""
    found = []
    for folder, name in _files(directory):
        if not folder and name in OWN:
            if name == STDOUT:
                found.append(_Source("printed", f"{directory}/{STDOUT}", ""))
            continue
        relative = f"{folder}/{name}" if folder else name
        kind = _kind(name)
        if kind is not None and relative not in given:
            found.append(_Source(kind, f"{directory}/{relative}", folder))
    return sorted(found, key=lambda each: (_KINDS.index(each.kind), each.path))


def _kind(name: str) -> str | None:
    lower = name.lower()
    if lower.endswith(PART):
        return None
    if "tfevents" in lower:
        return "events"
    stem, suffix = os.path.splitext(lower)
    if suffix in (".csv", ".tsv"):
        return "table"
    if suffix in (".jsonl", ".ndjson"):
        return "lines"
    if suffix == ".scores":
        return "scores"
    if suffix == ".json" and not stem.startswith(SETTINGS):
        return "object"
    return None


def _given(directory: str) -> set[str]:
    """Files that were there before the job began: its input."""
    try:
        return given_of(read_metadata(directory))
    except HermesError:
        return set()


def given_of(metadata: Metadata) -> set[str]:
    """The paths of the files that were there before a job began."""
    return {file.path for file in metadata.files if file.origin == "copied-before"}


def _files(directory: str) -> Iterator[tuple[str, str]]:
    """Regular files below a folder, each with the folder in it; links are not followed."""
    folders, count = [("", 0)], 0
    while folders:
        folder, depth = folders.pop()
        try:
            with os.scandir(f"{directory}/{folder}") as entries:
                found = sorted([(entry.name, entry) for entry in entries])
        except OSError:
            continue
        for name, entry in found:
            count += 1
            if count > MOST_FILES:
                return
            if entry.is_file(follow_symlinks=False):
                yield folder, name
            elif entry.is_dir(follow_symlinks=False) and depth < DEEPEST:
                folders.append((f"{folder}/{name}" if folder else name, depth + 1))


def _label(path: str, directory: str) -> str:
    """What stands before the metrics of a file: its path without suffix and identifier."""
    stem = os.path.splitext(os.path.relpath(path, directory))[0]
    return stem.replace(os.path.basename(directory), "").strip("_-. /") or "other"
