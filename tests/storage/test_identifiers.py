"""Identifiers are unique in a root and sort by the starts of their jobs, whatever clocks do."""

from __future__ import annotations

import os
import re
import threading
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from hermes.storage.identifiers import Clock, next_stamp

IDENTIFIER = re.compile(r"\d{4}_\d\d_\d\d_\d{12}_[0-9a-f]{5}")

NOON = datetime(2026, 3, 4, 12)


@pytest.mark.parametrize(
    ("now", "last", "stamp"),
    [
        (NOON, "", "2026_03_04_120000000000"),
        (NOON, "2026_03_04_115959999999", "2026_03_04_120000000000"),
        (NOON, "2026_03_04_120000000000", "2026_03_04_120000000001"),
        # The clock has stepped back by an hour, as at the end of summer time
        (NOON, "2026_03_04_125959999999", "2026_03_04_130000000000"),
        # The clock was wrong before
        (NOON, "2026_03_04_140000000001", "2026_03_04_120000000000"),
        (NOON, "9999_12_31_235959999999", "2026_03_04_120000000000"),
        (NOON, "nonsense", "2026_03_04_120000000000"),
        (NOON.replace(year=987), "", "0987_03_04_120000000000"),
    ],
)
def test_a_stamp_is_later_than_the_last(now: datetime, last: str, stamp: str) -> None:
    assert next_stamp(now, last) == stamp


@pytest.mark.fault(17)
def test_clocks_of_one_root_share_what_they_gave(tmp_path: Path) -> None:
    clocks = [Clock(str(tmp_path), "1930e") for _ in range(4)]
    given: list[list[str]] = [[] for _ in clocks]

    def take(clock: Clock, into: list[str]) -> None:
        into += [clock.identifier() for _ in range(200)]

    threads = [threading.Thread(target=take, args=pair) for pair in zip(clocks, given, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for clock in clocks:
        clock.close()
    assert len({identifier for each in given for identifier in each}) == 800
    # Each clock's own sort in the order in which it gave them
    assert given == [sorted(each) for each in given]


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    "step",
    [timedelta(), timedelta(microseconds=-1), timedelta(minutes=-10), timedelta(days=-1)],
    ids=str,
)
def test_identifiers_are_unique_when_the_clock_steps_back(tmp_path: Path, step: timedelta) -> None:
    steps = count()
    clock = Clock(str(tmp_path), "1930e", now=lambda: NOON + next(steps) * step)
    assert len({clock.identifier() for _ in range(6)}) == 6
    clock.close()


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    "content", [b"", b"\0\xff nonsense", b"9999_99_99_999999999999", b"x" * 1000]
)
def test_a_damaged_clock_file_does_no_harm(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clock").write_bytes(content)
    clock = Clock(str(tmp_path), "00000")
    first, second = clock.identifier(), clock.identifier()
    clock.close()
    assert first < second
    assert IDENTIFIER.fullmatch(first)


def test_a_clock_goes_on_in_a_folder_that_was_made_again(tmp_path: Path) -> None:
    clock = Clock(str(tmp_path), "00000", now=lambda: NOON)
    clock.identifier()
    (tmp_path / "clock").unlink()
    clock.renew(str(tmp_path))
    other = Clock(str(tmp_path), "00000", now=lambda: NOON)
    assert clock.identifier() < other.identifier()
    clock.close()
    other.close()


def test_a_link_or_a_fifo_in_the_place_of_the_clock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="not a regular file"):
        Clock(str(tmp_path), "00000")
    assert not (tmp_path / "other").exists()
    (tmp_path / "clock").unlink()
    os.mkfifo(tmp_path / "clock")
    with pytest.raises(OSError, match="not a regular file"):
        Clock(str(tmp_path), "00000")
