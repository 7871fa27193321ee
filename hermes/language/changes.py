"""A job with parameters or arguments changed: `lr=0.1`. Pure functions of words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from ..errors import HermesError, did_you_mean, escape
from ..model import Job
from . import braces
from .numbers import NUMBER

_ASSIGNMENT = re.compile(r"(\+*)([A-Za-z_][\w.\-/]*)=(.*)", re.DOTALL)
"""An argument as Hydra and others take it."""

MOST_NAMED = 12
"""Names that are told to somebody who has changed one that there is not."""


class _Words(msgspec.Struct):
    """The words of a job that can be changed: behind the script, each with the number of its item,
    or None for those of STD-E."""

    words: list[str]
    items: list[int | None]
    is_template: bool

    def shown(self, index: int, count: int) -> str:
        """A word and so many behind it, for people."""
        found = self.words[index : index + 1 + count]
        if self.is_template:
            found = ["".join(map(str, braces.pieces(word))) for word in found]
        return shlex.join(found)


class _Place(msgspec.Struct, frozen=True):
    """Where an argument stands: its word, and how many words behind it may be its values."""

    words: _Words
    index: int
    name: str
    count: int

    @property
    def text(self) -> str:
        return self.words.shown(self.index, self.count)


def changed(job: Job, changes: Mapping[str, str]) -> tuple[Job, tuple[str, ...]]:
    """A job with these parameters, or arguments, changed; and what was changed, for people.

    A name is that of a parameter, else that of an argument, without its dashes; `param:` and `arg:`
    before it say which. `true` and `false` switch a flag that is there, and the value of an
    argument that has several is split as a shell splits words. Raises `HermesError` for a name that
    the job does not have.
    """
    told: list[str] = []
    parameters = dict(job.parameters)
    standard = _Words(list(job.standard), [None] * len(job.standard), is_template=False)
    own = _own_words(job)
    for text, value in changes.items():
        kind, colon, name = text.partition(":")
        if not colon or kind not in ("param", "arg"):
            kind, name = "", text
        key = name if name in parameters and kind != "arg" else None
        places = [] if key or kind == "param" else [*_places(standard, name), *_places(own, name)]
        if len(places) == 1 and own is places[0].words:
            # Its value is all of a parameter's
            key = _parameter_of(places[0]) or key
        if key is not None and key in parameters:
            told.append(f"{key}: {parameters[key]} becomes {value}")
            parameters[key] = value
        elif not places:
            raise _unknown(text, parameters, [standard, own])
        elif len(places) > 1:
            shown = ", ".join(f"`{escape(place.text)}`" for place in places)
            raise HermesError(f"`{escape(text)}` is given {len(places)} times: {shown}")
        else:
            told.append(_change(places[0], value))
    new = _with_words(job, own, standard)
    new = replace(new, parameters=tuple(parameters.items()))
    return new, (*told, *_without_effect(new, job))


def _without_effect(new: Job, old: Job) -> Iterator[str]:
    """What is told of parameters whose change is not to be seen in the command."""
    shown = {
        piece.name
        for word in new.template
        for piece in braces.pieces(word)
        if isinstance(piece, braces.Key)
    }
    before = dict(old.parameters)
    for key, value in new.parameters:
        if value != before[key] and key not in shown:
            yield (
                f"warning: `{{{key}}}` stands nowhere in the command as it was: only "
                f"HERMES_PARAM_{key.upper()} changes"
            )
        options = [*old.options.copy_after, *old.options.copy_before, *old.options.move_after]
        for path in options if value != before[key] else ():
            if len(before[key]) > 1 and before[key] in path:
                yield f"warning: the path `{path}` of an option stays as it is"


def _own_words(job: Job) -> _Words:
    """The words behind the script that are the job's own, as a sweep writes them."""
    words: list[str] = []
    items: list[int | None] = []
    before = job.position + 1
    for number, item in enumerate(job.template_items or job.items):
        for word in item:
            if before > 0:
                before -= 1
            else:
                words.append(word)
                items.append(number)
    return _Words(words, items, is_template=bool(job.template))


