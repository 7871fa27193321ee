"""Every time constant of a run, in one record that a test can replace. All are in seconds."""

from __future__ import annotations

import msgspec


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long a run waits for what. A run gets one as an argument and hands it down."""

    control_poll: float = 0.2
    """Between two checks for the files by which `hermes stop`, `set`, `pause`, `continue` and `add`
    change a run in progress."""

    attach_poll: float = 0.1
    """Between two looks at what a run has told whose process is another one."""

    takeover: float = 30.0
    """Beyond the grace, for another process to end its run when `hermes stop` asks it to."""

    record_after: float = 0.05
    """After so long the process of a job is recorded in its metadata. Replacing them costs more
    than starting a job that is over by then; until then, the environment and the supervisor's file
    tell."""

    ask_poll: float = 0.25
    """Between two checks whether what was asked about a job's start has been answered while it
    runs, so that it is known whatever becomes of this process."""

    settle: float = 0.01
    """Jobs that end within this time of each other share one final scan."""

    adopted_poll: float = 0.05
    """Between two checks whether an adopted job has ended: only a parent is told by the system."""

    linger: float = 1.0
    """For processes that have outlived their job to end by themselves, as Python's pools do."""

    busy: float = 30.0
    """For a system that has no process, thread or descriptor left to have one again."""

    git: float = 5.0
    """For all answers of git together: a run must not wait for a slow network disk."""

    freeze: float = 60.0
    """For git to keep the code that a run freezes. After that the files are copied without it."""

    first_retry: float = 1.0
    """Before a failed job is tried again; each pause after that is twice the one before."""

    last_retry: float = 60.0
    """The longest pause before a failed job is tried again."""

    notify: float = 30.0
    """For one message of `notify` to be sent; then it is given up."""

    gpu_poll: float = 0.5
    """Between two looks at the GPUs that other runs have given back, while a job waits for some."""

    packages: float = 10.0
    """For a Python to tell its packages, which on a cold network disk takes seconds."""

    slow_reader: float = 5.0
    """A listener that takes nothing for so long gets no more log chunks of that job."""

    slurm_first_ask: float = 2.0
    """Until `squeue` is called first; each interval after that is twice the one before."""

    slurm_last_ask: float = 60.0
    """The longest interval between two calls of `squeue`."""

    slurm_alive: float = 25.0
    """For which a node's sign of life counts. Nodes give one every 15 s."""

    slurm_settle: float = 5.0
    """For a node's last file to arrive after Slurm has said that the task is over."""

    slurm_lost_after: float = 30.0
    """After so long a task is given up that Slurm has said more than once not to know."""

    slurm_stale: float = 300.0
    """After so long without a sign of life a task is given up that Slurm takes for running."""


TIMING = Timing()
"""What applies unless a caller says otherwise."""
