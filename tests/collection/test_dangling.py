"""Links that lead to what is collected lead to its new place afterwards."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hermes.storage.mending import leads_to

from .place import Place, both_ways

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("folder", "target", "expected"),
    [
        ("/w", "a", "a"),
        ("/w", "./a/", "a"),
        ("/w/sub", "../a/b", "a/b"),
        ("/w/sub", "a", "sub/a"),
        ("/w", "/w/a", "a"),
        ("/w", "/w/../w/a", "a"),
        ("/w", "/real/w/a", "a"),
        ("/w", "..", None),
        ("/w", ".", None),
        ("/w", "/wide/a", None),
        ("/scratch", "a", "results/a"),
        ("/elsewhere", "/scratch/a", "results/a"),
    ],
)
def test_where_links_lead(folder: str, target: str, expected: str | None) -> None:
    tops = [("/w", ""), ("/real/w", ""), ("/scratch", "results")]
    assert leads_to(folder, target, tops) == expected


LINKS = {
    "latest": "out_@",
    "latest_slash": "./out_@/",
    "best": "out_@/sub/best",
    "absolute": "{top}/out_@",
    "sub/from_below": "../out_@/x",
    "single": "file_@",
    "chain": "latest",
    "theirs": "unrelated",
    "dangling": "gone_@",
}
"""Links in the working directory, `@` standing for the identifier."""


@pytest.mark.fault(35)
@both_ways
@pytest.mark.parametrize("across", [False, True])
async def test_links_in_the_working_directory_lead_to_the_new_place(
    place: Place, across: bool, request: pytest.FixtureRequest
) -> None:
    if across:
        place.experiments_folder = request.getfixturevalue("elsewhere") / "experiments"
    (place.path / "sub").mkdir()
    place.write("unrelated", "theirs")
    async with place.job() as job:
        await job.do(
            "os.makedirs('out_' + identifier + '/sub')\n"
            "open('out_' + identifier + '/x', 'w').write('x')\n"
            "open('out_' + identifier + '/sub/best', 'w').write('best')\n"
            "open('file_' + identifier, 'w').write('file')\n"
        )
        for name, target in LINKS.items():
            target = target.replace("@", job.identifier).format(top=place.path)
            (place.path / name).symlink_to(target)
    assert job.problems == []
    read = {name: place.path / name for name in LINKS}
    assert sorted(os.listdir(read["latest"])) == ["sub", "x"]
    assert sorted(os.listdir(read["chain"])) == ["sub", "x"]
    assert sorted(os.listdir(read["latest_slash"])) == ["sub", "x"]
    assert sorted(os.listdir(read["absolute"])) == ["sub", "x"]
    assert read["best"].read_text() == "best"
    assert read["sub/from_below"].read_text() == "x"
    assert read["single"].read_text() == "file"
    assert os.readlink(read["theirs"]) == "unrelated"
    assert os.readlink(read["dangling"]) == f"gone_{job.identifier}"
    assert os.path.isabs(os.readlink(read["absolute"]))
    assert not os.path.isabs(os.readlink(read["latest"]))
    assert place.leftovers(job.identifier) == []
    assert not list(place.path.rglob("*.hermes-part"))


@pytest.mark.fault(35)
@both_ways
async def test_links_that_are_collected_stay_right(place: Place) -> None:
    place.write("data/input", "input")
    async with place.job() as job:
        await job.do(
            "out = 'out_' + identifier\n"
            "os.makedirs(out + '/deep')\n"
            "open(out + '/x', 'w').write('x')\n"
            "open('file_' + identifier, 'w').write('file')\n"
            "top = os.getcwd()\n"
            "os.symlink('x', out + '/beside')\n"
            "os.symlink('../file_' + identifier, out + '/sibling')\n"
            "os.symlink(top + '/' + out + '/x', out + '/absolute')\n"
            "os.symlink(top + '/' + out, 'whole_' + identifier)\n"
            "os.symlink('../data', out + '/data')\n"
            "os.symlink('../../data/input', out + '/deep/input')\n"
            "os.symlink(top + '/data', out + '/absolute_data')\n"
            "os.symlink('nowhere', out + '/dangling')\n"
        )
    assert job.problems == []
    out = job.named("out_@")
    assert (out / "beside").read_text() == "x"
    assert os.readlink(out / "beside") == "x"
    assert (out / "sibling").read_text() == "file"
    assert os.readlink(out / "sibling") == f"../file_{job.identifier}"
    assert (out / "absolute").read_text() == "x"
    assert os.readlink(out / "absolute") == f"{out}/x"
    assert (job.named("whole_@") / "x").read_text() == "x"
    assert (out / "data" / "input").read_text() == "input"
    assert (out / "deep" / "input").read_text() == "input"
    assert (out / "absolute_data" / "input").read_text() == "input"
    assert os.readlink(out / "dangling") == "nowhere"
    assert place.leftovers(job.identifier) == []


@pytest.mark.fault(35)
async def test_a_link_leads_somewhere_at_any_moment(place: Place) -> None:
    """Another job may look whether `latest` is there, and make it if it is not."""
    missing: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            # Twice: the system itself may have read the old target just before it went
            if not any(os.path.exists(place.path / "latest") for _ in range(2)):
                missing.append("latest")

    async with place.jobs(20) as jobs:
        (place.path / "latest").symlink_to("nowhere")
        watcher = threading.Thread(target=look)
        for job in jobs:
            job.left("out_@").mkdir()
            for number in range(20):
                job.left(f"out_@/{number}").touch()
            (place.path / "new").symlink_to(job.left("out_@").name)
            (place.path / "new").rename(place.path / "latest")
            if job is jobs[0]:
                watcher.start()
            place.finish(job)
        done.set()
        watcher.join()
    assert missing == []


@pytest.mark.fault(35)
async def test_links_behind_links_lead_to_the_new_place(place: Place, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (place.path / "results").symlink_to(scratch)
    async with place.job() as job:
        await job.do(
            "os.mkdir('results/out_' + identifier)\n"
            "open('results/out_' + identifier + '/x', 'w').write('x')\n"
            "os.symlink('out_' + identifier, 'results/latest')\n"
            "os.symlink(os.path.realpath('results') + '/out_' + identifier, 'absolute')\n"
        )
    for link in (scratch / "latest", place.path / "absolute"):
        assert (link / "x").read_text() == "x"


@pytest.mark.fault(35)
def test_a_link_that_a_job_has_made_anew_stays_as_it_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = place.new_job(), place.new_job()
    for job in (first, second):
        job.left("@").write_text(job.identifier)
    (place.path / "latest").symlink_to(first.identifier)
    whole = os.readlink

    def readlink(path: str) -> str:
        # Between the scan and the moment at which it is replaced
        if Path(path) == place.path / "latest" and job_is_done:
            job_is_done.clear()
            (place.path / "latest").unlink()
            (place.path / "latest").symlink_to(second.identifier)
        return whole(path)

    job_is_done: list[bool] = []
    link = os.symlink

    def symlink(target: str, path: str, target_is_directory: bool = False) -> None:
        # That of the job is made by `Path.symlink_to` too
        if str(path).endswith(".hermes-part"):
            job_is_done.append(True)
        link(target, path)

    monkeypatch.setattr(os, "readlink", readlink)
    monkeypatch.setattr("hermes.storage.mending.os.symlink", symlink)
    place.finish(first)
    monkeypatch.undo()
    assert os.readlink(place.path / "latest") == second.identifier
    place.finish(second)
    assert (place.path / "latest").read_text() == second.identifier
