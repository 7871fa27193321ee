"""What is different between two experiments: command, settings, code, packages and metrics."""

from __future__ import annotations

import difflib
import html
import os
from collections.abc import Iterator, Mapping

import msgspec
from msgspec.structs import asdict, replace

from ..errors import HermesError, escape
from ..model import PLACEHOLDER, shell_line
from ..storage.files import read_regular
from ..storage.layout import ENVIRONMENT, PATCH, environment_file
from ..storage.metadata import Metadata, Packages, decoded
from .found import FoundExperiment
from .rows import Kind

LONGEST_PATCH = 2**20
"""Bytes: of larger patches it is told that they differ, and no more."""

WHOLE = ("settings", "packages")
"""What is known as a whole or not at all: without one of both there is nothing to compare."""

Facts = Mapping[str, str]
"""What is known of one experiment under one heading, by name."""


class Difference(msgspec.Struct, frozen=True):
    """A fact that differs. `part` is its heading; None is not there or not known."""

    part: str
    name: str
    first: str | None
    second: str | None


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two experiments.

    `alike` are the headings under which all is the same. `patch` is how what was in no commit
    differs, as lines of a diff between the two patches. `notes` say what could not be compared.
    """

    first: FoundExperiment
    second: FoundExperiment
    found: tuple[Difference, ...]
    alike: tuple[str, ...]
    patch: tuple[str, ...]
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __bool__(self) -> bool:
        """Whether anything differs, also if it is only what was in no commit."""
        return bool(self.found or self.patch)

    def __repr__(self) -> str:
        names = f"{self.first.identifier} and {self.second.identifier}"
        return f"<Differences between {names}: {len(self)}>"

    def _repr_html_(self) -> str:
        def cells(tag: str, *texts: str | None) -> str:
            shown = (html.escape(escape(text)) if text is not None else "-" for text in texts)
            return f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in shown)}</tr>"

        head = cells("th", "", "", self.first.identifier, self.second.identifier)
        body = "".join(
            cells("td", each.part, each.name, each.first, each.second) for each in self.found
        )
        said = [f"the same: {', '.join(self.alike)}"] if self.alike else []
        notes = "".join(f"<div>{html.escape(escape(text))}</div>" for text in (*said, *self.notes))
        patch = html.escape("\n".join(map(escape, self.patch)))
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{notes}" + (
            f"<pre>{patch}</pre>" if patch else ""
        )


def differences(first: FoundExperiment, second: FoundExperiment) -> Differences:
    """What differs between two experiments, such as `hermes.experiments().one("160008")` gives.

    Raises `HermesError` if the metadata of one cannot be read any more.
    """
    notes: list[str] = []
    parts = [_facts(each, notes) for each in (first, second)]
    found: list[Difference] = []
    alike = []
    for part in parts[0]:
        left, right = parts[0][part], parts[1][part]
        if part in WHOLE and not (left and right):
            continue
        differ = _different(part, left, right)
        if not differ and (left or right):
            alike.append(part)
        told = {replace(each, part=part) for each in found if each.part == "parameters"}
        # Most parameters are arguments too
        found += [each for each in differ if each not in told]
    patch = _patches(first, second, notes)
    commits = [each.metadata.git.commit for each in (first, second)]
    if all(commits) and commits[0] != commits[1]:
        notes.append(f"`git diff {commits[0]} {commits[1]}` shows what was committed between them")
    if patch and "code" in alike:
        alike.remove("code")
    return Differences(
        first=first,
        second=second,
        found=tuple(found),
        alike=tuple(alike),
        patch=tuple(patch),
        notes=tuple(dict.fromkeys(notes)),
    )


def _different(part: str, left: Facts, right: Facts) -> list[Difference]:
    names = [name for name in dict.fromkeys([*left, *right]) if left.get(name) != right.get(name)]
    return [Difference(part, name, left.get(name), right.get(name)) for name in names]


def _facts(experiment: FoundExperiment, notes: list[str]) -> dict[str, Facts]:
    """All that is compared, by its headings."""
    metadata, row = experiment.metadata, experiment.row
    environment = metadata.environment
    words = [word.replace(metadata.identifier, PLACEHOLDER) for word in metadata.argv]
    return {
        "experiment": _known(
            {
                "script": metadata.script,
                "name": metadata.name,
                "status": str(metadata.status),
                "working directory": metadata.working_directory,
                "host": metadata.host,
            }
        ),
        "command": {"": shell_line(words)},
        "parameters": metadata.parameters,
        "arguments": row.raw.get(Kind.ARGUMENT, {}),
        "options": _options(metadata),
        "settings": {name: _plain(value) for name, value in metadata.settings.items()},
        "code": _known(
            {
                "commit": metadata.git.commit,
                "branch": metadata.git.branch,
                "uncommitted": None if metadata.git.dirty is None else _plain(metadata.git.dirty),
            }
        ),
        "python": _known(
            {
                "version": metadata.python,
                "interpreter": environment.interpreter if environment else None,
                "hermes": metadata.versions.hermes,
            }
        ),
        "packages": _packages(experiment, notes),
        "metrics": {name: str(each.last) for name, each in sorted(row.metrics.items())},
    }


def _options(metadata: Metadata) -> Facts:
    return {
        name.replace("_", "-"): _plain(value)
        for name, value in asdict(metadata.options).items()
        if value not in (None, ())
    }


def _known(facts: Mapping[str, str | None]) -> Facts:
    return {name: text for name, text in facts.items() if text}


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return " ".join(map(_plain, value))
    return msgspec.json.encode(value).decode()


def _packages(experiment: FoundExperiment, notes: list[str]) -> Facts:
    """The versions of the packages of its Python, empty if they are not known."""
    environment = experiment.metadata.environment
    if environment is None or environment.digest is None:
        notes.append(f"the packages of `{experiment.identifier}` are not known")
        return {}
    # <experiments>/<script>/<name>/<identifier>
    path = environment_file(str(experiment.directory.parents[2]), environment.digest)
    try:
        return decoded(read_regular(path), Packages, file=ENVIRONMENT, path=path).packages
    except (OSError, HermesError):
        notes.append(
            f"the packages of `{experiment.identifier}` cannot be read from `{escape(path)}`"
        )
        return {}


def _patches(first: FoundExperiment, second: FoundExperiment, notes: list[str]) -> list[str]:
    """How the patches of what was in no commit differ."""
    texts = []
    for each in (first, second):
        path = os.path.join(each.directory, PATCH)
        try:
            if os.stat(path).st_size > LONGEST_PATCH:
                notes.append(f"`{escape(path)}` is too large to be compared")
                return []
            texts.append(read_regular(path).decode("utf-8", "replace").splitlines())
        except OSError:
            texts.append([])
    one, other = (f"{each.identifier}/{PATCH}" for each in (first, second))
    return list(difflib.unified_diff(texts[0], texts[1], one, other, lineterm=""))
