"""Metadata of an experiment: what stands in `hermes.json`, typed; how it is read and written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec

from ..errors import HermesError, escape
from ..model import Options, Problem, Status
from .files import Stamp, read_regular, write_atomic
from .layout import ENVIRONMENT, FORMATS, METADATA

FORMAT = FORMATS[METADATA]

LARGEST = 2**28
"""Bytes of metadata that are read: those of a million files are fewer."""

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time of day with its offset; ISO 8601 on the disk."""

Origin = Literal["copied-before", "copied-after", "moved", "collected", "written"]
"""How a file came into the experiment directory; `written` by the job itself."""

Record = TypeVar("Record", bound=msgspec.Struct)


class StoredFile(msgspec.Struct, frozen=True):
    """A file that came into the experiment directory. `path` is relative to it.

    `bytes` is its size when the job had ended; of a folder that was copied or moved as a whole, of
    all that is in it.
    """

    path: str
    bytes: int
    origin: Origin


class HermesFile(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job comes from: the hermes file as it was named (None for a single command).

    `line` counts from 1, `sha256` is the hash of the file's bytes.
    """

    path: str | None
    line: int
    sha256: str


class GitState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the working tree when the job was started; None is unknown.

    `reason` says why there is no commit, what could not be found out, and which script is in no
    commit.
    """

    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    reason: str | None = None


class FrozenCode(msgspec.Struct, frozen=True, kw_only=True):
    """The copy of the code in which a job ran, with `freeze`.

    `folder` is the copy of the working directory, which goes with the run's folder; `tree` is what
    git calls the code that was copied, None if git did not keep it. `linked` are the first of the
    `count_linked` files and folders that were not copied, relative to the top of the copied code.
    """

    folder: str
    tree: str | None = None
    linked: tuple[str, ...] = ()
    count_linked: int = 0


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """What executed the job: Hermes, its Python, and the system with its release."""

    hermes: str
    python: str
    platform: str


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The environment of the Python that executed the job; None is unknown.

    `interpreter` is the path of the Python, `digest` names the folder of `environments` in which
    its packages stand, `reason` says why something is unknown.
    """

    interpreter: str | None = None
    digest: str | None = None
    reason: str | None = None


class Packages(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in `environment.json`: the version of a Python, and its packages with theirs, as
    their folders are named."""

    format: int = FORMATS[ENVIRONMENT]
    python: str
    implementation: str
    packages: dict[str, str]


class SlurmTask(msgspec.Struct, frozen=True, kw_only=True):
    """Where on a cluster a job was executed: `job` as Slurm calls it, `task` as Hermes does."""

    job: str
    task: str
    node: str | None = None
    cluster: str | None = None


class Summary(msgspec.Struct, gc=False):
    """The values of a metric in a few numbers.

    `count` is the number of values, `last` the one that was written last, and `last_step` its
    step. `min`, `max` and `mean` leave out what is no number; they are NaN if nothing is left.
    `valid` is the number of values that are in them.
    """

    count: int = 0
    valid: int = 0
    last_step: float = math.nan
    last: float = math.nan
    min: float = math.nan
    max: float = math.nan
    mean: float = math.nan

    def extend(self, steps: Sequence[float], values: Sequence[float]) -> None:
        """Takes up the next values, at least one, each with its step."""
        self.count += len(values)
        self.last_step, self.last = steps[-1], values[-1]
        valid = [value for value in values if value == value]
        if not valid:
            return
        mean = sum(valid) / len(valid)
        if self.valid:
            share = len(valid) / (self.valid + len(valid))
            self.mean += (mean - self.mean) * share
            self.min, self.max = min(self.min, *valid), max(self.max, *valid)
        else:
            self.mean, self.min, self.max = mean, min(valid), max(valid)
        self.valid += len(valid)


class Metadata(msgspec.Struct, kw_only=True):
    """All that is known of one experiment, in the order in which it stands in `hermes.json`.

    `arguments` is what came after the script word, but for the identifier. `parameters` are the
    values of the sweeps around the job by their keys, and `template` is `argv` with `{key}` where
    they stand; both are empty outside of sweeps. `program` is the path of the program that was
    executed, `python` the version of the Python that executed the job, behind launchers too: None
    if it is not known. `environment` is None if it was no Python. `slot` is the job's HERMES_SLOT,
    `gpus` are its GPUs as CUDA_VISIBLE_DEVICES calls them, None where Hermes gives out none. `key`
    says what the job is, the same in every run of the same entry; `rerun_of` is the experiment
    whose job `hermes rerun` has run once more, None if it was not that; `attempts` which try of
    the job this is in this run, `restarts` how often Slurm has started it again in its directory.
    `start` is None if it was never started. `end`, `duration` (seconds, by a clock that never
    steps) and `exit_code` or `signal` are None while it runs. `pid_start` and `boot_id` tell its
    process from another one with the same `pid`. `files` is complete when the job has ended.
    `metrics` sum up what its files say of its metrics, None if that was not worked out: the files
    are large, or it would be no JSON. `frozen` is None if the job ran in the working directory
    itself.
    """

    format: int = FORMAT
    identifier: str
    script: str
    argv: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    parameters: dict[str, str] = {}
    template: tuple[str, ...] = ()
    program: str | None = None
    python: str | None = None
    environment: Environment | None = None
    slot: int = 0
    gpus: tuple[str, ...] | None = None
    options: Options = Options()
    comments: tuple[str, ...] = ()
    key: str
    attempts: int = 1
    restarts: int = 0
    hermes_file: HermesFile | None = None
    status: Status
    start: Moment | None = None
    pid: int | None = None
    pid_start: str | None = None
    end: Moment | None = None
    exit_code: int | None = None
    signal: int | None = None
    duration: float | None = None
    files: list[StoredFile] = []
    metrics: dict[str, Summary] | None = None
    problems: list[Problem] = []
    rerun_of: str | None = None
    run_id: str
    name: str
    working_directory: str
    root: str
    settings: dict[str, object] = {}
    git: GitState = GitState()
    frozen: FrozenCode | None = None
    boot_id: str | None = None
    host: str
    user: str
    versions: Versions
    slurm: SlurmTask | None = None


class _Head(msgspec.Struct):
    format: int


def now() -> datetime:
    """The time of day with its offset."""
    return datetime.now().astimezone()


def decoded(data: bytes, kind: type[Record], *, file: str, path: str) -> Record:
    """The record that `data` hold, the content of `path`; `file` is its key in `FORMATS`.

    Raises `HermesError`, which names `path`, for what is no JSON, foreign, newer or damaged.
    """
    try:
        try:
            head = msgspec.json.decode(data, type=_Head)
            if head.format <= FORMATS[file]:
                return msgspec.json.decode(data, type=kind)
        except (UnicodeDecodeError, msgspec.DecodeError) as exc:
            if isinstance(exc, msgspec.ValidationError):
                raise
            # Names that are not UTF-8 are kept by lone surrogates, which only `json` takes
            values = json.loads(data)
            head = msgspec.convert(values, _Head)
            if head.format <= FORMATS[file]:
                return msgspec.convert(values, kind)
    except msgspec.ValidationError as exc:
        raise HermesError(f"`{escape(path)}` was not written by Hermes: {exc}") from None
    except (ValueError, RecursionError) as exc:
        raise HermesError(f"`{escape(path)}` is not JSON: {escape(str(exc))}") from None
    raise HermesError(
        f"`{escape(path)}` was written by a newer Hermes"
        f" (format {head.format}, this one reads {FORMATS[file]})"
    )


def encoded(record: msgspec.Struct) -> bytes:
    """A record as JSON, a member a line, so that people can read it and grep it."""
    members = msgspec.structs.asdict(record).items()
    lines = [b' "%b": %b' % (name.encode(), _value(value)) for name, value in members]
    return b"{\n%b\n}\n" % b",\n".join(lines)


_encode = msgspec.json.Encoder().encode


def _value(value: object) -> bytes:
    try:
        # With a space after each colon, inner ones too, as people grep for `"dirty": true`
        return msgspec.json.format(_encode(value), indent=0)
    except UnicodeEncodeError:
        # A name that is not UTF-8
        return json.dumps(msgspec.to_builtins(value)).encode()


def read_metadata(directory: str | os.PathLike[str]) -> Metadata:
    """The metadata of an experiment directory. Raises `HermesError` if it has none to be read."""
    folder = os.fspath(directory)
    path = f"{folder}/{METADATA}"
    try:
        data = read_regular(path, LARGEST)
    except OSError as exc:
        raise HermesError(
            f"`{escape(folder)}` is no experiment directory: {exc.strerror}: `{METADATA}`"
        ) from None
    return decoded(data, Metadata, file=METADATA, path=path)


def write_metadata(directory: str, metadata: Metadata, *, sync: bool) -> Stamp:
    """Replaces the metadata. Raises `OSError` if that fails; the old ones are whole then."""
    return write_atomic(f"{directory}/{METADATA}", encoded(metadata), sync=sync)


def amend(directory: str, status: Status, problems: Sequence[Problem]) -> None:
    """Replaces status and problems of an experiment that was finished without knowing all.

    Raises `OSError` or `HermesError`.
    """
    metadata = read_metadata(directory)
    metadata.status, metadata.problems = status, list(problems)
    # Their time is to tell whether a file has changed since
    metadata.metrics = None
    write_metadata(directory, metadata, sync=True)
