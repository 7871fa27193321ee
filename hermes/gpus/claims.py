"""What the runs of this user hold of the GPUs of this machine, on the disk.

Every run has a file of its own, locked while its runner lives. A claim of a runner that was killed
counts as long as a process of the job lives that carries the claim's name in its environment. All
of this blocks.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction

import msgspec

from ..errors import HermesError
from ..storage.files import open_regular, read_regular, write_atomic

FORMAT = 1

SUFFIX = ".json"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A share of each of some GPUs, which belongs to one job."""

    name: str
    gpus: tuple[str, ...]
    share: str

    @property
    def part(self) -> Fraction:
        return Fraction(self.share)


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What one run holds. `kept_free` are the GPUs for which its oldest waiting job has waited
    `since`, by the clock of the day."""

    format: int = FORMAT
    claims: tuple[Claim, ...] = ()
    kept_free: tuple[str, ...] = ()
    since: float = 0.0


def own_folder() -> str:
    """The folder that all runs of this user on this machine share, whatever their settings.

    It is made if it is missing. Raises `HermesError` if somebody else has made it.
    """
    # Not that of TMPDIR, which may be another one in every session
    top = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()
    folder = f"{top}/hermes-{os.getuid()}"
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise HermesError(f"`{folder}` is not a folder of this user alone")
    os.makedirs(f"{folder}/gpus", mode=0o700, exist_ok=True)
    return f"{folder}/gpus"


class Claims:
    """The claims of one run, beside those of all others."""

    def __init__(
        self, folder: str, run: str, living: Callable[[], Sequence[str]] = lambda: ()
    ) -> None:
        """`living` gives the names of the claims whose jobs have live processes."""
        self._folder = folder
        self._path = f"{folder}/{run}{SUFFIX}"
        self._living = living
        self.earlier: tuple[Claim, ...] = ()
        """What a runner of this run that was killed has held, of jobs that are alive."""

        with self._alone():
            holding = _read(self._path)
            if holding is not None and holding.claims:
                alive = set(living())
                self.earlier = tuple(claim for claim in holding.claims if claim.name in alive)
            self._file = os.open(f"{folder}/{run}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @contextmanager
    def others(self) -> Iterator[Sequence[Holding]]:
        """What all other runs hold, which does not change in this block."""
        with self._alone():
            yield list(self._others())

    def write(self, holding: Holding) -> None:
        """What this run holds from now on. Call it within the block of `others`."""
        write_atomic(self._path, msgspec.json.encode(holding), sync=False)

    def close(self) -> None:
        """Gives everything back."""
        with self._alone():
            for path in (self._path, f"{self._path.removesuffix(SUFFIX)}.lock"):
                with suppress(FileNotFoundError):
                    os.unlink(path)
            os.close(self._file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        fd = os.open(f"{self._folder}/lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _others(self) -> Iterator[Holding]:
        living: Sequence[str] | None = None
        for name in sorted(os.listdir(self._folder)):
            path = f"{self._folder}/{name}"
            if not name.endswith(SUFFIX) or path == self._path:
                continue
            holding = _read(path)
            if holding is None:
                continue
            if self._has_runner(path):
                yield holding
                continue
            if living is None:
                living = self._living()
            left = tuple(claim for claim in holding.claims if claim.name in living)
            if left:
                yield Holding(claims=left)
            else:
                for each in (path, f"{path.removesuffix(SUFFIX)}.lock"):
                    with suppress(OSError):
                        os.unlink(each)

    def _has_runner(self, path: str) -> bool:
        try:
            fd = open_regular(f"{path.removesuffix(SUFFIX)}.lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False


def _read(path: str) -> Holding | None:
    try:
        return msgspec.json.decode(read_regular(path), type=Holding)
    except (OSError, msgspec.MsgspecError):
        return None
