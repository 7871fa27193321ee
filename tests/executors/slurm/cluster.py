"""A Slurm cluster of its own for a test session: a controller and two nodes on this machine,
everything in a temporary folder.

Several may run at the same time, started by root or by anybody else. The system's own Slurm and
munge are neither used nor changed.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

NODES = ("n1", "n2")

PATIENCE = 40.0
"""Seconds after which something is waited for in vain. The longest wait is that for a time
limit, 30 s."""

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")

CGROUPS = Path("/sys/fs/cgroup/memory")

SETTINGS = {
    "ClusterName": "test",
    "AuthType": "auth/munge",
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/none",
    "SwitchType": "switch/none",
    "MpiDefault": "none",
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_CPU_Memory",
    "DefMemPerCPU": "500",
    "AccountingStorageType": "accounting_storage/none",
    # Memory limits without cgroups: what a job uses is measured once a second. Who uses too much is
    # killed and then FAILED, as by SIGKILL; OUT_OF_MEMORY there is with `memory_cgroups` only
    "JobAcctGatherType": "jobacct_gather/linux",
    "JobAcctGatherFrequency": "task=1",
    "JobAcctGatherParams": "OverMemoryKill",
    # By default the scheduler waits up to 3 s for more batch jobs, and looks for work once a minute
    "SchedulerParameters": (
        "batch_sched_delay=0,sched_min_interval=10000,sched_interval=1,bf_interval=1"
    ),
    "KillWait": "1",
    "MessageTimeout": "5",
    "ReturnToService": "2",
    "SlurmdTimeout": "300",
    "SlurmctldDebug": "verbose",
    "SlurmdDebug": "verbose",
}


class Cluster:
    """`start()` before use and `stop()` afterwards, or as a context; `env` is what a process
    needs to find this cluster."""

    def __init__(
        self, settings: Mapping[str, str] | None = None, *, memory_cgroups: bool = False
    ) -> None:
        """`settings` are lines of slurm.conf, in place of those in SETTINGS or in addition to them.

        With `memory_cgroups`, which `no_memory_cgroups` tells about, a job that uses too much
        memory ends as OUT_OF_MEMORY.
        """
        self.settings = {**SETTINGS, **(settings or {})}
        if memory_cgroups:
            # Groups have the name of the node and the job's number, and all clusters of this
            # machine have the same nodes
            number = str(random.SystemRandom().randrange(1, 60000) * 1000)
            self.settings |= {
                "TaskPlugin": "task/cgroup",
                "JobAcctGatherParams": "UsePss",
                "FirstJobId": number,
            }
        # Not below pytest's own folder: there will be sockets in it, and a socket's path may have
        # 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="slurm."))
        self.conf = self.folder / "slurm.conf"
        self.env = {"SLURM_CONF": str(self.conf)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @staticmethod
    def available() -> str | None:
        """Why no cluster can be started here; None if one can."""
        missing = [each for each in (*DAEMONS, *COMMANDS) if not _which(each)]
        if missing:
            return f"not installed: {', '.join(missing)} (Debian has them in slurm-wlm and munge)"
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            return f"the user {os.getuid()} has no name, which Slurm needs"
        return None

    @staticmethod
    def no_memory_cgroups() -> str | None:
        """Why a cluster cannot have `memory_cgroups` here; None if it can."""
        if os.access(CGROUPS, os.W_OK) and (CGROUPS / "memory.limit_in_bytes").exists():
            return None
        return f"no cgroups (version 1) that this user may make in {CGROUPS}"

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when both nodes are ready for jobs."""
        # munged wants a folder that everybody may enter
        self.folder.chmod(0o755)
        for name in ("state", "log", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self._ports = _free_ports(1 + len(NODES))
        self._configure()
        files = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munge.pid",
            "seed-file": "munge.seed",
            "log-file": "log/munge",
        }
        self._spawn(
            "munged",
            "munged",
            "--foreground",
            *(f"--{option}={self.folder / name}" for option, name in files.items()),
        )
        self._until("munged listens", (self.folder / "munge.socket").exists)
        self._spawn_controller()
        for node in NODES:
            self._spawn_node(node)
        self._until(
            "the nodes are ready", lambda: all(self.node_state(node) == "idle" for node in NODES)
        )

    def stop(self) -> None:
        """Ends everything that `start` and the jobs have started, and removes the folder."""
        for name in ("slurmctld", *NODES, "munged"):
            self._end(name, signal.SIGTERM)
        for node in NODES:
            self._kill_processes(node)
        if self.settings["TaskPlugin"] == "task/cgroup":
            _remove_cgroups()
        shutil.rmtree(self.folder)

    def start_controller(self) -> None:
        """Returns when the controller answers; an idle node may be `unknown` for some more
        seconds."""
        self._configure()
        self._spawn_controller()
        self._until("the controller answers", lambda: self.node_state(NODES[0]))

    def stop_controller(self, how: signal.Signals = signal.SIGTERM) -> None:
        """With SIGKILL, what the controller has accepted in the last seconds may be forgotten."""
        self._end("slurmctld", how)

    def restart_controller(self, settings: Mapping[str, str] | None = None) -> None:
        """Jobs go on meanwhile. `settings` are changed lines of slurm.conf."""
        self.stop_controller()
        self.settings.update(settings or {})
        self.start_controller()

    def fail_node(self, node: str) -> None:
        """As if the node had lost its power, and the controller had noticed that."""
        self._end(node, signal.SIGKILL)
        self._kill_processes(node)
        self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=failed")

    def recover_node(self, node: str) -> None:
        """Returns when the node takes jobs again."""
        self._spawn_node(node)
        self.call("scontrol", "update", f"NodeName={node}", "State=RESUME")
        self._until(
            f"{node} is back", lambda: self.node_state(node) in ("idle", "mixed", "allocated")
        )

    def node_state(self, node: str) -> str:
        """`idle`, `mixed`, `allocated`, `down` ..., with `*` if the node does not answer; empty
        while the controller does not."""
        return self.call("sinfo", "-h", "-N", "-n", node, "-o", "%T", check=False).stdout.strip()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile no job starts: submitted ones are pending."""
        self.call("scontrol", "update", "PartitionName=main", "State=DOWN")
        try:
            yield
        finally:
            self.call("scontrol", "update", "PartitionName=main", "State=UP")

    def submit(self, script: str, *options: str) -> str:
        """Submits the lines of a shell script, and returns the job's id."""
        done = self.call("sbatch", "--parsable", *options, stdin=f"#!/bin/sh\n{script}\n")
        return done.stdout.strip()

    def states(self, job: str) -> dict[str, str]:
        """The state of every task of a job; of the job itself, by its id, if it is no array.
        Empty when Slurm has forgotten it."""
        found = self.call(
            "squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T", check=False
        ).stdout
        return dict(line.split() for line in found.splitlines() if line)

    def wait(self, job: str, *states: str) -> None:
        """Waits until all tasks of a job are in one of these states."""

        def reached() -> bool:
            found = self.states(job)
            return bool(found) and set(found.values()) <= set(states)

        self._until(f"{job} is {' or '.join(states)}", reached)

    def expire(self, job: str) -> None:
        """A running job's time is over. The controller looks for such jobs every 30 s, and knows
        no limits below a minute."""
        self.call("scontrol", "update", f"JobId={job}", "TimeLimit=0")

    def requeue(self, job: str) -> None:
        """A running or ended job starts again, after `cred_expire` (5) seconds."""
        self.call("scontrol", "requeue", job)

    def call(
        self,
        *command: str,
        check: bool = True,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            # Where a job's output goes if nothing else is said
            cwd=self.folder,
            input=stdin,
            env={**os.environ, **self.env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def _configure(self) -> None:
        host = socket.gethostname().partition(".")[0]
        user = pwd.getpwuid(os.getuid()).pw_name
        controller, *nodes = self._ports
        lines = {
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": controller,
            "SlurmUser": user,
            "SlurmdUser": user,
            # A requeued job does not start before its credential has expired; 120 s by default
            "AuthInfo": f"socket={self.folder}/munge.socket,cred_expire=5",
            "StateSaveLocation": f"{self.folder}/state",
            "SlurmdSpoolDir": f"{self.folder}/spool.%n",
            "SlurmctldPidFile": f"{self.folder}/slurmctld.pid",
            "SlurmdPidFile": f"{self.folder}/%n.pid",
            "SlurmctldLogFile": f"{self.folder}/log/slurmctld",
            "SlurmdLogFile": f"{self.folder}/log/%n",
            **self.settings,
        }
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        for node, port in zip(NODES, nodes, strict=True):
            text += (
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
                " CPUs=2 RealMemory=2000 State=UNKNOWN\n"
            )
        text += (
            f"PartitionName=main Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP\n"
        )
        self.conf.write_text(text)
        (self.folder / "cgroup.conf").write_text(
            f"CgroupMountpoint={CGROUPS.parent}\nCgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\n"
        )

    def _conf(self, node: str) -> Path:
        """The same file by another name: what a node starts has it in its environment, and is
        found by that."""
        return self.folder / f"{node}.conf"

    def _spawn_controller(self) -> None:
        """Returns when it listens: whoever asks before that waits for a second and tries again."""

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._ports[0])) == 0

        self._spawn("slurmctld", "slurmctld", "-D")
        self._until("the controller listens", listens)

    def _spawn_node(self, node: str) -> None:
        with suppress(FileExistsError):
            self._conf(node).symlink_to(self.conf)
        self._spawn(node, "slurmd", "-D", "-N", node, conf=self._conf(node))

    def _spawn(self, name: str, program: str, *arguments: str, conf: Path | None = None) -> None:
        path = _which(program)
        assert path, f"{program} is not installed"
        assert name not in self._daemons, f"{name} runs"
        with open(self.folder / f"log/{name}.out", "ab") as out:
            # In a session of its own: Ctrl-C is for the tests, whose end stops the cluster in its
            # order
            self._daemons[name] = subprocess.Popen(
                [path, *arguments],
                cwd=self.folder,
                env={**os.environ, "SLURM_CONF": str(conf or self.conf)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self._daemons.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _kill_processes(self, node: str) -> None:
        """Kills the jobs of a node and what Slurm has started to watch them; both go on without
        slurmd.

        Not found are processes whose job has emptied their environment.
        """

        def none_left() -> bool:
            found = list(_processes(f"SLURM_CONF={self._conf(node)}"))
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        self._until(f"nothing runs on {node}", none_left)

    def _until(self, what: str, condition: Callable[[], object]) -> None:
        ends = time.monotonic() + PATIENCE
        while not condition():
            dead = [name for name, process in self._daemons.items() if process.poll() is not None]
            if dead or time.monotonic() > ends:
                raise AssertionError(f"waited in vain until {what}; ended: {dead}\n{self._logs()}")
            time.sleep(0.02)

    def _logs(self) -> str:
        """The last lines of every log."""
        logs = sorted((self.folder / "log").glob("*.out"))
        return "\n".join(
            "\n".join([f"{path.stem}:", *path.read_text(errors="replace").splitlines()[-10:]])
            for path in logs
        )


def _which(program: str) -> str | None:
    """Daemons are often where only root looks for programs."""
    return shutil.which(
        program,
        path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"]),
    )


def _remove_cgroups() -> None:
    """Slurm leaves its own groups behind, which another cluster may still use."""
    for node in NODES:
        for folder, _, _ in os.walk(CGROUPS / f"slurm_{node}", topdown=False):
            with suppress(OSError):
                os.rmdir(folder)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens at. Below those that the system hands out by itself, so that
    nobody gets them before the cluster does."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            found.append(port)
    return found


def _processes(variable: str) -> Iterator[int]:
    """The processes that have been started with this in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        # Others' processes, and those that have just ended
        with suppress(PermissionError, FileNotFoundError, ProcessLookupError):
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
