"""Folders that cannot be read, files of other users, other disks, and names of two runs."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hermes import Status

from ..support import LIMIT, PYTHON, Desk, MakeDesk, NamespaceDesk, RecordProperty, times, until
from ..support.disks import small_disk

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for /proc")

USER = 12345
"""Somebody else than root, to whom a closed folder is closed."""


class OtherDesk(Desk):
    """A desk at which `hermes` runs as a user who is not root."""

    def command(self, *arguments: str) -> list[str]:
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        return [*as_user, *super().command(*arguments)]


@pytest.fixture
def other() -> Iterator[OtherDesk]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, to be another user")
    # Not below pytest's own folder, which every session that begins closes to others
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        path = Path(folder).resolve() / "other"
        path.mkdir()
        os.chown(path, USER, USER)
        desk = OtherDesk(path)
        done = subprocess.run(desk.command("--version"), capture_output=True, check=False, cwd="/")
        if done.returncode:
            pytest.skip("another user cannot execute hermes here")
        yield desk


def job(desk: Desk, code: str) -> None:
    desk.write("job.py", f"import os, sys\nown = sys.argv[1]\n{code}\n")
    # The interpreter of the tests may be in a home directory that others cannot enter
    python = shutil.which("python3", path=os.defpath) or PYTHON
    desk.write("s.hermes", f"EXEC\n[[{python}, job.py]]\n")


CLOSED = {
    "x only": ("closed('drop', 0o311, 'a_' + own)", 1),
    "nothing": ("closed('drop', 0, 'a_' + own)", 1),
    "own folder": ("closed('d_' + own, 0, 'a_' + own)", 0),
    "own x only": ("closed('d_' + own, 0o311, 'a_' + own)", 0),
    "own read only": ("closed('d_' + own, 0o555, 'a_' + own)", 0),
    "file": ("open('a_' + own, 'w').write('made'); os.chmod('a_' + own, 0)", 0),
    "folder read only": ("closed('drop', 0o555, 'a_' + own)", 0),
}
"""What a job closes, and the exit code: 1 where the file is left, and told."""

CLOSE = """\
def closed(folder, mode, name):
    # Nobody looks into it before it is closed
    os.mkdir("node_modules")
    open(os.path.join("node_modules", name), "w").write("made")
    os.chmod("node_modules", mode)
    os.rename("node_modules", folder)
"""


@pytest.mark.fault(35)
@pytest.mark.parametrize("what", CLOSED)
@pytest.mark.parametrize("across", [False, True], ids=["", "across"])
def test_what_is_closed_is_collected_or_told(
    other: OtherDesk, what: str, across: bool, tmp_path: Path
) -> None:
    code, expected = CLOSED[what]
    job(other, f"{CLOSE}{code}")
    with experiments_elsewhere(other) if across else nowhere():
        done = other.hermes("exec", "-f", "s.hermes", code=expected)
        experiment = other.experiment()
        found = {p: text for p, text in other.tree(experiment.directory, own=True).items()
                 if "a_" in p and text != "/"}  # fmt: skip
        if expected:
            assert "could not be looked into" in done.stderr
            assert found == {}
        else:
            if what == "file":
                (path,) = found
                os.chmod(experiment.directory / path, 0o600)
            assert list(found.values()) == ["made"]
            assert experiment.problems == ()


@contextmanager
def nowhere() -> Iterator[None]:
    yield


@contextmanager
def experiments_elsewhere(desk: Desk) -> Iterator[None]:
    """Another file system for `experiments`."""
    folder = Path(f"/dev/shm/hermes-{os.getpid()}")
    folder.mkdir()
    if isinstance(desk, OtherDesk):
        os.chown(folder, USER, USER)
    desk.experiments_folder.symlink_to(folder)
    if isinstance(desk, OtherDesk):
        os.chown(desk.experiments_folder, USER, USER, follow_symlinks=False)
    try:
        yield
    finally:
        shutil.rmtree(folder)


@pytest.mark.fault(35)
def test_folders_that_were_closed_before_and_cannot_be_entered_are_no_problem(
    other: OtherDesk,
) -> None:
    job(other, "")
    (other.path / "private").mkdir(0o700)
    (other.path / "mine").mkdir(0)
    os.chown(other.path / "mine", USER, USER)
    other.hermes("exec", "-f", "s.hermes")


@pytest.mark.fault(35)
@pytest.mark.parametrize("mode", ["755", "700"])
@pytest.mark.parametrize("across", [False, True], ids=["", "across"])
def test_files_of_another_user_are_copied(other: OtherDesk, mode: str, across: bool) -> None:
    """As Docker leaves them."""
    job(
        other,
        "import time\nopen('want.part', 'w').write(own); os.rename('want.part', 'want')\n"
        "while not os.path.exists('done'): time.sleep(0.01)",
    )
    with experiments_elsewhere(other) if across else nowhere():
        with other.started("exec", "-f", "s.hermes") as runner:
            until((other.path / "want").exists)
            own = (other.path / "want").read_text()
            folder = other.path.parent / f"out_{own}"
            (folder / "sub").mkdir(parents=True)
            (folder / "model").write_text("model")
            (folder / "sub" / "deep").write_text("deep")
            (folder / "link").symlink_to("model")
            (other.path / f"single_{own}").write_text("single")
            folder.chmod(int(mode, 8))
            # Nobody looks into it before it is closed
            folder.rename(other.path / folder.name)
            other.write("done")
            _, said = runner.communicate(timeout=LIMIT)
        stored = other.tree(other.experiment().directory, own=True)
        stored = {path: text for path, text in stored.items() if text != "/"}
        single = {f"single_{own}": "single"}
        if mode == "755":
            assert runner.returncode == 0, said
            assert stored == {
                f"out_{own}/model": "model", f"out_{own}/sub/deep": "deep",
                f"out_{own}/link": "-> model",
            } | single  # fmt: skip
        else:
            assert runner.returncode == 1
            assert stored == single
            assert "could not be collected: Permission denied" in said


MOVED = """\
import os, sys
own = sys.argv[1]
def put(path, text):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    open(path, "w").write(text)
for number in range(6):
    put("f%d_" % number + own, "file %d" % number)
    put("d_" + own + "/sub/%d" % number, "inside %d" % number)
    put("moved/%d" % number, "moved %d" % number)
