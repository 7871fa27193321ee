"""Notifications: what `awatch` tells, and what becomes of a collector that is told nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from hermes.collection.collector import Collector
from hermes.collection.watching import WatchEndedError, Watcher

from ..support import LIMIT
from .place import Place

pytestmark = pytest.mark.anyio


@pytest.mark.fault(10)
async def test_a_name_that_is_not_utf_8_hides_no_other(place: Place) -> None:
    async with place.job() as job:
        for number in range(5):
            await job.do(
                f"open(b'\\xff{number}_' + identifier.encode(), 'w'); "
                f"open('a{number}_' + identifier, 'w')"
            )
            await place.until(job.named(f"a{number}_@").exists)
            await place.until(job.named(f"\udcff{number}_@").exists)


@pytest.mark.fault(15)
async def test_a_watch_limit_costs_time_and_no_file(place: Place) -> None:
    place.options["max_watches"] = 3
    for number in range(10):
        (place.path / f"sub{number}").mkdir()
    async with place.job() as job:
        await job.do("for i in range(10): open(f'sub{i}/a_' + identifier, 'w')")
        await place.until(lambda: len(list(job.directory.glob("sub*/a_*"))) == 10)
        await job.do("for i in range(5): os.unlink(f'sub{i}/a_' + identifier)")
    assert len(list(job.directory.glob("sub*/a_*"))) == 5
    assert place.warnings == []


@pytest.fixture
def limiter() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(1)


async def told(watcher: Watcher, wanted: set[str]) -> None:
    """Returns when the watcher has told of all these paths."""
    with anyio.fail_after(LIMIT):
        while wanted:
            wanted = wanted - await watcher.changed()


async def test_what_is_told_of_a_folder(tmp_path: Path, limiter: anyio.CapacityLimiter) -> None:
    (tmp_path / "other" / "below").mkdir(parents=True)
    (tmp_path / "old").touch()
    async with anyio.create_task_group() as tasks:
        with Watcher(tasks) as watcher:
            assert await watcher.watch([str(tmp_path), str(tmp_path / "other")], limiter)
            (tmp_path / "new").write_text("some")
            (tmp_path / "old").rename(tmp_path / "other" / "moved")
            (tmp_path / "folder").mkdir()
            (tmp_path / "new").unlink()
            (tmp_path / "other" / "below" / "x").touch()
            paths = {f"{tmp_path}/{name}" for name in ("new", "old", "other/moved", "folder")}
            await told(watcher, paths)
            assert await watcher.changed(0.0) == set()


async def test_no_gap_between_two_sets_of_folders(
    tmp_path: Path, limiter: anyio.CapacityLimiter
) -> None:
    made: set[str] = set()
    is_over = False

    async def make() -> None:
        while not is_over:
            made.add(f"{tmp_path}/{len(made)}")
            Path(f"{tmp_path}/{len(made) - 1}").touch()
            await anyio.sleep(0.001)

    found: set[str] = set()
    async with anyio.create_task_group() as tasks:
        with Watcher(tasks) as watcher:
            assert await watcher.watch([str(tmp_path)], limiter)
            tasks.start_soon(make)
            for _ in range(5):
                # What the last ones held and what was told of is to be scanned for after this
                assert await watcher.watch([str(tmp_path)], limiter)
                found.update(f"{tmp_path}/{name}" for name in os.listdir(tmp_path))
                found |= await watcher.changed()
            is_over = True
            await told(watcher, made - found)


async def test_folders_that_are_gone_leave_the_present_ones_watched(
    tmp_path: Path, limiter: anyio.CapacityLimiter
) -> None:
    async with anyio.create_task_group() as tasks:
        with Watcher(tasks) as watcher:
            assert await watcher.watch([str(tmp_path)], limiter)
            with pytest.raises(FileNotFoundError):
                await watcher.watch([str(tmp_path), str(tmp_path / "gone")], limiter)
            (tmp_path / "new").touch()
            await told(watcher, {f"{tmp_path}/new"})


async def test_a_name_that_is_not_utf_8_ends_it(
    tmp_path: Path, limiter: anyio.CapacityLimiter
) -> None:
    async with anyio.create_task_group() as tasks:
        with Watcher(tasks) as watcher:
            for number in range(2):
                assert await watcher.watch([str(tmp_path)], limiter)
                (tmp_path / f"\udcff{number}").touch()
                with pytest.raises(WatchEndedError), anyio.fail_after(LIMIT):
                    while True:
                        await watcher.changed()
            assert not await watcher.watch([str(tmp_path), str(tmp_path / "\udcff")], limiter)


async def test_folders_that_are_not_utf_8_are_scanned(place: Place) -> None:
    # They cannot be watched. What is stored there counts with its folder
    os.mkdir(os.fsencode(place.path) + b"/\xff")
    async with place.job() as job:
        await job.do("for i in range(50): open(f'a{i}_' + identifier, 'w')")
        await job.do("open(os.path.join(b'\\xff', b'b_' + os.fsencode(identifier)), 'w')")
        await place.until(lambda: len(job.stored) == 52)
        await job.do("os.unlink('a7_' + identifier)")
        await place.until(lambda: len(job.stored) == 51)
    assert job.problems == []
    assert len(job.stored) == 51


Changes = AsyncGenerator[set[tuple[object, str]], None]


async def fails_at_once(*folders: str, **options: object) -> Changes:
    raise OSError(28, "no space left on device (os error 28)")
    yield set()


async def fails_for_lack_of_instances(*folders: str, **options: object) -> Changes:
    raise RuntimeError("too many open files (os error 24)")
    yield set()


async def fails_while_watching(*folders: str, **options: object) -> Changes:
    await anyio.sleep(0.01)
    raise RuntimeError("overflow")
    yield set()


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    "awatch", [fails_at_once, fails_for_lack_of_instances, fails_while_watching]
)
async def test_a_watcher_that_fails(place: Place, awatch: Callable[..., Changes]) -> None:
    place.options["awatch"] = awatch
    async with place.job() as job:
        await job.do("for i in range(50): open(f'a{i}_' + identifier, 'w')")
        await place.until(lambda: len(job.stored) == 50)
        await job.do("for i in range(50): open(f'b{i}_' + identifier, 'w')")
    assert job.problems == []
    assert len(job.stored) == 100
    if awatch is fails_while_watching:
        assert place.warnings == []
    else:
        (warning,) = place.warnings
        assert "collected later" in warning


@pytest.mark.fault(15)
async def test_a_collector_that_breaks_down_harms_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(self: Collector, changed: Iterable[str]) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Collector, "_handle", break_down)
    async with place.job() as job:
        files = 0
        while not place.warnings:
            files += 1
            await job.do(f"open('a{files}_' + identifier, 'w')")
    assert job.problems == []
    assert len(job.stored) == files
    (warning,) = place.warnings
    assert "a bug" in warning


# The end of watching


async def took_to_stop(place: Place, after: float) -> float:
    """Seconds from `stop` until `watch` has returned."""
    stop = anyio.Event()
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.collector.watch, stop)
            await anyio.sleep(after)
            stop.set()
            began = time.monotonic()
    return time.monotonic() - began


@pytest.mark.parametrize("after", [0.0, 0.03, 0.1, 0.6])
async def test_watching_ends_soon_after_stop(place: Place, after: float) -> None:
    # `awatch` alone takes seconds. Other programs may be busy, so some tries
    assert min([await took_to_stop(place, after) for _ in range(3)]) < 0.5


async def test_watching_ends_soon_when_it_is_cancelled(place: Place) -> None:
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.collector.watch, anyio.Event())
            await anyio.sleep(0.3)
            began = time.monotonic()
            tasks.cancel_scope.cancel()
    assert time.monotonic() - began < 1.0


async def test_a_host_whose_threads_are_all_busy_does_not_delay_the_end(place: Place) -> None:
    limiter = to_thread.current_default_thread_limiter()
    held = [object() for _ in range(int(limiter.available_tokens))]
    for each in held:
        limiter.acquire_on_behalf_of_nowait(each)
    try:
        async with place.job() as job:
            job.left("a_@").touch()
            await place.until(job.named("a_@").exists)
            # Not in one of those threads
            place.finish(job)
            began = time.monotonic()
        assert time.monotonic() - began < 1.0
    finally:
        for each in held:
            limiter.release_on_behalf_of(each)
    assert place.warnings == []


def test_a_short_run_sets_no_watches_and_loads_nothing() -> None:
    code = """
import anyio, sys
from hermes.collection.collector import Collector

async def main():
    collector = Collector(
        working_directory=".",
        experiments="experiments",
        on_files=print, on_warning=print)
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collector.watch, stop)
        await anyio.sleep(0.001)
        stop.set()
    assert "watchfiles" not in sys.modules

anyio.run(main)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
