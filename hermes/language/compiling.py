"""From a hermes file to a plan: what will be executed.

Compiling reads the hermes file and `.hermes_settings` and nothing else; the same files give the
same plan.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Unpack

from msgspec.structs import replace

from ..errors import HermesError, escape
from .plan import STDIN, Plan
from .settings import (
    SETTINGS,
    WORKING_DIRECTORY,
    PlanArguments,
    absolute,
    find_root,
    layered,
)
from .source import Source, read_given
from .sweeps import build
from .syntax import HEADERS, SettingLine, parse
from .words import SPACE, Cursor
from .writing import BARE, quote, re_execution


def compile_file(
    path: str | os.PathLike[str],
    *,
    working_directory: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    comments: Sequence[str] = (),
    **settings: Unpack[PlanArguments],
) -> Plan:
    """Compiles a hermes file into a plan; its jobs are made only as you iterate over them.

    Relative paths start at `working_directory`, by default the current one. `comments` are added to
    every job's. `root` and `settings` (such as `threads=4`) overrule what the files say. Raises
    `HermesFileError` with the place of the first mistake, and `HermesError` if the file cannot be
    read.
    """
    base = _base(working_directory)
    return _compile(
        os.fspath(path), _read(base, path), base=base, root=root, comments=comments,
        arguments=settings,
    )  # fmt: skip


def compile_text(
    text: str | bytes,
    *,
    path: str = STDIN,
    working_directory: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    comments: Sequence[str] = (),
    **settings: Unpack[PlanArguments],
) -> Plan:
    """Compiles the text of a hermes file that lies nowhere. `path` is what messages call it.

    Otherwise as `compile_file`.
    """
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    base = _base(working_directory)
    return _compile(path, data, base=base, root=root, comments=comments, arguments=settings)


def compile_command(
    command: str,
    *,
    working_directory: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    comments: Sequence[str] = (),
    **settings: Unpack[PlanArguments],
) -> Plan:
    """Compiles one command, split as a shell would, as a hermes file with this one job.

    Otherwise as `compile_file`.
    """
    base = _base(working_directory)
    words = _words_of_command(command)
    if not words:
        raise HermesError("the command is empty, expected a program")
    data = f"EXEC\n[[{' '.join(words)}]]\n".encode("utf-8", "surrogateescape")
    return _compile(None, data, base=base, root=root, comments=comments, arguments=settings)


def _words_of_command(command: str) -> list[str]:
    """The words of a command as they can stand in a hermes file, not quoted where they were not."""
    cursor = Cursor(Source("<command>", command, (0,)))
    words: list[str] = []
    while True:
        while cursor.peek() and cursor.peek() in SPACE:
            cursor.pos += 1
        if cursor.at_end():
            return words
        word = cursor.shell_word(ends="", multiline=True)
        raw = command[word.span.start : word.span.end]
        is_bare = raw == word.text and BARE.fullmatch(raw) and raw not in HEADERS
        words.append(raw if is_bare else quote(word.text))


def compile_addition(
    plan: Plan,
    path: str | os.PathLike[str],
    *,
    working_directory: str | os.PathLike[str] | None = None,
) -> Plan:
    """Compiles a hermes file whose jobs are to be added to those of a plan.

    They run in the plan's working directory and with its settings; the warnings name those settings
    of the file that are left out. `path` starts at `working_directory`, by default the current one.
    Raises as `compile_file`.
    """
    added = _added_to(plan, os.fspath(path), _read(_base(working_directory), path))
    source = added._document.source
    pre = [line for line in added._document.settings if line.key.text != WORKING_DIRECTORY]
    wanted = layered(None, source, pre, {}, lambda _: None)
    overruled = [
        f"{source.at(line.key.span)}: `{escape(line.key.text)}` is left out: the run has its own "
        "settings"
        for line in pre
        if getattr(wanted, line.key.text) != getattr(plan.settings, line.key.text)
    ]
    return replace(added, _notes=(*overruled, *added._notes))


def compile_again(
    text: str,
    path: str,
    *,
    working_directory: Path,
    root: Path,
    rerun_of: str,
    changes: Mapping[str, str],
    comments: Sequence[str] = (),
    **settings: Unpack[PlanArguments],
) -> tuple[Plan, tuple[str, ...]]:
    """Compiles the `re_execution.hermes` of the experiment `rerun_of`, with parameters or arguments
    of its job changed; see `changed`. Returns what was changed, for people, too.

    Its settings are those that were in force, but for `settings`. Raises `HermesError`.
    """

    def compiled(text: str, comments: Sequence[str]) -> Plan:
        return _compile(
            path,
            text.encode("utf-8", "surrogateescape"),
            base=working_directory,
            root=root,
            comments=comments,
            arguments=settings,
            is_recorded=True,
            rerun_of=rerun_of,
        )

    if not changes:
        return compiled(text, comments), ()
    plan = compiled(text, ())
    # Here, because only `hermes rerun` changes anything
    from .changes import changed

    job, told = changed(plan.jobs[0], changes)
    return compiled(re_execution(job, plan.settings, os.curdir), comments), told


def recorded_place(text: str) -> str | None:
    """The working directory of a `re_execution.hermes`, relative to its folder."""
    source = Source.of("", text.encode("utf-8", "surrogateescape"))
    lines = (line for line in parse(source).settings if line.key.text == WORKING_DIRECTORY)
    return next((line.value.text for line in lines), None)


def recorded_addition(plan: Plan, path: str | None, text: str) -> Plan:
    """The jobs of the hermes file `text`, which were added to a plan; see `compile_addition`."""
    return _added_to(plan, path, text.encode("utf-8", "surrogateescape"))


def _added_to(plan: Plan, path: str | None, data: bytes) -> Plan:
    return _compile(
        path,
        data,
        base=plan.working_directory,
        root=plan.root,
        comments=plan._comments,
        arguments=plan.settings.as_texts(),
        is_recorded=True,
    )


def from_recipe(recipe: dict[str, Any]) -> Plan:
    """Makes a plan again from its `Plan.recipe`.

    Raises `KeyError`, `TypeError` or `HermesError` for one that was not made by this version.
    """
    plan = _compile(
        recipe["path"],
        recipe["text"].encode(),
        base=Path(recipe["working_directory"]),
        root=recipe["root"],
        comments=recipe["comments"],
        arguments=recipe["settings"],
        is_recorded=True,
        rerun_of=recipe.get("rerun_of"),
    )
    return replace(plan, sha256=recipe.get("sha256", plan.sha256))


def _base(working_directory: str | os.PathLike[str] | None) -> Path:
    try:
        return Path(working_directory) if working_directory is not None else Path.cwd()
    except FileNotFoundError:
        raise HermesError("the current directory does not exist any more") from None


def _read(base: Path, path: str | os.PathLike[str]) -> bytes:
    shown = escape(os.fspath(path))
    try:
        return read_given(base.joinpath(path))
    except FileNotFoundError as exc:
        hint = "`hermes create NAME` writes one to start from"
        raise HermesError(f"cannot read `{shown}`: {exc.strerror}", hint=hint) from None
    except OSError as exc:
        raise HermesError(f"cannot read `{shown}`: {exc.strerror}") from None
    except ValueError as exc:
        raise HermesError(f"cannot read `{shown}`: {exc}") from None


def _compile(
    path: str | None,
    data: bytes,
    *,
    base: Path,
    root: str | os.PathLike[str] | None,
    comments: Sequence[str],
    arguments: Mapping[str, object],
    is_recorded: bool = False,
    rerun_of: str | None = None,
) -> Plan:
    base = Path(os.path.abspath(base))
    source = Source.of(path or "<command>", data)
    document = parse(source)
    pre = [line for line in document.settings if line.key.text != WORKING_DIRECTORY]
    sha256 = hashlib.sha256(data).hexdigest()
    secrets = [line for line in pre if _is_secret(line)]
    if secrets:
        # From here they are known to the settings alone, and the text is written to the disk
        for line in secrets:
            source = source.without_secrets(line.value.span.start)
        document, data = replace(document, source=source), source.text.encode()
    if is_recorded:
        pre = [line for line in pre if line not in secrets]
    else:
        # A plan that was executed before has all settings, and its working directory, in its record
        _check_place(source, document.settings, base, path)
    top = absolute(base, root) if root is not None else find_root(base)
    notes: list[str] = []
    # What Hermes has written says all values of a job, also those that no word shows
    is_again = len(pre) < len(document.settings)
    settings = layered(None if is_recorded else top, source, pre, arguments, notes.append)
    entries = [
        build(source, entry, seed=settings.seed, warn=notes.append, is_again=is_again)
        for entry in document.entries
    ]
    plan = Plan(
        path=path,
        sha256=sha256,
        working_directory=base,
        root=top,
        place=os.path.relpath(os.path.realpath(base), os.path.realpath(top)),
        settings=settings,
        rerun_of=rerun_of,
        _data=data,
        _document=document,
        _entries=tuple(entries),
        _comments=tuple(comments),
        _notes=tuple(notes),
        _is_file=cache(lambda word: os.path.isfile(base / word)),
    )
    for binder, above, values in plan._bindings():
        binder.check(above, values)
    return plan


def _is_secret(line: SettingLine) -> bool:
    return line.key.text in SETTINGS and SETTINGS[line.key.text].is_secret


def _check_place(
    source: Source, settings: Iterable[SettingLine], base: Path, path: str | None
) -> None:
    """Raises `HermesFileError` if the hermes file says that it is for another folder."""
    line = next((line for line in settings if line.key.text == WORKING_DIRECTORY), None)
    if line is None:
        return
    file = os.path.abspath(base / (path or ""))
    lexical, physical = os.path.dirname(file), os.path.dirname(os.path.realpath(file))
    # The folder may be reached by links, of which the relative path knows or not
    places = [os.path.normpath(f"{folder}/{line.value.text}") for folder in (lexical, physical)]
    there = [each for each in places if os.path.isdir(each)]
    if any(os.path.samefile(each, base) for each in there):
        return
    hint = f"take the line away to run the jobs in `{escape(str(base))}`"
    if there:
        command = ["hermes", "exec", "-f", os.path.relpath(file, there[0])]
        hint = f"`cd {shlex.quote(there[0])} && {shlex.join(command)}`, or {hint}"
    place = escape((there or places)[0])
    raise source.error(f"this file is to be executed in `{place}`", line.value.span, hint=hint)
