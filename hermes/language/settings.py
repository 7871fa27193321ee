"""Settings in layers: default < `.hermes_settings` < PRE < command line or call argument. Each knows where it came from."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import HermesError, did_you_mean
from .syntax import Setting, Source, parse_settings

SETTINGS_FILE = ".hermes_settings"
PREDECESSOR_KEYS = ("bot_id", "chat_id")
"""Keys of rlmate, which Hermes follows: in `.hermes_settings` they get a warning, so that old folders still work."""

EXECUTORS = ("local", "slurm")
"""Where jobs can run: on this machine, or on a Slurm cluster."""

_OWN_LONG = (
    "--array", "--chdir", "--clusters", "--dependency", "--error", "--help", "--input", "--job-name", "--open-mode", "--output",
    "--parsable", "--test-only", "--usage", "--version", "--wait", "--wrap",
)  # fmt: skip
_OWN_SHORT = ("-D", "-J", "-M", "-V", "-W", "-a", "-d", "-e", "-h", "-i", "-o")
"""Options of `sbatch` without which Hermes would not find its jobs again, or would wait for them twice."""

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def parse_bool(text: str) -> bool:
    """Raises `ValueError` with what was expected."""
    lowered = text.lower()
    if lowered not in _TRUE + _FALSE:
        raise ValueError("expected `true` or `false`")
    return lowered in _TRUE


def _parse_threads(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise ValueError("expected a whole number, at least 1")
    return int(text)


def _parse_folder(text: str) -> str:
    if not text:
        raise ValueError("expected a folder, relative to the root")
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ValueError("expected a folder without control characters")
    return text


def parse_sbatch_options(text: str) -> list[str]:
    """The words of some `sbatch` options. Raises `ValueError` with what is wrong."""
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ValueError("expected `sbatch` options without control characters")
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise ValueError(f"cannot be split into words: {str(exc).lower()}") from None
    if words and not words[0].startswith("-"):
        raise ValueError("expected `sbatch` options, such as `--time=2:00:00`")
    for word in words:
        name = next(
            (name for name in _OWN_LONG if word.partition("=")[0] == name),
            word[:2] if word[:2] in _OWN_SHORT else None,
        )
        if name is not None:
            raise ValueError(f"`{name}` is what Hermes itself gives to `sbatch`")
    return words


def _parse_slurm(text: str) -> str:
    parse_sbatch_options(text)
    return text


def _parse_executor(text: str) -> str:
    if text not in EXECUTORS:
        raise ValueError(f"expected {' or '.join(f'`{name}`' for name in EXECUTORS)}")
    return text


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "threads": _parse_threads,
    "path_to_experiments": _parse_folder,
    "supervise": parse_bool,
    "executor": _parse_executor,
    "slurm": _parse_slurm,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force.

    `threads`: most jobs at the same time, at least 1. `path_to_experiments`: the folder that gets `experiments/`, relative to
    the root. `supervise`: jobs leave their exit status behind even if the runner is killed. `executor`: where jobs run, one of
    `EXECUTORS`. `slurm`: options for `sbatch`, for every job. `origins` tells for each that is not the default where it was set.
    """

    threads: int = 1
    path_to_experiments: str = "."
    supervise: bool = True
    executor: str = "local"
    slurm: str = ""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def at(self, executor: str) -> Settings:
        """The same settings with another executor. Raises `HermesError` if there is none of this name."""
        return replace(
            self,
            executor=_check_argument("executor", executor),
            origins={**self.origins, "executor": "argument"},
        )

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _PARSERS}


def find_root(working_directory: Path) -> Path:
    """The nearest ancestor that holds `.hermes_settings`; else the git top level; else the working directory itself."""
    ancestors = (working_directory, *working_directory.parents)
    for marker in (SETTINGS_FILE, ".git"):
        for folder in ancestors:
            if os.path.exists(folder / marker):
                return folder
    return working_directory


def layered(
    root: Path,
    source: Source,
    pre: Iterable[Setting],
    arguments: Mapping[str, Any],
    warn: Callable[[str], None],
) -> Settings:
    """The settings in force under `root`, for a hermes file whose PRE section holds `pre`.

    `arguments` come from the caller and rank highest; None means not given. `warn` gets what is wrong but harmless.
    Raises `HermesError` for unknown keys, bad values and repeated keys.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    path = root / SETTINGS_FILE
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as exc:
        raise HermesError(f"cannot read `{path}`: {exc.strerror}") from None
    else:
        own = Source.of(str(path), data)
        settings = []
        for setting in parse_settings(own):
            if setting.key.text in PREDECESSOR_KEYS:
                warn(
                    f"{path}:{own.line(setting.key.span.start)}: `{setting.key.text}` belongs to rlmate and does nothing here"
                )
            else:
                settings.append(setting)
        _apply(own, settings, values, origins)
    _apply(source, pre, values, origins)
    for name, value in arguments.items():
        if value is not None:
            values[name] = _check_argument(name, value)
            origins[name] = "argument"
    return Settings(**values, origins=origins)


def _apply(
    source: Source, settings: Iterable[Setting], values: dict[str, Any], origins: dict[str, str]
) -> None:
    seen: dict[str, int] = {}
    for setting in settings:
        key, line = setting.key.text, source.line(setting.key.span.start)
        if key not in _PARSERS:
            hint = (
                did_you_mean(key, _PARSERS)
                or f"the settings are {', '.join(f'`{name}`' for name in _PARSERS)}"
            )
            raise source.error(f"unknown setting `{key}`", setting.key.span, hint=hint)
        if key in seen:
            raise source.error(f"`{key}` is set twice, first on line {seen[key]}", setting.key.span)
        seen[key] = line
        values[key] = _parse(source, setting)
        origins[key] = f"{source.path}:{line}"


def _parse(source: Source, setting: Setting) -> Any:
    try:
        return _PARSERS[setting.key.text](setting.value.text)
    except ValueError as exc:
        raise source.error(
            f"bad value `{setting.value.text}` for `{setting.key.text}`: {exc}", setting.value.span
        ) from None


def _check_argument(name: str, value: Any) -> Any:
    try:
        return _PARSERS[name](str(value))
    except ValueError as exc:
        raise HermesError(f"bad value `{value}` for `{name}`: {exc}") from None
