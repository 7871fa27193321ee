"""What can be read of an experiment afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

import hermes
from hermes import (
    HermesError,
    Status,
)

from ..support import Project

pytestmark = pytest.mark.anyio


async def test_load_experiment(project: Project) -> None:
    project.write("job.sh", 'printf "out \\377"; echo err >&2; : > "a_$1"; exit 7')
    project.write("b.txt", "four")
    (outcome,) = (
        await project.run("[[sh, job.sh, -x 1],[-ca b.txt, -c 'a comment']]", arguments="--std")
    ).outcomes
    experiment = hermes.load_experiment(str(outcome.directory))
    assert experiment.directory == Path(str(outcome.directory))
    assert (experiment.identifier, experiment.name, experiment.script) == (
        outcome.identifier,
        "test",
        "job.sh",
    )
    assert (experiment.status, experiment.exit_code, experiment.signal) == (Status.FAILED, 7, None)
    assert (
        experiment.argv == ("sh", "job.sh", outcome.identifier, "--std", "-x", "1") == outcome.argv
    )
    assert experiment.arguments == ("--std", "-x", "1")
    assert experiment.comments == ("a comment",)
    assert experiment.problems == ()
    assert experiment.stdout == "out \ufffd"
    assert experiment.stderr == "err\n"
    assert experiment.start is not None
    assert experiment.end is not None
    assert experiment.start.tzinfo is not None
    assert experiment.start <= experiment.end
    assert experiment.duration == outcome.duration
    assert [(file.path, file.bytes, file.origin) for file in experiment.files] == [
        ("b.txt", 4, "copied-after"), (f"a_{outcome.identifier}", 0, "collected")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no experiment directory"),
        (b"", "not JSON"),
        (b'{"format": 1', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not written by Hermes"),
        (b'{"format": "1"}', "not written by Hermes"),
        (b'{"format": 99}', "newer Hermes"),
    ],
)
def test_what_is_no_experiment(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "hermes.json").write_bytes(content)
    with pytest.raises(HermesError, match=message):
        hermes.load_experiment(tmp_path)
