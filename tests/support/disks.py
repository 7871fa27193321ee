"""Small disks, in a namespace of their own, and jobs that need room on them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import (
    LONG,
    Desk,
    NamespaceDesk,
    namespace,
    until,
)

MANY = pytest.mark.timeout(1200 if LONG else 60)
"""For tests whose long figures take their time."""

FULL = "No space left on device"

BLOCK = 4096


def holding(path: str) -> str:
    """A shell's words that wait until a file is gone."""
    return f'while [ -e "{path}" ]; do sleep 0.01; done'


class Disk:
    """A small disk, and the desk on it, or beside it."""

    def __init__(self, desk: NamespaceDesk, mounted: Path) -> None:
        self.desk = desk
        self.path = desk.at(mounted).path

    def fill(self, kind: str, left: int) -> None:
        """Leaves so many blocks or inodes free, also while a run on the disk makes files."""
        filled = self._fill_inodes if kind == "inodes" else self._fill_blocks
        until(lambda: filled(left))

    def _fill_inodes(self, left: int) -> bool:
        folder = self.path / "filler"
        folder.mkdir(exist_ok=True)
        number = len(os.listdir(folder)) + os.statvfs(self.path).f_favail - left
        for name in range(len(os.listdir(folder)), number):
            (folder / f"{name}").touch()
        for name in range(number, len(os.listdir(folder))):
            (folder / f"{name}").unlink()
        return os.statvfs(self.path).f_favail == left

    def _fill_blocks(self, left: int) -> bool:
        filler = self.path / "filler"
        filler.touch()
        size = filler.stat().st_size + (os.statvfs(self.path).f_bavail - left) * BLOCK
        with filler.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(bytes(max(0, size - file.tell())))
            file.truncate(size)
        return os.statvfs(self.path).f_bavail == left

    def make_room(self) -> None:
        self.desk.do("rm", "-r", f"{self.path}/filler")


@contextmanager
def small_disk(folder: Path, *, across: bool) -> Iterator[Disk]:
    """A disk of 2 MB. With `across`, only `experiments/` of the desk is on it."""
    mounted = folder / "disk"
    mounted.mkdir()
    beside = folder / "beside"
    beside.mkdir()
    working = beside if across else mounted
    mount = (
        f"mount -t tmpfs -o size=2M,nr_inodes=2048 tmpfs {mounted} && mkdir -p {working}/work && "
        f"cd {working}/work"
    )
    with namespace(folder, mount) as found:
        desk = found.at(working / "work")
        if across:
            # A link, so that the desk has its experiments where it has them always; it means the
            # same from outside
            (desk.path / "experiments").symlink_to("../../disk/experiments")
            (found.path / "disk" / "experiments").mkdir()
        yield Disk(desk, mounted)


TRACE = """\
echo "started $2 $1" >> "$3/ledger"
printf '%s\\n' "$1" > "made_$1"
while [ -e "$3/hold$2" ]; do sleep 0.01; done
echo "wrote $2 $1" >> "$3/ledger"
"""
"""A job that makes a file and can be held."""


def ledger(folder: Path, word: str) -> list[tuple[str, str]]:
    """Number and identifier of the jobs that have written this word."""
    path = folder / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[1], line.split()[2]) for line in lines if line.split()[0] == word]


def all_recorded(desk: Desk) -> bool:
    return all(
        json.loads(path.read_bytes()).get("pid")
        for path in desk.experiments_folder.glob("*/*/*/hermes.json")
    )


def traced(desk: Desk, folder: Path, jobs: int, *held: int) -> None:
    """Writes a hermes file of jobs, some of which wait until their `hold` file is gone."""
    desk.write("job.sh", TRACE)
    desk.write("s.hermes", f"EXEC\nPROD([[sh, job.sh, {{n}}, {folder}]], n=RANGE[0, {jobs}])\n")
    for number in held:
        (folder / f"hold{number}").touch()
