"""The key of a job: what it is, the same in every run."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field

from ..model import PLACEHOLDER, Job
from .options import OPTIONS

_FIELDS = tuple(option.field for option in OPTIONS if option.in_key and option.field)


@dataclass(slots=True, eq=False)
class Keys:
    """Gives every job its key: a hash of what the job is, the same in every run of the same entry.

    The key covers the command without the identifier, the options that are part of it (paths to
    copy and move), the working directory, and the repeat index: how many equal jobs came before in
    this plan. Other options, such as comments, change nothing about the job, so they do not count.
    `place` is the working directory relative to the root: the same words mean other files in
    another folder, and the same ones after the project was moved.
    """

    place: str
    _seen: Counter[int] = field(default_factory=Counter)
    _where: list[str] = field(init=False)

    def __post_init__(self) -> None:
        # In the root itself keys are as they were before they covered the folder
        self._where = [self.place] if self.place != os.curdir else []

    def key(self, job: Job) -> str:
        words = [word for word in job.argv if word != PLACEHOLDER]
        what = json.dumps([words, *(getattr(job.options, name) for name in _FIELDS), *self._where])
        digest = hashlib.sha256(what.encode())
        # Eight bytes of the digest keep the memory of 10^6 jobs small
        short = int.from_bytes(digest.digest()[:8], "big")
        repeat = self._seen[short]
        self._seen[short] = repeat + 1
        digest.update(b"%d" % repeat)
        return digest.hexdigest()[:32]
