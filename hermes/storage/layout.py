"""Names, paths and formats of all that Hermes puts on the disk, and nothing else.

    experiments/
      <script>/<name>/<identifier>/     one job's execution, the experiment directory
        hermes.json                     metadata
        stdout.log, stderr.log          what the job printed, byte for byte
        re_execution.hermes             a hermes file that runs this job again
        uncommitted.patch               what is in no commit, if the tree was dirty
        ...                             what was copied, moved, collected or written by the job
      .hermes/                          what runs need for themselves
        clock                           the stamp of the last identifier that was given
        <run id>/                       one run; goes when all of its jobs have succeeded
          run.json                      its plan
          journal                       the jobs it has started, and how they ended
          progress                      where it stands, for those who look at it from outside
          output.log                    what its process prints, if it goes on without a terminal
          lock                          held by the process that executes it; a reserve of room
          stop                          there once `hermes stop` was called
          pause                         there from `hermes pause` to `hermes continue`
          threads                       how many jobs run at once since `hermes set threads=N`
          pace                          which of the two the run's process has taken in last
          notify                        where it sends word, for its owner's eyes alone
          added/<n>.json                what `hermes add` has added to the plan, counted from 1
          added/taken                   how many of these the run has taken in
          uncommitted.patch             as the run began, for the nodes of a cluster
          code/                         a copy of the code, with `freeze`: jobs run in it
          frozen.json                   what is in it, and what it was made of
          <identifier>                  how that job ended, as its supervisor has seen it
          <identifier>.links            what was collected while it runs
          <identifier>.links.original   the same, from the working directory of a frozen run
          slurm/                        what a client and its nodes tell each other
        environments/<digest>/environment.json
                                        a Python and its packages, as jobs have used it
        index.sqlite                    what `hermes ls` has read of ended experiments; a cache
        <hash of a name>.starts         what those runs of this name start that repeat nothing
        <hash of a name>.removed        which of its experiments `hermes rm` has removed
        <run id>.pointer                leads to a run of this project whose folder is elsewhere

Whatever ends in `.hermes-part` is not whole yet; if its process is gone, it can go.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

EXPERIMENTS = "experiments"
METADATA = "hermes.json"
STDOUT = "stdout.log"
STDERR = "stderr.log"
RE_EXECUTION = "re_execution.hermes"
PATCH = "uncommitted.patch"

OWN = frozenset({METADATA, STDOUT, STDERR, RE_EXECUTION, PATCH})
"""What stands in an experiment directory before its job starts."""

RUNS = ".hermes"
CLOCK = "clock"
RUN_RECORD = "run.json"
LOCK = "lock"
JOURNAL = "journal"
PROGRESS = "progress"
OUTPUT = "output.log"
STOP = "stop"
PAUSE = "pause"
THREADS = "threads"
ADDED = "added"
TAKEN = "taken"
PACE = "pace"
NOTIFY = "notify"
SLURM = "slurm"
CODE = "code"
FROZEN = "frozen.json"
EXIT = "<identifier>"
LINKS = "<identifier>.links"

ENVIRONMENTS = "environments"
ENVIRONMENT = "environment.json"

INDEX = "index.sqlite"

STARTS = ".starts"
"""Ends the name of what the runs of one name tell each other."""

REMOVALS = ".removed"
"""Ends the name of what tells which experiments of a name were removed."""

POINTER = ".pointer"
"""Ends the name of what leads to a run elsewhere."""

PART = ".hermes-part"
"""Ends the name of what is not whole yet."""

FORMATS: Mapping[str, int] = {
    METADATA: 1,
    RUN_RECORD: 1,
    JOURNAL: 1,
    PROGRESS: 1,
    EXIT: 1,
    STARTS: 1,
    REMOVALS: 1,
    POINTER: 1,
    LINKS: 1,
    SLURM: 1,
    ENVIRONMENT: 1,
    ADDED: 1,
    FROZEN: 1,
    INDEX: 1,
}
"""The format of each file that another version of Hermes may read; `SLURM` stands for the files in
that folder.

A reader ignores members that it does not know, so a new member changes no number; members that go
or change their meaning, and new values of an enumeration, do. Readers take older formats and
refuse newer ones; an index of another format is made anew. The clock is text that sorts; the lock,
the stop and pause files, what is said of threads and of `notify`, and the logs have no format.
"""


def runs_folder(experiments: str) -> str:
    return f"{experiments}/{RUNS}"


def run_folder(experiments: str, run_id: str) -> str:
    return f"{experiments}/{RUNS}/{run_id}"


def pointer(experiments: str, run_id: str) -> str:
    """What leads to a run of this project whose experiments are elsewhere."""
    return f"{experiments}/{RUNS}/{run_id}{POINTER}"


def starts_file(experiments: str, name: str) -> str:
    """Where the runs of one name tell each other which jobs they start."""
    return f"{experiments}/{RUNS}/{_digest(name)}{STARTS}"


def removals_file(experiments: str, name: str) -> str:
    """Tells which experiments of a name were removed."""
    return f"{experiments}/{RUNS}/{_digest(name)}{REMOVALS}"


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def index_file(experiments: str) -> str:
    """What has been read of ended experiments, a cache."""
    return f"{experiments}/{RUNS}/{INDEX}"


def index_elsewhere(experiments: str) -> str:
    """The index of a folder that is not Hermes' own: in the user's caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    digest = _digest(os.path.realpath(experiments))
    return f"{caches}/hermes/{digest}/{INDEX}"


def environment_file(experiments: str, digest: str) -> str:
    """What a Python and its packages were that jobs have used."""
    return f"{experiments}/{RUNS}/{ENVIRONMENTS}/{digest}/{ENVIRONMENT}"


def named_folder(experiments: str, script: str, name: str) -> str:
    """The folder of all experiments of one script and name."""
    return f"{experiments}/{script}/{name}"


def exit_file(run_folder: str, identifier: str) -> str:
    """Where a supervised job leaves its exit status."""
    return f"{run_folder}/{identifier}"


def links_file(run_folder: str, identifier: str) -> str:
    """Where it is kept what was collected while a job runs."""
    return f"{run_folder}/{identifier}.links"


def stop_file(run_folder: str) -> str:
    """What tells the process that executes a run to end it."""
    return f"{run_folder}/{STOP}"


def pause_file(run_folder: str) -> str:
    """For as long as it is there, nothing more is started."""
    return f"{run_folder}/{PAUSE}"


def threads_file(run_folder: str) -> str:
    """Says how many jobs run at once, if that was changed since the run began."""
    return f"{run_folder}/{THREADS}"


def pace_file(run_folder: str) -> str:
    """What the process of a run has last taken in of the two above."""
    return f"{run_folder}/{PACE}"


def notify_file(run_folder: str) -> str:
    """The setting `notify` of a run. It may hold secrets, which stand nowhere else."""
    return f"{run_folder}/{NOTIFY}"


def added_folder(run_folder: str) -> str:
    """Holds what was added to the plan of a run since it began."""
    return f"{run_folder}/{ADDED}"


def code_folder(run_folder: str) -> str:
    """A copy of the code as it was when the run began."""
    return f"{run_folder}/{CODE}"
