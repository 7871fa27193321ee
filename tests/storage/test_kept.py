"""What is kept of a run's events: whoever reads it, whenever, knows where the run stands."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes import Event, JobEnded, JobStarted, Outcome, RunEnded, RunStanding, Status
from hermes.run.standing import Standing
from hermes.storage import kept
from hermes.storage.kept import KINDS, KeptReader, KeptWriter, decoded, encoded
from hermes.storage.layout import FORMATS, PROGRESS

from ..support.news import ended, standing, started

FORMAT_1 = Path(__file__).parent / "data/format1/experiments/.hermes/20260304-115959-0a1b2c3d"


class Kept:
    """A file that is written as a runner does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer = KeptWriter(str(folder))
        self.so_far = Standing()
        self.so_far.take(standing())

    def write(self, *events: Event) -> None:
        for event in events:
            self.so_far.take(event)
        self.writer.write(events, self._stands)

    def _stands(self, part: int) -> RunStanding:
        so_far = self.so_far
        running = tuple(each for each, _ in so_far.running.values())
        return standing(part, done=so_far.done, failed=so_far.failed, running=running)

    def seen(self) -> tuple[int, int, list[str]]:
        return told(self.so_far)


def told(where: Standing) -> tuple[int, int, list[str]]:
    return where.done, where.failed, list(where.running)


def read(reader: KeptReader, where: Standing) -> list[Event]:
    events = reader.read()
    for event in events:
        where.take(event)
    return events


@given(
    st.lists(st.lists(st.integers(0, 1), max_size=4), max_size=30),
    st.sets(st.integers(0, 29)),
    st.integers(400, 3000),
)
def test_who_follows_and_who_comes_later_know_the_same(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], looks: set[int], most: int
) -> None:
    run = Kept(tmp_path_factory.mktemp("run"))
    run.write(started(0))
    reader, where = KeptReader(str(run.folder)), Standing()
    number, before = 1, kept.MOST
    kept.MOST = most
    try:
        for place, batch in enumerate(batches):
            events: list[Event] = []
            for kind in batch:
                events.append(started(number) if kind else ended(number - 1))
                number += kind
            if events:
                run.write(*events)
            if place in looks:
                read(reader, where)
                assert told(where) == run.seen()
        read(reader, where)
        later = Standing()
        read(KeptReader(str(run.folder)), later)
        assert told(where) == told(later) == run.seen()
    finally:
        kept.MOST = before
        reader.close()


def test_a_file_that_has_grown_is_begun_anew_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST", 2000)
    run = Kept(tmp_path)
    run.write(started(0))
    reader = KeptReader(str(tmp_path))
    assert [type(each) for each in reader.read()] == [RunStanding]
    for number in range(1, 20):
        run.write(ended(number - 1), started(number))
        assert (tmp_path / PROGRESS).stat().st_size < 8000
        # Nothing twice, and nothing is left out
        assert [type(each) for each in reader.read()] == [JobEnded, JobStarted]
    for number in range(20, 60):
        run.write(ended(number - 1), started(number))
    first, *_ = reader.read()
    assert isinstance(first, JobEnded), "what was written before is read from the file that is gone"
    reader.close()


def test_who_missed_a_part_gets_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 1000)
    run = Kept(tmp_path)
    run.write(started(0))
    reader, where = KeptReader(str(tmp_path)), Standing()
    for number in range(1, 40):
        run.write(ended(number - 1), started(number))
    assert any(isinstance(each, RunStanding) for each in read(reader, where)[1:])
    assert told(where) == run.seen()
    reader.close()


def test_the_end_is_read_though_the_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(kept, "MOST", 10)
    monkeypatch.setattr(kept, "LARGE_PART", 1)
    run = Kept(folder)
    run.write(started(0))
    reader = KeptReader(str(folder))
    reader.read()
    run.write(ended(0), RunEnded(run_id="r", started=1, succeeded=1, cancelled=False, ok=True))
    shutil.rmtree(folder)
    assert [type(each) for each in reader.read()] == [JobEnded, RunEnded]
    assert reader.is_gone
    assert reader.read() == []
    reader.close()
    with pytest.raises(FileNotFoundError):
        KeptReader(str(folder))


def test_lines_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    run = Kept(tmp_path)
    run.write(started(0))
    with open(tmp_path / PROGRESS, "ab") as file:
        file.write(b'{"event":"job_started"}\nnonsense\n\xff\n{"event":"of tomorrow"}\n[1]\n')
        file.write(encoded(ended(0)).replace(b'"format":1', b'"format":99'))
        file.write(b'{"event":"job_en')
    reader = KeptReader(str(tmp_path))
    assert [type(each) for each in reader.read()] == [RunStanding]
    reader.close()


def test_what_could_not_be_written_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Kept(tmp_path)
    run.write(started(0))
    reader, where = KeptReader(str(tmp_path)), Standing()
    read(reader, where)

    def full(fd: int, data: bytes) -> None:
        os.write(fd, data[:10])
        raise OSError(28, "No space left on device")

    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(kept, "write_all", full)
        patched.setattr(kept, "write_atomic", no_room)
        run.write(ended(0), started(1))
    run.write(started(2))
    read(reader, where)
    assert told(where) == run.seen()
    (tmp_path / PROGRESS).unlink()
    run.write(ended(1))
    read(late := KeptReader(str(tmp_path)), later := Standing())
    assert told(later) == run.seen()
    late.close()
    reader.close()


def test_every_event_can_be_read_back() -> None:
    odd = os.fsdecode(b"a\xff")
    for event in (
        started(1, arguments=(odd,)),
        standing(running=(started(1),), latest=((started(2), ended(2).outcome),)),
        JobEnded(
            index=1,
            outcome=Outcome(
                identifier="i", script=odd, directory=None, status=Status.LOST, signal=9
            ),
            tried_again_in=2.0,
        ),
        RunEnded(
            run_id="r", started=1, succeeded=0, cancelled=True, counts={"failed": 1}, go_on="x"
        ),
    ):
        assert decoded(encoded(event).rstrip(b"\n")) == event
    assert FORMATS[PROGRESS] == 1


def test_an_example_of_the_first_format_can_be_read() -> None:
    reader = KeptReader(str(FORMAT_1))
    events = reader.read()
    reader.close()
    assert [type(each) for each in events] == list(KINDS.values())
    data = json.loads((FORMAT_1 / PROGRESS).read_text().splitlines()[0])
    assert (data["event"], data["format"]) == ("run_standing", 1)
