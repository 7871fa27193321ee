"""What `sbatch` says when it has not taken a job, and what that means. Nothing here does I/O.

Its exit code is 1 whatever the reason, so its words have to be read: they are those of Slurm 17.11
to 25.05, beside the C library's, and what sites print around them.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

from ...errors import escape


class Meaning(Enum):
    """What has become of a submission that `sbatch` does not confirm."""

    REFUSED = auto()
    """Slurm will never take it."""

    TOO_LARGE = auto()
    """Slurm will never take so many tasks in one array; it may take fewer."""

    FULL = auto()
    """Nothing was submitted, for Slurm has all the jobs that it takes. It may take fewer tasks now,
    and these ones later."""

    LATER = auto()
    """Nothing was submitted; it may be in a while."""

    UNCLEAR = auto()
    """It may have arrived all the same: look for its name."""


MEANINGS = (
    # A lost answer is no refusal
    (Meaning.UNCLEAR, "timed out"),
    (Meaning.UNCLEAR, "did not answer"),
    (Meaning.UNCLEAR, "zero bytes were transmitted"),
    (Meaning.UNCLEAR, "header lengths are longer"),
    (Meaning.UNCLEAR, "insane message length"),
    (Meaning.UNCLEAR, "unexpected message received"),
    (Meaning.UNCLEAR, "unexpected missing socket"),
    (Meaning.UNCLEAR, "communication"),
    (Meaning.UNCLEAR, "message send failure"),
    (Meaning.UNCLEAR, "message receive failure"),
    (Meaning.UNCLEAR, "(send failure)"),
    (Meaning.UNCLEAR, "(receive failure)"),
    (Meaning.UNCLEAR, "(shutdown failure)"),
    (Meaning.UNCLEAR, "delayed socket error"),
    (Meaning.UNCLEAR, "connection reset"),
    (Meaning.UNCLEAR, "connection closed"),
    (Meaning.UNCLEAR, "connection forced closed"),
    (Meaning.UNCLEAR, "connection abort"),
    (Meaning.UNCLEAR, "not connected"),
    (Meaning.UNCLEAR, "broken pipe"),
    (Meaning.UNCLEAR, "would block"),
    (Meaning.UNCLEAR, "interrupted system call"),
    (Meaning.UNCLEAR, "input/output error"),
    # More tasks than one array may have
    (Meaning.TOO_LARGE, "invalid job array specification"),
    # More jobs than the cluster, or its user, may have
    (Meaning.FULL, "submit limit"),
    (Meaning.FULL, "submitjob"),
    (Meaning.FULL, "submitlimit"),
    (Meaning.FULL, "maxsubmit"),
    (Meaning.FULL, "maxjobcount"),
    (Meaning.FULL, "maximum number of jobs"),
    (Meaning.FULL, "too many jobs"),
    (Meaning.FULL, "queue full"),
    (Meaning.FULL, "queue is full"),
    (Meaning.FULL, "violates accounting/qos policy"),
    (Meaning.FULL, "temporarily unable to accept job"),
    (Meaning.FULL, "resource temporarily unavailable"),
    (Meaning.FULL, "unable to create job record"),
    # A controller that is away, or at its own limits
    (Meaning.LATER, "unable to contact"),
    (Meaning.LATER, "connect failure"),
    (Meaning.LATER, "connection refused"),
    (Meaning.LATER, "no route to host"),
    (Meaning.LATER, "network is unreachable"),
    (Meaning.LATER, "host is down"),
    (Meaning.LATER, "can't find an address"),
    (Meaning.LATER, "name resolution"),
    (Meaning.LATER, "not responding"),
    (Meaning.LATER, "rate limit exceeded"),
    (Meaning.LATER, "standby"),
    (Meaning.LATER, "protocol authentication error"),
    (Meaning.LATER, "credential expired"),
    (Meaning.LATER, "submissions disabled"),
    (Meaning.LATER, "presently disabled"),
    (Meaning.LATER, "nodes are busy"),
    (Meaning.LATER, "i/o error writing script"),
    (Meaning.LATER, "temporarily"),
    (Meaning.LATER, "try again"),
    (Meaning.LATER, "retry"),
)
"""The first row whose text is in what was said decides; without one the job is refused."""

_VERDICT = r"(?:submission failed|allocation failure): (.*)"
_OWN = (
    _VERDICT,
    r"^[\w.-]+:? (?:error|fatal): ",
    r"^(?:sbatch|squeue|scancel|scontrol|slurm\w*): (?!info: )",
)
"""How the lines begin that say why: Slurm's verdict, its errors, its remarks. All else comes from
the site."""

_LIMIT = r"\b(?:Assoc(?:iation)?|QOS)[A-Z]\w+"
_ON_COUNT = r"Submit|(?<!Per)Jobs?(?:PerUser|PerAccount)?Limit$"
"""The names of limits of accounting, and those of them that are on the number of jobs. All others
are on the job itself, so that waiting does not help."""


class Refusal(NamedTuple):
    meaning: Meaning
    said: str
    """Why, for people."""


def own_lines(text: str) -> list[str]:
    """The lines that say why a command has failed, without what a site prints around them."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern in _OWN:
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            return found
    return lines


def last_line(text: str) -> str:
    """What a command says in the end, without its name before it."""
    lines = own_lines(text)
    return escape(re.sub(r"^\w+: (?:error: |fatal: )?", "", lines[-1])) if lines else ""


def read_refusal(text: str) -> Refusal:
    """What is meant by all that `sbatch` has printed. Silence is unclear."""
    said = last_line(text)
    if not said:
        return Refusal(Meaning.UNCLEAR, "it said nothing")
    lines = own_lines(text)
    verdict = re.search(_VERDICT, lines[-1])
    words = (verdict[1] if verdict else " ".join(lines)).lower()
    meaning = next((each for each, part in MEANINGS if part in words), Meaning.REFUSED)
    limits = re.findall(_LIMIT, text)
    if limits and meaning in (Meaning.FULL, Meaning.REFUSED):
        said = said if limits[0] in said else f"{limits[0]}: {said}"
        is_on_count = any(re.search(_ON_COUNT, limit) for limit in limits)
        meaning = Meaning.FULL if is_on_count else Meaning.REFUSED
    return Refusal(meaning, said)
