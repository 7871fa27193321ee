"""All about one experiment, as lines for people and as JSON."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec
from msgspec.structs import asdict

from ..errors import escape, shortened
from ..language.settings import SETTINGS
from ..model import FAILED, Status, signal_name
from ..query.found import FoundExperiment
from ..storage.layout import PATCH, STDERR, STDOUT
from ..storage.metadata import Metadata, StoredFile, Summary
from .amounts import duration, size
from .text import TAIL_LINES, relative, tail

MOST_FILES = 20
"""Files that are listed; how many more there are is told."""

LONGEST = 4000
"""Characters of one value."""

Facts: TypeAlias = Iterator[tuple[str, Sequence[str]]]
"""Names, each with its lines. What has no lines is left out."""


def lines(found: FoundExperiment) -> Iterator[str]:
    """All about an experiment, line by line. Blocks."""
    metadata = found.metadata
    yield escape(f"{metadata.identifier}  {metadata.script}  {metadata.name}")
    told = [(name, texts) for name, texts in _facts(found, metadata) if texts]
    width = max(len(name) for name, _ in told)
    for name, texts in told:
        for number, text in enumerate(texts):
            yield f"{'' if number else name:<{width}}  {text}".rstrip()


def as_json(found: FoundExperiment) -> str:
    """All of `hermes.json` as one object, with `directory` and `metrics` beside it; numbers that
    JSON does not know are texts."""
    told = msgspec.to_builtins(found.metadata)
    metrics = {name: _of_summary(each) for name, each in found.metrics.items()}
    return json.dumps({**told, "directory": str(found.directory), "metrics": metrics})


def _facts(found: FoundExperiment, metadata: Metadata) -> Facts:
    directory = str(found.directory)
    yield "status", [_status(metadata)]
    yield "time", [_time(metadata)]
    yield "command", [_text(shlex.join(metadata.argv))]
    yield "parameters", _table({key: _text(text) for key, text in metadata.parameters.items()})
    yield "metrics", _table({name: _metric(each) for name, each in found.metrics.items()})
    yield "comments", [_text(comment) for comment in metadata.comments]
    yield "problems", [_text(problem.text) for problem in metadata.problems]
    yield "directory", [_text(relative(directory))]
    yield "files", _files(metadata.files)
    yield "code", _code(metadata)
    yield "python", _python(metadata)
    yield "program", [_text(metadata.program)] if metadata.program else []
    yield "machine", [_machine(metadata)] if metadata.host else []
    yield "run", [_run(metadata)] if metadata.run_id else []
    yield "hermes file", _hermes_file(metadata)
    yield "working dir", [_text(metadata.working_directory)] if metadata.working_directory else []
    yield "settings", _settings(metadata)
    if metadata.status is not Status.FINISHED:
        for name in (STDOUT, STDERR):
            yield name.partition(".")[0], tail(f"{directory}/{name}", TAIL_LINES)


def _status(metadata: Metadata) -> str:
    how = ""
    if metadata.signal is not None:
        how = f": signal {signal_name(metadata.signal)}"
    elif metadata.exit_code and metadata.status in FAILED:
        how = f": exit code {metadata.exit_code}"
    return f"{metadata.status}{how}"


def _time(metadata: Metadata) -> str:
    if metadata.start is None:
        return "never started"
    told = f"began {metadata.start:%Y-%m-%d %H:%M:%S}"
    if metadata.duration is not None:
        told += f", took {duration(metadata.duration)}"
    return told


def _metric(summary: Summary) -> str:
    told = f"{summary.last:.6g}"
    if summary.count > 1:
        told += (
            f"  at step {summary.last_step:g}; min {summary.min:.6g}, max {summary.max:.6g}, "
            f"mean {summary.mean:.6g} of {summary.count}"
        )
    return told


def _files(files: Sequence[StoredFile]) -> list[str]:
    shown = files[:MOST_FILES]
    width = max((len(escape(file.path)) for file in shown), default=0)
    told = [f"{escape(file.path):<{width}}  {size(file.bytes)}, {file.origin}" for file in shown]
    more = len(files) - len(shown)
    return told + ([f"and {more} more"] if more else [])


def _code(metadata: Metadata) -> list[str]:
    git = metadata.git
    told = []
    if git.commit is not None:
        on = f" on {_text(git.branch)}" if git.branch else ""
        state = {True: f", and what is in `{PATCH}`", False: ", clean", None: ""}[git.dirty]
        told.append(f"commit {git.commit[:10]}{on}{state}")
    if git.reason is not None:
        told.append(_text(git.reason))
    frozen = metadata.frozen
    if frozen is not None:
        tree = f", git's tree {_text(frozen.tree[:10])}" if frozen.tree is not None else ""
        told.append(f"frozen as the run began{tree}: {_text(frozen.folder)}")
        more = frozen.count_linked - len(frozen.linked)
        names = [*map(_text, frozen.linked), *([f"{more} more"] if more else [])]
        told += [f"not frozen: {', '.join(names)}"] if names else []
    return told


def _python(metadata: Metadata) -> list[str]:
    environment = metadata.environment
    told = [metadata.python, environment.interpreter if environment else None]
    return ["  ".join(_text(text) for text in told if text)] if any(told) else []


def _machine(metadata: Metadata) -> str:
    gpus = f", GPU {','.join(metadata.gpus)}" if metadata.gpus else ""
    task = f", Slurm job {metadata.slurm.job}" if metadata.slurm else ""
    platform = metadata.versions.platform
    return _text(f"{metadata.host} ({platform}), user {metadata.user}, slot {metadata.slot}") + (
        _text(f"{gpus}{task}")
    )


def _run(metadata: Metadata) -> str:
    again = f", attempt {metadata.attempts}" if metadata.attempts > 1 else ""
    of = f", rerun of {metadata.rerun_of}" if metadata.rerun_of else ""
    return _text(f"{metadata.run_id}{again}, Hermes {metadata.versions.hermes}{of}")


def _hermes_file(metadata: Metadata) -> list[str]:
    file = metadata.hermes_file
    return [f"{_text(file.path)}:{file.line}"] if file is not None and file.path else []


def _settings(metadata: Metadata) -> list[str]:
    """Those that are not at their defaults."""
    told = []
    for name, value in metadata.settings.items():
        row = SETTINGS.get(name)
        default = row.default if row is not None else None
        given = tuple(value) if isinstance(value, list) else value
        if given != default:
            shown = " ".join(map(str, given)) if isinstance(given, tuple) else given
            told.append(_text(f"{name}: {shown}"))
    return told


def _table(values: Mapping[str, str]) -> list[str]:
    names = {name: escape(name) for name in values}
    width = max(map(len, names.values()), default=0)
    return [f"{names[name]:<{width}}  {value}" for name, value in values.items()]


def _text(text: str | os.PathLike[str] | None) -> str:
    return escape(shortened(os.fspath(text or ""), LONGEST))


def _of_summary(summary: Summary) -> dict[str, object]:
    """As it stands in the metadata, where all numbers are finite."""
    return {
        name: each if math.isfinite(each) else str(each) for name, each in asdict(summary).items()
    }