def _with_words(job: Job, own: _Words, standard: _Words) -> Job:
    """The job with other words behind the script. Its `argv` is that of the template: what is
    written of it is all that is right."""
    after = job.position + 1
    counts = list(job.lengths)
    before = after
    for number, length in enumerate(job.lengths):
        head = min(length, before)
        before -= head
        counts[number] = head + own.items.count(number)
    argv = job.template or job.argv
    put_in = argv[after : after + len(argv) - sum(job.lengths) - len(job.standard)]
    words = (*argv[:after], *put_in, *standard.words, *own.words)
    return replace(
        job,
        argv=words,
        template=words if job.template else (),
        lengths=tuple(counts),
        standard=tuple(standard.words),
    )


def _places(words: _Words, name: str) -> Iterator[_Place]:
    wanted = name.lstrip("-")
    for place in _arguments(words):
        if place.name == wanted:
            yield place


def _arguments(words: _Words) -> Iterator[_Place]:
    """The options, flags and assignments among these words."""
    index = 0
    while index < len(words.words):
        word = words.words[index]
        if word == "--":
            return
        place = None
        if assigned := _ASSIGNMENT.fullmatch(word):
            place = _Place(words, index, assigned[2], 0)
        elif _is_option(word):
            name, equals, _ = word.partition("=")
            count = 0 if equals else _count_values(words.words, index + 1)
            place = _Place(words, index, name.lstrip("-"), count)
        if place is not None and place.name:
            yield place
            index += place.count
        index += 1


def _count_values(words: Sequence[str], start: int) -> int:
    end = start
    while end < len(words) and not _is_option(words[end]):
        end += 1
    return end - start


def _is_option(word: str) -> bool:
    return word[:1] == "-" and len(word) > 1 and NUMBER.fullmatch(word) is None


def _parameter_of(place: _Place) -> str | None:
    """The key of the sweep whose value is all of an argument's value, if one is."""
    words = place.words
    if not words.is_template:
        return None
    word = words.words[place.index]
    text = word.partition("=")[2] if place.count == 0 else words.words[place.index + 1]
    pieces = braces.pieces(text)
    if len(pieces) == 1 and isinstance(pieces[0], braces.Key) and place.count < 2:
        return pieces[0].name
    return None


def _change(place: _Place, value: str) -> str:
    """Changes an argument, and returns what was changed."""
    words, index = place.words, place.index
    before, word = place.text, words.words[index]
    name, equals, _ = word.partition("=")
    is_flag = not equals and place.count == 0
    new = [value]
    if is_flag and value == "true":
        return f"{before} stays"
    if is_flag and value == "false":
        del words.words[index], words.items[index]
        return f"{before} goes"
    if equals:
        words.words[index] = f"{name}={_written(words, value)}"
        return f"{before} becomes {words.shown(index, 0)}"
    if place.count > 1:
        new = shlex.split(value)
        if len(new) not in (1, place.count):
            raise HermesError(
                f"`{escape(before)}` has {place.count} values, and `{escape(value)}` is {len(new)}"
            )
    at = index + 1
    replaced = len(new) if place.count else 0
    words.words[at : at + replaced] = [_written(words, each) for each in new]
    words.items[at : at + replaced] = [words.items[index]] * len(new)
    return f"{before} becomes {words.shown(index, max(place.count, len(new)))}"


def _written(words: _Words, value: str) -> str:
    return braces.written([value]) if words.is_template else value


def _unknown(text: str, parameters: Mapping[str, str], words: Sequence[_Words]) -> HermesError:
    names = dict.fromkeys([*parameters, *(at.name for each in words for at in _arguments(each))])
    shown = [f"`{escape(name)}`" for name in names]
    more = len(shown) - MOST_NAMED
    listed = ", ".join(shown[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    hint = did_you_mean(text, names) or (f"there are {listed}" if names else "it has none")
    return HermesError(f"the job has no parameter and no argument `{escape(text)}`", hint=hint)
