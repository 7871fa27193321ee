"""What lies behind directory links of the working directory is collected when a job ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hermes.collection import behind, tree

from .place import Place, both_ways

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["same", "other"])
def scratch(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder beside the working directory, or on another file system."""
    if request.param == "other":
        elsewhere: Path = request.getfixturevalue("elsewhere")
        return elsewhere
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.mark.fault(35)
@both_ways
async def test_what_lies_behind_a_directory_link_comes_when_the_job_ends(
    place: Place, scratch: Path
) -> None:
    (scratch / "sub").mkdir()
    (scratch / "theirs").write_text("theirs")
    (place.path / "results").symlink_to(scratch)
    (place.path / "deep").mkdir()
    (place.path / "deep" / "down").symlink_to(scratch / "sub")
    async with place.job() as job:
        await job.do(
            "open('results/a_' + identifier, 'w').write('a')\n"
            "os.makedirs('results/d_' + identifier + '/in')\n"
            "open('results/d_' + identifier + '/in/x', 'w').write('x')\n"
            "open('results/sub/b_' + identifier, 'w').write('b')\n"
            "os.symlink('a_' + identifier, 'results/l_' + identifier)\n"
        )
        assert job.stored == {}
    own = job.identifier
    assert job.problems == []
    stored = {path: content for path, content in job.stored.items() if content != "/"}
    first = f"deep/down/b_{own}" if f"deep/down/b_{own}" in stored else f"results/sub/b_{own}"
    assert stored == {
        f"results/a_{own}": "a",
        f"results/d_{own}/in/x": "x",
        first: "b",
        f"results/l_{own}": f"-> a_{own}",
    }
    assert place.tree(scratch) == {"sub": "/", "theirs": "theirs"}


@pytest.mark.fault(35)
def test_each_folder_is_looked_at_once_and_never_around_or_in_the_tree(place: Place) -> None:
    outside = place.path.parent / "outside"
    (outside / "inner").mkdir(parents=True)
    place.experiments_folder.mkdir()
    (place.path / "tree" / "node_modules").mkdir(parents=True)
    links: dict[str, str | Path] = {
        "a": outside, "b": outside, "c": outside / "inner", "up": "..", "here": ".", "root": "/",
        "deep": "tree", "hidden": "tree/node_modules", "made": "experiments", "gone": "nowhere",
        "self": "self", "file": "x.txt",
    }  # fmt: skip
    for name, target in links.items():
        (place.path / name).symlink_to(target)
    (outside / "back").symlink_to(place.path)
    (outside / "circle").symlink_to(outside)
    place.write("x.txt")
    (place.path.parent / "next").mkdir()
    job = place.new_job()
    own = job.identifier
    (outside / own).write_text("1")
    (outside / "inner" / own).write_text("2")
    for left in (place.path.parent / own, place.path / "tree" / "node_modules" / own):
        left.write_text("left")
    other = place.experiments_folder / f"x_{own}"
    other.write_text("made")
    place.finish(job)
    assert job.problems == []
    assert sorted(job.stored.values()) == ["/", "/", "1", "2"]
    assert (place.path.parent / own).exists()
    assert other.exists()


@pytest.mark.fault(35)
def test_what_has_not_changed_behind_links_is_not_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.options["clock_grain"] = 0.0
    outside = place.path.parent / "outside"
    (outside / "one").mkdir(parents=True)
    (outside / "two").mkdir()
    (place.path / "link").symlink_to(outside)
    place.finish(place.new_job())
    read: list[str] = []
    whole = tree.entries_and_status

    def spy(path: str, flags: int = 0) -> object:
        read.append(os.path.basename(path))
        return whole(path, flags)

    monkeypatch.setattr(behind, "entries_and_status", spy)
    job = place.new_job()
    (outside / "two" / job.identifier).write_text("x")
    place.finish(job)
    assert read == ["two"]
    assert job.files == {f"link/two/{job.identifier}": 1}
    # A link that leads elsewhere now is another one
    (place.path.parent / "other").mkdir()
    job = place.new_job()
    (place.path.parent / "other" / job.identifier).write_text("yy")
    (place.path / "link").unlink()
    (place.path / "link").symlink_to(place.path.parent / "other")
    place.finish(job)
    assert job.files == {f"link/{job.identifier}": 2}


@pytest.mark.fault(35)
def test_links_into_a_whole_archive_are_cut_and_told_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "MAX_FOLDERS", 5)
    for number in range(10):
        (place.path.parent / "archive" / f"{number}").mkdir(parents=True)
    (place.path / "link").symlink_to(place.path.parent / "archive")
    for _ in range(2):
        place.finish(place.new_job())
        place.collector.tell()
    assert len(place.warnings) == 1


@pytest.mark.fault(35)
def test_experiment_directories_that_a_link_brings_into_the_tree_stay(place: Place) -> None:
    """`experiments/script` may be a link to a folder that a link of the working directory shows,
    too.
    """
    store = place.path.parent / "store"
    store.mkdir()
    place.experiments_folder.symlink_to(store)
    for name in ("shown", "other"):
        (place.path / name).symlink_to(place.path.parent)
    first, second = place.new_job(), place.new_job()
    first.left("a_@").write_text("a")
    place.finish(first)
    place.finish(second)
    assert first.stored == {f"a_{first.identifier}": "a"}
    assert second.stored == {}
    assert first.problems == second.problems == []
