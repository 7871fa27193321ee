"""From one job entry and the values of the sweeps around it to a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from ..model import PLACEHOLDER, Job, holds_identifier
from .braces import written
from .options import OptionsTemplate
from .scripts import Script, find_script
from .source import Word
from .sweeps import JobTemplate, Sweep, Template, Values, distinct
from .syntax import Document
from .values import choices_of
from .words import is_option


class Command(NamedTuple):
    """The words of a command: `argv` is the whole of it, `kept` are the indices of the entry's
    words that are part of it, and `lengths` how many of them each item has; an item without any is
    none.

    `is_placed` says that the entry itself says where the identifier stands.
    """

    argv: list[str]
    script: Script
    kept: Sequence[int]
    lengths: tuple[int, ...]
    is_placed: bool


class Binder:
    """Puts values into one job entry. What no value changes is worked out once.

    `above` are the sweeps around the entry. `exists` tells whether there is a file of that name.
    Without `gives_identifier` the identifier is put in only where the entry says so.
    """

    def __init__(
        self,
        document: Document,
        template: JobTemplate,
        above: Sequence[Sweep],
        *,
        comments: Sequence[str],
        exists: Callable[[str], bool],
        gives_identifier: bool = True,
    ) -> None:
        self._source = document.source
        self.words = [word for item in template.items for word in item]
        self.options = OptionsTemplate(
            self._source,
            standard=document.hermes_options,
            own=template.options,
            comments=comments,
        )
        self.line = self._source.line(template.entry.span.start)
        self.standard = tuple(word.text for word in document.script_arguments)
        self._standard_pattern = tuple(written([word]) for word in self.standard)
        self._last: tuple[object, tuple[str, ...]] = (None, ())
        self._exists = exists
        self.gives_identifier = gives_identifier
        self._lengths = tuple(len(item) for item in template.items)
        self._all = range(len(self.words))
        self._fixed = ["" if word.slots else word.fill([]) for word in self.words]
        self._open = [(index, word) for index, word in enumerate(self.words) if word.slots]
        self._keys = [(c.key, c.slot) for sweep in above for c in sweep.columns]
        self._vanishing = [index for index, word in self._open if self._can_vanish(word)]
        self._placed = any(holds_identifier(word) for word in (*self._fixed, *self.standard))
        self.stand_in = stand_in = self._find_script(
            [word.word.text if word.slots else word.fill([]) for word in self.words],
            self._lengths,
        )
        self.head_slots = self._deciding(stand_in, above)
        self._script = None if self.head_slots else stand_in

    def job(self, values: Values) -> Job:
        command = self.command(values)
        return Job(
            argv=tuple(command.argv),
            script=command.script.folder,
            line=self.line,
            options=self.options.bind(values),
            position=command.script.position,
            lengths=command.lengths,
            standard=self.standard,
            parameters=tuple([(key, values[slot]) for key, slot in self._keys]),
            template=self._template(command),
            is_given=self.gives_identifier and not command.is_placed,
            files=command.script.files,
        )

    def _template(self, command: Command) -> tuple[str, ...]:
        """The command with `{key}` where values stand."""
        if not self._keys:
            return ()
        if self._last[0] != (command.kept, command.script.position, command.is_placed):
            # Nearly all jobs of an entry share it
            pattern = [self.words[index].pattern for index in command.kept]
            self._put_in(pattern, command.script, command.is_placed, self._standard_pattern)
            key = (command.kept, command.script.position, command.is_placed)
            self._last = (key, tuple(pattern))
        return self._last[1]

    def _put_in(
        self, words: list[str], script: Script, is_placed: bool, standard: Sequence[str]
    ) -> None:
        """Puts in what comes right after the script word."""
        after = script.position + 1
        is_given = self.gives_identifier and not is_placed
        words[after:after] = (PLACEHOLDER, *standard) if is_given else standard

    def command(self, values: Values) -> Command:
        """The words of the whole command, and which of them is the script. Raises
        `HermesFileError` if an option gets no value."""
        words = self._fixed.copy()
        placed = self._placed
        for index, word in self._open:
            words[index] = text = word.fill(values)
            placed = placed or holds_identifier(text)
        kept: Sequence[int] = self._all
        lengths = self._lengths
        if not all(words[index] for index in self._vanishing):
            kept, lengths = self._without_empty(words)
            words = [words[index] for index in kept]
        script = self._script or self._find_script(words, lengths)
        self._put_in(words, script, placed, self.standard)
        return Command(words, script, kept, lengths, placed)

    def plain_words(self) -> list[Word]:
        """The words of the entry but for code, programs and paths, of which more is asked."""
        script = self.stand_in
        if script.in_shell:
            return []
        others = {0, script.start, script.position}
        return [word.word for index, word in enumerate(self.words) if index not in others]

    def check(self, above: tuple[Sweep, ...], values: Values) -> None:
        """Raises `HermesFileError` if values of the sweeps around make an option unusable."""
        self.options.check(above, values)
        for index in self._vanishing:
            slots = self.words[index].slots
            if index:
                slots |= self.words[index - 1].slots
            for _ in distinct(slots, above, values):
                self.command(values)

    def _can_vanish(self, word: Template) -> bool:
        """Whether a word is nothing but a key, without quotes: empty, it is no word at all."""
        span = word.word.span
        written = self._source.text[span.start : span.end]
        return len(word.parts) == 1 and written == word.word.text

    def _without_empty(self, words: list[str]) -> tuple[list[int], tuple[int, ...]]:
        """Which words are left, and how many of each item."""
        gone = {index for index in self._vanishing if not words[index]}
        for index in gone:
            option = words[index - 1] if index and index - 1 not in gone else ""
            if is_option(option):
                word = self.words[index].word
                raise self._source.error(
                    f"`{option}` gets no value, because a value of the sweep is empty",
                    word.span,
                    hint=f'write `"{word.text}"` for an empty value',
                )
        ends = list(accumulate(self._lengths, initial=0))
        counts = (
            sum(index not in gone for index in range(start, end)) for start, end in pairwise(ends)
        )
        lengths = tuple(count for count in counts if count)
        if not lengths:
            first = self.words[0].word
            raise self._source.error(
                "the job is empty, because values of the sweep are empty", first.span
            )
        return [index for index in self._all if index not in gone], lengths

    def _find_script(self, words: list[str], lengths: Sequence[int]) -> Script:
        first, *others = lengths
        return find_script(words, first if others else None, self._exists)

    def _deciding(self, script: Script, above: Sequence[Sweep]) -> frozenset[int]:
        """The slots whose values decide which word is the script."""
        columns = {column.slot: column.values for sweep in above for column in sweep.columns}
        found: frozenset[int] = frozenset()
        for index, word in self._open:
            if index <= script.position or (script.is_any_word and _may_end_in_py(word, columns)):
                found |= word.slots
        return found


def _may_end_in_py(word: Template, columns: dict[int, Sequence[str]]) -> bool:
    last = word.parts[-1]
    if isinstance(last, str):
        return last.endswith(".py") or ".py".endswith(last)
    return isinstance(last, int) and any(v.endswith("y") for v in choices_of(columns[last]))


class Binding(NamedTuple):
    """A job entry with the sweeps around it, outermost first, and the values of its first job."""

    binder: Binder
    above: tuple[Sweep, ...]
    values: Values
