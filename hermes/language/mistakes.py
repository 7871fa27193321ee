"""What a hermes file may say, but what its writer probably meant otherwise."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator

from ..errors import escape
from .binding import Binder, Binding
from .braces import Key, pieces
from .launchers import interpreter_of
from .numbers import canonical
from .options import FLAGS
from .source import Source, Word
from .sweeps import Sweep, Template
from .syntax import FUNCTIONS, Axis, Document, Entry, SweepEntry
from .values import choices_of
from .words import is_option

_OPTION_AND_VALUE = re.compile(r"-{1,2}[A-Za-z][\w-]*[ \t]+[^\s-].*", re.ASCII | re.DOTALL)
_NUMBERS = re.compile(r"[-+.\d][-+.\deE_]*(?:\s+[-+.\d][-+.\deE_]*)+", re.ASCII)
_FUNCTION = re.compile(rf"(?:{'|'.join(FUNCTIONS)})\s*\[")
_PATH_OPTIONS = frozenset(
    flag
    for flag, option in FLAGS.items()
    if option.field in ("copy_before", "copy_after", "move_after")
)


def mistakes(document: Document, bindings: Iterable[Binding]) -> Iterator[str]:
    """A warning for each of them, with what to write instead."""
    source = document.source
    axes = list(_axes(document.entries))
    yield from _keys_elsewhere(document, {axis.key.text for _, axis in axes})
    for kind, axis in axes:
        yield from _odd_values(source, kind, axis)
    for section, words in (
        ("STD-H", document.hermes_options),
        ("STD-E", document.script_arguments),
    ):
        yield from _commas(source, section, words)
    yield from _commas_of_env(document)
    hint = "write it in STD-H, or in the second list of a job"
    yield from _hermes_options(source, document.script_arguments, hint)
    yield from _options_with_values(source, document.script_arguments)
    for binder, above, _ in bindings:
        yield from _keys_outside(source, binder, above, {axis.key.text for _, axis in axes})
        yield from _in_command(source, binder, above)


def _axes(entries: Iterable[Entry]) -> Iterator[tuple[str, Axis]]:
    """The keys of all sweeps, with the kind of sweep that each belongs to."""
    for entry in entries:
        if isinstance(entry, SweepEntry):
            yield from ((entry.kind, axis) for axis in entry.axes)
            yield from _axes(entry.entries)


# Keys where nothing replaces them


def _keys_elsewhere(document: Document, keys: set[str]) -> Iterator[str]:
    where = "the items and options of jobs inside the sweep alone get its value"
    settings = [line.value for line in document.settings]
    values = [value for _, axis in _axes(document.entries) for value in axis.values]
    for name, words in (
        ("PRE", settings),
        ("STD-H", document.hermes_options),
        ("STD-E", document.script_arguments),
        ("a sweep's value", values),
    ):
        for word in words:
            for key in _keys_in(word.text, keys):
                yield f"{document.source.at(word.span)}: `{key}` in {name} is text: {where}"


def _keys_outside(
    source: Source, binder: Binder, above: Iterable[Sweep], keys: set[str]
) -> Iterator[str]:
    """Keys of other sweeps. Inside of one, what none around gives is an error."""
    if list(above):
        return
    for word in binder.words:
        for key in _keys_in(word.word.text, keys):
            yield (
                f"{source.at(word.word.span)}: `{key}` is text, because this job is not inside the "
                "sweep that gives it"
            )


def _keys_in(text: str, keys: set[str]) -> Iterator[Key]:
    if "{" in text:
        yield from (each for each in pieces(text) if isinstance(each, Key) and each.name in keys)


# Values


def _odd_values(source: Source, kind: str, axis: Axis) -> Iterator[str]:
    spellings: dict[str, str] = {}
    is_told = False
    for value in axis.values:
        raw, at = _raw(source, value), source.at(value.span)
        shown = f"{at}: `{escape(raw)}` is one value"
        if _FUNCTION.match(raw):
            yield f"{shown}, a text; write `{axis.key.text}={escape(raw)}` without a list around it"
        if _NUMBERS.fullmatch(raw):
            yield f"{shown}; commas separate values, and quotes say that it is one"
        number = canonical(value.text)
        if kind == "PROD" and not axis.function and number in spellings and not is_told:
            is_told = True
            also = f", also as `{spellings[number]}`" if spellings[number] != value.text else ""
            yield (
                f"{at}: `{escape(value.text)}` stands twice in the list of `{axis.key.text}`"
                f"{escape(also)}, which makes equal jobs"
            )
        spellings.setdefault(number, value.text)


# Words


def _in_command(source: Source, binder: Binder, above: Iterable[Sweep]) -> Iterator[str]:
    script = binder.stand_in
    if script.in_shell:
        return
    words = binder.words
    after = [word.word for word in words[script.position + 1 :]]
    command = words[script.position].word
    is_bare = _raw(source, command) == command.text and not words[script.position].slots
    interpreter = interpreter_of(script.name) if script.name else None
    if script.is_code and is_bare and after and interpreter is not None and interpreter.clusters:
        name = escape(os.path.basename(script.name or ""))
        yield (
            f"{source.at(command.span)}: `{escape(command.text)}` alone is the code for `{name}`, "
            "and the words behind it are its arguments; put quotes around all of the code"
        )
    if script.is_module and is_bare and ("/" in command.text or command.text.endswith(".py")):
        yield (
            f"{source.at(command.span)}: `{escape(command.text)}` is no name of a module, such as "
            "`package.module`; leave `-m` out for a file"
        )
    if script.is_code:
        return
    yield from _hermes_options(source, after, "write it in the second list: `[[...],[...]]`")
    yield from _options_with_values(source, after)
    values = {column.slot: choices_of(column.values) for sweep in above for column in sweep.columns}
    for before, word in zip(words[script.position :], words[script.position + 1 :], strict=False):
        if not is_option(before.word.text) and len(word.parts) == 1:
            yield from _values_with_options(source, word, lambda slot: values[slot])


def _values_with_options(
    source: Source, word: Template, values: Callable[[int], Iterable[str]]
) -> Iterator[str]:
    (slot,) = word.parts
    if isinstance(slot, int):
        found = next(filter(_OPTION_AND_VALUE.fullmatch, values(slot)), None)
        if found is not None:
            yield _one_word(source, word.word, found)


def _options_with_values(source: Source, words: list[Word]) -> Iterator[str]:
    for index, word in enumerate(words):
        if _OPTION_AND_VALUE.fullmatch(word.text) and not (
            index and is_option(words[index - 1].text)
        ):
            yield _one_word(source, word, word.text)


def _one_word(source: Source, word: Word, text: str) -> str:
    option, value = text.split(maxsplit=1)
    return (
        f"{source.at(word.span)}: `{escape(text)}` is given as one word; an option and its value "
        f"are two words, or `{escape(option)}={escape(value)}`"
    )


def _hermes_options(source: Source, words: Iterable[Word], hint: str) -> Iterator[str]:
    for word in words:
        if word.text.partition("=")[0].lstrip("[") in _PATH_OPTIONS:
            yield (
                f"{source.at(word.span)}: `{escape(word.text)}` is given to the script; if it is "
                f"meant as the hermes option, {hint}"
            )


def _commas(source: Source, section: str, words: Iterable[Word]) -> Iterator[str]:
    for word in words:
        if word.text.endswith(",") and _raw(source, word).endswith(",") and len(word.text) > 1:
            yield (
                f"{source.at(word.span)}: the comma is part of `{escape(word.text)}`: in {section} "
                "white space alone separates words; leave it out, or quote the word"
            )
            return


def _commas_of_env(document: Document) -> Iterator[str]:
    for line in document.settings:
        found = next((each for each in line.value.text.split() if each.endswith(",")), None)
        if line.key.text == "env" and found is not None:
            yield (
                f"{document.source.at(line.value.span)}: the comma is part of `{escape(found)}`: "
                "white space alone separates the variables of `env`"
            )


def _raw(source: Source, word: Word) -> str:
    return source.text[word.span.start : word.span.end]
