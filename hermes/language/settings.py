"""Settings: the table of them, and their layers.

The layers are: default < `.hermes_settings` < PRE < command line or call argument. Each value
knows where it came from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import msgspec

from ..errors import HermesError, did_you_mean
from . import predecessor
from .gpus import GPUS, SIZE
from .kinds import (
    BOOLEAN,
    COUNT,
    DURATION,
    FAILURES,
    FOLDER,
    SBATCH,
    TIME_LIMIT,
    VARIABLES,
    WHOLE,
    Kind,
    choice,
    or_none,
)
from .notify import NOTIFY, Notify

if TYPE_CHECKING:
    # The command line takes its options from the table; parsing is loaded when a file is read
    from .source import Source, Span
    from .syntax import SettingLine

T = TypeVar("T")

SETTINGS_FILE = ".hermes_settings"

WORKING_DIRECTORY = "working_directory"
"""A line of PRE that is no setting: the folder in which a hermes file has to be executed, relative
to the file's own folder.
"""

EXECUTORS = ("local", "slurm")
"""Where jobs can run: on this machine, or on a Slurm cluster."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting: a row of the table.

    `meaning` is what help and README say. `on_command_line` tells whether `hermes exec` takes it
    as an option, `in_calls` whether `compile_file`, `open_run` and the like take it as an argument.
    """

    name: str
    kind: Kind[Any]
    default: object
    meaning: str
    on_command_line: bool
    in_calls: bool

    def parse(self, text: str) -> object:
        """Raises `ValueError` with what was expected."""
        return self.kind.parse(text)

    def write(self, value: object) -> str:
        """The text that `parse` reads as this value."""
        return self.kind.write(value)

    @property
    def is_secret(self) -> bool:
        """Whether its value may hold secrets, and is kept out of all that others read."""
        return self.kind.shown is not None

    @property
    def option(self) -> str:
        """The option of the command line: `--path-to-experiments`."""
        return "--" + self.name.replace("_", "-")


def _setting(
    default: T, kind: Kind[T], meaning: str, *, on_command_line: bool = True, in_calls: bool = True
) -> T:
    """A field of `Settings` that is a row of the table."""
    row = {
        "kind": kind,
        "meaning": meaning,
        "on_command_line": on_command_line,
        "in_calls": in_calls,
    }
    return field(default=default, metadata=row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force. `hermes.SETTINGS` says what each of them means.

    `origins` tells for each that is not the default where it was set.
    """

    # The table: each field is a row. One that is added here gets its line in `SettingArguments` too
    threads: int = _setting(1, COUNT, "most jobs at the same time")
    path_to_experiments: str = _setting(
        ".", FOLDER, "folder that gets `experiments/`, relative to the root"
    )
    supervise: bool = _setting(
        True,
        BOOLEAN,
        "jobs leave their exit status behind even if the runner is killed; costs a `/bin/sh` a job",
    )
    identifier: str = _setting(
        "argument",
        choice("argument", "none"),
        "`argument`: put in after the script word; `none`: only in the environment, and where "
        "`{identifier}` stands",
    )
    cwd: str = _setting(
        "here",
        choice("here", "experiment"),
        "where jobs run: `here`, the working directory, or `experiment`, their own experiment "
        "directory, for scripts that write fixed names",
    )
    timeout: float | None = _setting(
        None, or_none(TIME_LIMIT), "longest time of a job: `90s`, `45m`, `2h`, `1d12h`"
    )
    grace: float = _setting(10.0, DURATION, "between SIGTERM and SIGKILL for a job that is ended")
    retries: int = _setting(
        0, WHOLE, "how often a job that failed or timed out is tried again, as a new experiment"
    )
    max_failures: str | None = _setting(
        None,
        or_none(FAILURES),
        "after so many failed jobs (`10`, or `20%` of those ended) nothing more is started",
    )
    gpus: str | None = _setting(
        None,
        or_none(GPUS),
        "GPUs of this machine that jobs may use: `all`, a number `2`, or a list `0,2,3` of indices "
        "or UUIDs (`2,` is the one with index 2); `fake:4`, for tests, pretends 0 to 3",
    )
    jobs_per_gpu: int = _setting(
        1, COUNT, "how many jobs share a GPU, where `-g` does not say what a job needs"
    )
    gpu_free: int | None = _setting(
        None,
        or_none(SIZE),
        "a GPU is given only while so much of its memory is free: `6GiB`",
    )
    env: tuple[str, ...] = _setting(
        (), VARIABLES, "`NAME=value` words, environment variables of every job; repeatable"
    )
    notify: Notify | None = _setting(  # noqa: RUF009 (immutable)
        None,
        or_none(NOTIFY),
        "where word is sent when a run ends or stops early: addresses of Apprise, or "
        "`command: ...`, which gets the result as JSON",
    )
    freeze: bool = _setting(
        False, BOOLEAN, "jobs run the code as it was when the run began, in a copy of it"
    )
    executor: str = _setting(
        "local",
        choice(*EXECUTORS),
        "where jobs run: `local`, this machine, or `slurm`, a cluster",
    )
    slurm: str = _setting("", SBATCH, "options of `sbatch` for every job")
    seed: int = _setting(0, WHOLE, "of random sweeps")

    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def at(self, executor: str) -> Settings:
        """The same settings with another executor. Raises `HermesError` if none has this name."""
        return replace(
            self,
            executor=_parse_argument("executor", executor),
            origins={**self.origins, "executor": "argument"},
        )

    def as_json(self) -> dict[str, Any]:
        """All values by name, of secrets what others may read."""
        values = {name: getattr(self, name) for name in SETTINGS}
        for name, row in SETTINGS.items():
            if row.kind.shown is not None and values[name] is not None:
                values[name] = row.kind.shown(values[name])
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    def as_texts(self) -> dict[str, str]:
        """What a hermes file would say, by name; without secrets."""
        rows = {name: row for name, row in SETTINGS.items() if not row.is_secret}
        return {name: row.write(getattr(self, name)) for name, row in rows.items()}

    def with_threads(self, threads: int) -> Settings:
        """The same settings, by which so many jobs run at the same time."""
        return replace(self, threads=threads)

    def with_notify(self, text: str) -> Settings:
        """The same settings with another `notify`. Raises `ValueError` if that cannot be read."""
        return replace(self, notify=NOTIFY.parse(text))


