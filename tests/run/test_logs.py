"""Following the logs of jobs."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hermes import (
    JobStarted,
    LogChunk,
    RunEnded,
)
from hermes.run.logs import CHUNK, Follower, Stream

from ..support import LIMIT, Project
from ..support.events import written

pytestmark = pytest.mark.anyio


async def test_logs_that_are_not_followed(project: Project) -> None:
    project.write("job.sh", "echo out")
    for follow, expected in (("all", {0, 1}), ("shown", {1}), ("none", set[int]())):
        async with project.open(
            "[[sh, job.sh]]", "[[sh, job.sh],[-l false]]", name=follow, follow_logs=follow
        ) as run:
            events = [event async for event in run]
        indices = {
            event.identifier: event.index for event in events if isinstance(event, JobStarted)
        }
        assert {
            indices[event.identifier] for event in events if isinstance(event, LogChunk)
        } == expected
        assert [event.log for event in events if isinstance(event, JobStarted)] == [True, False]
        assert all(data == b"out\n" for data in written(run, "stdout").values())


async def test_a_log_that_the_job_takes_away(project: Project) -> None:
    project.write(
        "job.sh",
        'echo out; rm "$HERMES_EXPERIMENT_DIR/stdout.log" "$HERMES_EXPERIMENT_DIR/stderr.log"; '
        "echo more",
    )
    async with project.open(*["[[sh, job.sh]]"] * 3) as run:
        events = [event async for event in run]
    assert run.result.ok
    assert isinstance(events[-1], RunEnded)


async def test_a_log_that_cannot_be_read(project: Project) -> None:
    project.write("job.sh", 'rm "$HERMES_EXPERIMENT_DIR/stdout.log"; echo out')
    async with project.open("[[sh, job.sh]]") as run:
        events = [event async for event in run]
    assert run.result.ok
    assert not any(isinstance(event, LogChunk) for event in events)


class Taker:
    """Takes what is told of logs; after `most` pieces of a job no more of it."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.pieces: list[tuple[str, str, bytes]] = []

    async def take(self, identifier: str, stream: Stream, data: bytes) -> bool:
        self.pieces.append((identifier, stream, data))
        return sum(each[0] == identifier for each in self.pieces) < self.most

    def text(self, identifier: str) -> bytes:
        return b"".join(data for own, _, data in self.pieces if own == identifier)


async def test_follower_passes_on_what_is_written_in_pieces_of_chunks(tmp_path: Path) -> None:
    taker = Taker()
    follower = Follower(taker.take)
    data = bytes(range(256)) * (CHUNK // 100)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follower.run)
        (tmp_path / "stdout.log").write_bytes(data)
        follower.add("a", str(tmp_path))
        with anyio.fail_after(LIMIT):
            await follower.finish("a")
        follower.stop()
    assert taker.text("a") == data
    assert max(len(each[2]) for each in taker.pieces) <= CHUNK


async def test_follower_tells_the_rest_at_the_end_of_a_job_and_nothing_after_it(
    tmp_path: Path,
) -> None:
    taker = Taker()
    follower = Follower(taker.take)
    # Nobody runs it: what a job has printed is told at its end all the same
    follower.add("a", str(tmp_path))
    (tmp_path / "stderr.log").write_bytes(b"error")
    await follower.finish("a")
    (tmp_path / "stderr.log").write_bytes(b"error, and more")
    await follower.finish("a")
    assert taker.pieces == [("a", "stderr", b"error")]


async def test_follower_reads_no_more_of_a_job_whose_pieces_nobody_takes(tmp_path: Path) -> None:
    taker = Taker(most=1)
    follower = Follower(taker.take)
    (tmp_path / "stdout.log").write_bytes(b"x" * (3 * CHUNK))
    follower.add("a", str(tmp_path))
    with anyio.fail_after(LIMIT):
        await follower.finish("a")
    assert taker.text("a") == b"x" * CHUNK
