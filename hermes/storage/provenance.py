"""Where a run comes from: machine, person, versions."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

from .. import __version__
from ..language.plan import Plan
from ..model import Status
from .frozen import Frozen
from .git import Git
from .metadata import Metadata, SlurmTask, Versions


def boot_id() -> str | None:
    """Tells one start of this machine from the next, so that no process id is mistaken for an older
    one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _boot_session()


def _boot_session() -> str | None:
    # macOS
    return _output("sysctl", "-n", "kern.bootsessionuuid")


def start_ticks(pid: int) -> str | None:
    """When a process started, in clock ticks since boot. Takes 20 us.

    None if it is gone, and where there is no `/proc`.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # Field 22 of proc(5). The second, the name, may hold anything: count from its end
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return None


def process_start(pid: int) -> str | None:
    """When a process started, in the system's own terms: `start_ticks`, or else what `ps` says.

    None if it is gone.
    """
    if os.path.isdir("/proc/self"):
        return start_ticks(pid)
    return _output("ps", "-o", "lstart=", "-p", str(pid))


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def versions(hermes: str) -> Versions:
    """The versions of what executes jobs, as they stand in the metadata."""
    # Not from `platform`, which reads the interpreter's file to find its C library: 3 ms
    system = os.uname()
    python = ".".join(map(str, sys.version_info[:3]))
    return Versions(hermes=hermes, python=python, platform=f"{system.sysname}-{system.release}")


def metadata_of_run(
    plan: Plan, name: str, run_id: str, git: Git, slurm: SlurmTask | None, frozen: Frozen | None
) -> Metadata:
    """The metadata of a job of a run on this machine, without what is the job's own."""
    return Metadata(
        identifier="",
        script="",
        argv=(),
        key="",
        status=Status.RUNNING,
        rerun_of=plan.rerun_of,
        run_id=run_id,
        name=name,
        working_directory=str(plan.working_directory),
        root=str(plan.root),
        settings=plan.settings.as_json(),
        git=git.state,
        frozen=frozen.metadata if frozen is not None else None,
        boot_id=boot_id(),
        host=os.uname().nodename,
        user=user_name(),
        versions=versions(__version__),
        slurm=slurm,
    )
