"""The key of a job: what it is, the same in every run."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from ..model import PLACEHOLDER, Job
from .braces import formatted, pieces
from .numbers import canonical, canonical_word
from .options import OPTIONS

_FIELDS = tuple(option.field for option in OPTIONS if option.in_key and option.field)


class Keys(msgspec.Struct, eq=False):
    """Gives every job its key: a hash of what the job is, the same in every run of the same entry.

    The key covers the command without the identifier, its numbers in one spelling; the options that
    are part of it (paths to copy and move); the working directory; and the repeat index: how many
    equal jobs came before in this plan. Other options, such as comments, change nothing about the
    job, so they do not count.
    `place` is the working directory relative to the root: the same words mean other files in
    another folder, and the same ones after the project was moved.
    """

    place: str
    _seen: Counter[int] = msgspec.field(default_factory=Counter)
    _where: list[str] = []

    def __post_init__(self) -> None:
        # In the root itself keys are as they were before they covered the folder
        if self.place != os.curdir:
            self._where = [self.place]

    def key(self, job: Job) -> str:
        words = [canonical_word(word) for word in _spelled(job) if word != PLACEHOLDER]
        what = json.dumps([words, *(getattr(job.options, name) for name in _FIELDS), *self._where])
        digest = hashlib.sha256(what.encode())
        # Eight bytes of the digest keep the memory of 10^6 jobs small
        short = int.from_bytes(digest.digest()[:8], "big")
        repeat = self._seen[short]
        self._seen[short] = repeat + 1
        digest.update(b"%d" % repeat)
        return digest.hexdigest()[:32]


def _spelled(job: Job) -> Sequence[str]:
    """The command with the sweep's values in one spelling, also where they are part of a word."""
    values = {key: canonical(value) for key, value in job.parameters}
    if tuple(values.items()) == job.parameters:
        return job.argv
    return [
        word if template == word else _filled(template, values)
        for word, template in zip(job.argv, job.template, strict=True)
    ]


def _filled(template: str, values: Mapping[str, str]) -> str:
    return "".join(
        piece
        if isinstance(piece, str)
        else str(piece)
        if piece.name not in values
        else values[piece.name]
        if piece.specification is None
        else formatted(values[piece.name], piece.specification)
        for piece in pieces(template)
    )