class SettingArguments(TypedDict, total=False):
    """Settings as arguments of a call; None means not given.

    All but `executor`, for which `open_run` also takes an object.
    """

    threads: int | None
    path_to_experiments: str | None
    supervise: bool | None
    identifier: str | None
    cwd: str | None
    timeout: str | float | timedelta | None
    grace: str | float | timedelta | None
    retries: int | None
    max_failures: str | int | None
    gpus: str | int | Sequence[int | str] | None
    jobs_per_gpu: int | None
    gpu_free: str | None
    env: str | Mapping[str, str] | Sequence[str] | None
    notify: str | Sequence[str] | None
    freeze: bool | None
    slurm: str | None
    seed: int | None


class PlanArguments(SettingArguments, total=False):
    """All settings as arguments of `compile_file` and `compile_command`."""

    executor: str | None


SETTINGS: Mapping[str, Setting] = {
    each.name: Setting(name=each.name, default=each.default, **each.metadata)
    for each in fields(Settings)
    if each.metadata
}
"""The table of settings, by name."""


def absolute(base: Path, path: str | os.PathLike[str]) -> Path:
    """The absolute path of one that starts at `base`, or at a home directory: `~/data`."""
    return Path(os.path.abspath(base / os.path.expanduser(path)))


def find_root(working_directory: Path) -> Path:
    """The nearest ancestor that holds `.hermes_settings`.

    If there is none it is the git top level, and outside of git the working directory itself.
    """
    ancestors = (working_directory, *working_directory.parents)
    for marker in (SETTINGS_FILE, ".git"):
        for folder in ancestors:
            if os.path.exists(folder / marker):
                return folder
    return working_directory