put("single", "single")
os.symlink("f0_" + own, "l_" + own)
with open("s_" + own, "wb") as file:
    file.truncate(1 << 30)
    file.seek(1 << 29)
    file.write(b"data")
"""

WHOLE = {
    **{f"f{n}_@": f"file {n}" for n in range(6)},
    **{f"d_@/sub/{n}": f"inside {n}" for n in range(6)},
    **{f"moved/{n}": f"moved {n}" for n in range(6)},
    "single": "single",
    "l_@": "-> f0_@",
}

DIE_AT = """\
import os, signal, sys
step, last = 0, int(sys.argv.pop(1))
def counted(function):
    def call(*args, **kwargs):
        global step
        if sys.argv[0] == "counting":
            step += 1
            if step == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for name in "mkdir replace rename link symlink unlink rmdir fsync open".split():
    setattr(os, name, counted(getattr(os, name)))
from hermes.storage import copying
whole = copying.move
def move(*args, **kwargs):
    sys.argv[0] = "counting"
    return whole(*args, **kwargs)
copying.move = move
from hermes.collection import copies, links
copies.move = links.move = move
from hermes.cli.main import main
main()
"""
"""Executes `hermes` and dies before the n-th change of a file after it has begun to move."""


@pytest.mark.fault(35)
@pytest.mark.timeout(times(60, 900))
def test_a_move_across_file_systems_that_is_cut_is_whole_and_once(
    make_desk: MakeDesk, record_property: RecordProperty
) -> None:
    steps = range(1, 250, 3) if times(0, 1) else random.Random(35).sample(range(1, 200), 4)
    record_property("tried", len(steps))
    killed = 0
    for step in steps:
        desk = make_desk(f"desk{step}")
        desk.write("die.py", DIE_AT)
        desk.write("job.py", MOVED)
        desk.write("s.hermes", f"EXEC\n[[{PYTHON}, job.py],[-ma moved, -ma single]]\n")
        with experiments_elsewhere(desk):
            done = subprocess.run(
                [sys.executable, "die.py", str(step), "exec", "-f", "s.hermes"],
                cwd=desk.path, capture_output=True, check=False,
            )  # fmt: skip
            if done.returncode == -signal.SIGKILL:
                killed += 1
                if list(desk.experiments_folder.glob(".hermes/*/run.json")):
                    # Else all was done, and only the run's own folder had to go
                    desk.hermes("resume")
            experiment = desk.experiment()
            own = experiment.identifier
            sparse = experiment.directory / f"s_{own}"
            status = sparse.stat()
            assert status.st_size == 1 << 30
            assert status.st_blocks * 512 < 1 << 20
            with sparse.open("rb") as file:
                file.seek(1 << 29)
                assert file.read(4) == b"data"
            sparse.unlink()
            stored = desk.tree(experiment.directory, own=True)
            stored = {path: text for path, text in stored.items() if text != "/"}
            assert stored == {
                path.replace("@", own): text.replace("@", own) for path, text in WHOLE.items()
            }, step
            assert experiment.status is Status.FINISHED
            assert experiment.problems == ()
            assert desk.leftovers(own) == []
            assert not (desk.path / "moved").exists()
    assert killed


@pytest.mark.fault(35)
def test_a_sparse_file_gets_onto_a_small_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path.resolve(), across=True) as disk:
        desk: NamespaceDesk = disk.desk
        job(
            desk,
            "with open('s_' + own, 'wb') as file:\n"
            "    file.truncate(1 << 32); file.seek(1 << 31); file.write(b'x' * 5000)",
        )
        desk.hermes("exec", "-f", "s.hermes")
        experiment = desk.experiment()
        assert (experiment.directory / f"s_{experiment.identifier}").stat().st_size == 1 << 32


# Names with identifiers of two runs

TWO = """\
import os, sys, time
own, number = sys.argv[1:]
open("id%s.part" % number, "w").write(own)
os.rename("id%s.part" % number, "id" + number)
while not (os.path.exists("id0") and os.path.exists("id1")): time.sleep(0.01)
other = open("id1" if number == "0" else "id0").read()
if number == "0":
    open("%s_and_%s" % (own, other), "w").write("both")
    os.mkdir("d_" + own)
    open("d_%s/x_%s" % (own, other), "w").write("other's, by the nearest name")
    open("d_%s/mine" % own, "w").write("mine")
    # The other runner sees it
    time.sleep(0.3)
