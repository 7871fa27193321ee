"""From words and jobs back to the text of a hermes file."""

from __future__ import annotations

import re
from functools import lru_cache

from ..model import Job, Options
from . import braces
from .options import FLAGS, written
from .settings import WORKING_DIRECTORY, Settings
from .syntax import DOUBLE_QUOTES, HEADERS, SINGLE_QUOTES

_UNQUOTED = re.compile(r"(?!//)[A-Za-z0-9@%+=:./_-]+", re.ASCII)

BARE = re.compile(r"""(?!//|#)[^\s,\[\](){}'"\\\x00-\x1f\x7f]+""")
"""What needs no quotes in a hermes file, though a shell may think otherwise."""


def quote(word: str) -> str:
    """`word` as it can stand in a hermes file."""
    # A header could be alone on its line and open a section
    if _UNQUOTED.fullmatch(word) and word not in HEADERS:
        return word
    # CRLF becomes LF wherever it stands in the text, so the two are kept apart
    return "'" + word.replace("'", "'\\''").replace("\r\n", "\r''\n") + "'"


def re_execution(job: Job, settings: Settings, working_directory: str) -> str:
    """A hermes file that runs `job` again, with the settings in force.

    `working_directory` is that of the job, relative to the folder that the file goes into.
    """
    items = ", ".join(" ".join(map(quote, item)) for item in job.template_items or job.items)
    arguments = f"STD-E\n{' '.join(map(quote, job.standard))}\n" if job.standard else ""
    section = _settings_section(settings, working_directory)
    options = _option_list(job.options, is_swept=bool(job.parameters))
    entry = f"[[{items}],[{options}]]"
    for key, value in reversed(job.parameters):
        entry = f"PROD({entry}, {key}=[{quote(value)}])"
    return f"{section}{arguments}EXEC\n{entry}\n"


# Nearly all jobs of a run share both


@lru_cache(maxsize=10)
def _settings_section(settings: Settings, working_directory: str) -> str:
    texts = {WORKING_DIRECTORY: working_directory, **settings.as_texts()}
    lines = ["PRE"]
    for name, text in texts.items():
        lines.append(f"{name}: {text if _UNQUOTED.fullmatch(text) else _quoted_setting(text)}")
    return "\n".join([*lines, ""])


def _quoted_setting(text: str) -> str:
    """A setting's value as it can stand in PRE, where nothing can be escaped."""
    for quotes in (DOUBLE_QUOTES, SINGLE_QUOTES):
        if not any(char in quotes for char in text):
            return f"{quotes[0]}{text}{quotes[0]}"
    return text


@lru_cache(maxsize=100)
def _option_list(options: Options, *, is_swept: bool) -> str:
    # A value that reads as an option would be taken for one
    texts = [(option, braces.written([t]) if is_swept else t) for option, t in written(options)]
    return ", ".join(
        quote(f"{option.long}={text}") if text in FLAGS else f"{option.short} {quote(text)}"
        for option, text in texts
    )