def layered(
    root: Path | None,
    source: Source,
    pre: Iterable[SettingLine],
    arguments: Mapping[str, object],
    warn: Callable[[str], None],
) -> Settings:
    """The settings in force under `root`, for a hermes file whose PRE section holds `pre`.

    `arguments` come from the caller and rank highest; None means not given. `warn` gets what is
    wrong but harmless. Without a root no `.hermes_settings` is read. Raises `HermesError` for
    unknown keys, bad values and repeated keys.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    own = _read(root / SETTINGS_FILE) if root is not None else None
    if own is not None:
        from .syntax import parse_settings

        _apply(own, _without_predecessor(own, parse_settings(own), warn), values, origins, warn)
    _apply(source, pre, values, origins, warn)
    for name, value in arguments.items():
        if value is not None:
            _put(values, name, _parse_argument(name, value))
            origins[name] = "argument"
    return Settings(**values, origins=origins)


def _read(path: Path) -> Source | None:
    from .source import Source, read_given

    try:
        data = read_given(path, waits=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise HermesError(f"cannot read `{path}`: {exc.strerror}") from None
    return Source.of(str(path), data)


def _without_predecessor(
    source: Source, settings: Iterable[SettingLine], warn: Callable[[str], None]
) -> Iterator[SettingLine]:
    """The settings but for those of rlmate, which do no harm: old folders still work."""
    for setting in settings:
        key = setting.key
        if key.text not in predecessor.KEYS:
            yield setting
        else:
            warn(f"{source.at(key.span)}: `{key.text}` {predecessor.MESSAGES}")


def _apply(
    source: Source,
    settings: Iterable[SettingLine],
    values: dict[str, Any],
    origins: dict[str, str],
    warn: Callable[[str], None],
) -> None:
    seen: dict[str, int] = {}
    for key, value, rest in settings:
        line = source.line(key.span.start)
        # Errors show the line
        shown = source.without_secrets(min(value.span.start, key.span.end + 1))
        if key.text in predecessor.KEYS:
            text = f"`{key.text}` {predecessor.MESSAGES}"
            raise shown.error(text, key.span, hint="take the line away")
        if key.text not in SETTINGS:
            hint = (
                did_you_mean(key.text, SETTINGS)
                or f"the settings are {', '.join(f'`{name}`' for name in SETTINGS)}"
            )
            raise shown.error(f"unknown setting `{key.text}`", key.span, hint=hint)
        if key.text in seen and SETTINGS[key.text].kind.join is None:
            raise shown.error(
                f"`{key.text}` is set twice, first on line {seen[key.text]}", key.span
            )
        seen[key.text] = line
        text = value.text
        if rest is not None:
            if SETTINGS[key.text].kind.join is None:
                raise shown.error("expected nothing after the closing quote", rest)
            # Several words, of which the first is in quotes
            text = source.text[value.span.start : rest.end]
        try:
            _put(values, key.text, SETTINGS[key.text].parse(text))
        except ValueError as exc:
            raise shown.error(_bad(key.text, text, exc), value.span) from None
        origins[key.text] = f"{source.path}:{line}"
        if key.text in ("env", "path_to_experiments"):
            _warn_of_shell(source, key.text, text, value.span, warn)


def _warn_of_shell(
    source: Source, key: str, text: str, span: Span, warn: Callable[[str], None]
) -> None:
    """Warns of what a shell would replace in the value of a setting."""
    from .shells import not_expanded_in

    if "'" in source.text[span.start - 1 : span.start + 1]:
        # Quotes around the whole are dropped, but say the same as to a shell
        return
    for what in not_expanded_in(text):
        if key == "env" or not what.startswith("~"):
            warn(
                f"{source.at(span)}: `{what}` in `{key}` is taken as it is, because no shell "
                "replaces it; write its value, or `'...'` around what is meant as it is"
            )


def _put(values: dict[str, Any], name: str, value: object) -> None:
    """Sets a value, over those of lower layers."""
    join = SETTINGS[name].kind.join
    values[name] = join(values[name], value) if join is not None and name in values else value


def _parse_argument(name: str, value: object) -> Any:
    if name not in SETTINGS:
        raise TypeError(f"`{name}` is no setting")
    row = SETTINGS[name]
    try:
        return row.kind.take(value) if row.kind.take is not None else row.parse(str(value))
    except ValueError as exc:
        raise HermesError(_bad(name, value, exc)) from None


def _bad(name: str, value: object, why: ValueError) -> str:
    what = "bad value" if SETTINGS[name].is_secret else f"bad value `{value}`"
    return f"{what} for `{name}`: {why}"