open("alone_" + own, "w").write("alone")
while number == "1" and not os.path.exists("ended"): time.sleep(0.01)
"""


@pytest.mark.fault(35)
@pytest.mark.parametrize("roots", ["one", "two"])
def test_names_of_jobs_of_two_runs(desk: Desk, roots: str) -> None:
    desk.write("job.py", TWO)
    for number in range(2):
        place = f"PRE\npath_to_experiments: {desk.path}.e{number}\n" if roots == "two" else ""
        desk.write(f"s{number}.hermes", f"{place}EXEC\n[[{PYTHON}, job.py, {number}]]\n")
    with (
        desk.started("exec", "-f", "s0.hermes") as first,
        desk.started("exec", "-f", "s1.hermes") as second,
    ):
        said = [first.communicate(timeout=LIMIT)[1]]
        desk.write("ended")
        said.append(second.communicate(timeout=LIMIT)[1])
    own, other = ((desk.path / f"id{number}").read_text() for number in range(2))
    assert (first.returncode, second.returncode) == (1, 1), said
    assert all("two live identifiers" in text for text in said)
    assert (desk.path / f"{own}_and_{other}").read_text() == "both"
    (mine,), (theirs,) = (
        desk.path.parent.glob(f"**/experiments/*/*/{identifier}") for identifier in (own, other)
    )
    assert desk.tree(mine, own=True) == {
        f"alone_{own}": "alone", f"d_{own}": "/", f"d_{own}/mine": "mine",
    }  # fmt: skip
    assert desk.tree(theirs, own=True) == {
        f"alone_{other}": "alone",
        f"d_{own}": "/",
        f"d_{own}/x_{other}": "other's, by the nearest name",
    }


@pytest.mark.fault(35)
def test_a_name_with_the_identifier_of_a_job_that_has_ended_is_the_live_ones(desk: Desk) -> None:
    desk.write("job.py", "import sys, glob\nown = sys.argv[1]\n"
               "for old in glob.glob('old'):\n"
               "    open('%s_after_%s' % (own, open(old).read()), 'w').write('mine')\n"
               "open('old', 'w').write(own)\n")  # fmt: skip
    desk.write("s.hermes", f"EXEC\n[[{PYTHON}, job.py]]\n")
    desk.hermes("exec", "-f", "s.hermes")
    desk.hermes("exec", "-f", "s.hermes")
    first, second = desk.experiments()
    assert desk.tree(second.directory, own=True) == {
        f"{second.identifier}_after_{first.identifier}": "mine"
    }
