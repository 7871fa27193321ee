"""From one job entry and the values of the sweeps around it to a job."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from ..model import PLACEHOLDER, Job
from .options import OptionsTemplate
from .scripts import Script, find_script
from .sweeps import JobTemplate, Sweep, Values
from .syntax import Document


class Binder:
    """Puts values into one job entry. What no value changes is worked out once."""

    def __init__(self, document: Document, template: JobTemplate, comments: Sequence[str]) -> None:
        source = document.source
        self.words = [word for item in template.items for word in item]
        self.options = OptionsTemplate(
            source,
            standard=document.hermes_options,
            own=template.options,
            comments=comments,
        )
        self.line = source.line(template.entry.span.start)
        self.standard = tuple(word.text for word in document.script_arguments)
        self.lengths = tuple(len(item) for item in template.items)
        self._fixed = ["" if word.slots else word.fill([]) for word in self.words]
        self._open = [(index, word) for index, word in enumerate(self.words) if word.slots]
        self._placed = any(PLACEHOLDER in word for word in (*self._fixed, *self.standard))
        # The words that `find_script` looks at
        first, second = template.items[0], template.items[1][:2] if len(template.items) > 1 else ()
        head = (*first[:2], first[-1], *second) if second else first[:2]
        self.head_slots = frozenset().union(*(word.slots for word in head))
        self._script = None if self.head_slots else self._find_script(self._fixed)

    def script(self, values: Values) -> Script:
        return self.argv(values)[1]

    def places_identifier(self, values: Values) -> bool:
        """Whether the entry itself says where the identifier stands."""
        return len(self.argv(values)[0]) == len(self.words) + len(self.standard)

    def job(self, values: Values) -> Job:
        argv, script = self.argv(values)
        return Job(
            argv=tuple(argv),
            script=script.folder,
            line=self.line,
            options=self.options.bind(values),
            position=script.position,
            lengths=self.lengths,
            standard=self.standard,
        )

    def argv(self, values: Values) -> tuple[list[str], Script]:
        """The words of the whole command, and which of them is the script."""
        words = self._fixed.copy()
        placed = self._placed
        for index, word in self._open:
            words[index] = text = word.fill(values)
            placed = placed or PLACEHOLDER in text
        script = self._script or self._find_script(words)
        after = script.position + 1
        words[after:after] = self.standard if placed else (PLACEHOLDER, *self.standard)
        return words, script

    def _find_script(self, words: list[str]) -> Script:
        rest = iter(words)
        return find_script([tuple(islice(rest, length)) for length in self.lengths])


class Binding(NamedTuple):
    """A job entry with the sweeps around it, outermost first, and the values of its first job."""

    binder: Binder
    above: tuple[Sweep, ...]
    values: Values
