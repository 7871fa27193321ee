"""What runs hold of the GPUs, on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from hermes.errors import HermesError
from hermes.gpus.claims import Claim, Claims, Holding, own_folder

HALF = Claim(name="run/key/1", gpus=("a", "b"), share="1/2")


def held(claims: Claims) -> list[Claim]:
    with claims.others() as others:
        return [claim for each in others for claim in each.claims]


def write(claims: Claims, *each: Claim) -> None:
    with claims.others():
        claims.write(Holding(claims=each))


def test_runs_see_what_others_hold_and_give_back(tmp_path: Path) -> None:
    one, other = Claims(str(tmp_path), "one"), Claims(str(tmp_path), "other")
    write(one, HALF)
    assert (held(one), held(other)) == ([], [HALF])
    assert HALF.part == Fraction(1, 2)
    one.close()
    assert held(other) == []
    other.close()
    assert os.listdir(tmp_path) == ["lock"]


KILLED = """\
import os, sys
from hermes.gpus.claims import Claim, Claims, Holding
claims = Claims(sys.argv[1], "killed")
with claims.others():
    claims.write(Holding(claims=tuple(
        Claim(name=name, gpus=("a",), share="1/2") for name in ("alive", "ended"))))
os._exit(1)
"""


def test_what_a_killed_runner_held_counts_while_its_job_lives(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    living = ["alive"]
    other = Claims(str(tmp_path), "other", lambda: living)
    assert [claim.name for claim in held(other)] == ["alive"]
    # The runner that takes the run up holds it on
    again = Claims(str(tmp_path), "killed", lambda: living)
    assert [claim.name for claim in again.earlier] == ["alive"]
    os.close(again._file)
    living.clear()
    assert held(other) == []
    assert not (tmp_path / "killed.json").exists()
    other.close()


def test_what_is_damaged_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "odd.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    claims = Claims(str(tmp_path), "run")
    assert held(claims) == []
    claims.close()


def test_the_folder_belongs_to_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(own_folder())
    assert folder.stat().st_mode & 0o077 == 0
    assert folder.stat().st_uid == os.getuid()
    # That of nobody who tests at the same time
    user = 10**6 + os.getpid()
    monkeypatch.setattr(os, "getuid", lambda: user)
    planted = Path(f"/tmp/hermes-{user}")
    planted.mkdir()
    try:
        with pytest.raises(HermesError, match="not a folder of this user alone"):
            own_folder()
    finally:
        planted.rmdir()
