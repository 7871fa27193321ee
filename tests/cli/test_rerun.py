"""`hermes rerun`: the job of an experiment again, with changes, with the code of now or of then."""

from __future__ import annotations

import pytest

import hermes

from ..support import LIMIT, Desk

JOB = """\
import os, sys
print(sys.argv[2:], os.environ.get("HERMES_PARAM_LR"), os.path.exists("x.hermes"))
sys.exit(os.path.exists("failing"))
"""


@pytest.fixture
def first(desk: Desk) -> hermes.Experiment:
    """The experiment of a sweep whose jobs have arguments of all kinds."""
    desk.write("job.py", JOB)
    desk.hermes_file(
        "PROD([[python, job.py, --lr {lr} --env pong],[-c 'a comment']], lr=[0.5])",
        settings={"threads": 3, "timeout": "1h"},
        arguments="--gamma 0.9",
    )
    desk.hermes("exec", "-f", "x.hermes", "-n", "my name", "--env", "A=1")
    return desk.experiment()


def latest(desk: Desk) -> hermes.Experiment:
    return desk.experiments()[-1]


def test_the_same_job(desk: Desk, first: hermes.Experiment) -> None:
    desk.write(".hermes_settings", "threads: 7\n")
    done = desk.hermes("rerun", first.identifier[12:])
    assert "my name: 1 job in" in done.stderr
    again = latest(desk)
    assert again.identifier != first.identifier
    assert again.metadata.rerun_of == first.identifier
    assert first.metadata.rerun_of is None
    for name in ("argv", "key", "parameters", "template", "options", "comments", "settings",
                 "name", "working_directory", "root"):  # fmt: skip
        one, other = (getattr(each.metadata, name) for each in (first, again))
        assert str(one).replace(first.identifier, again.identifier) == str(other), name
    # So it counts as the job of the hermes file
    desk.hermes("rm", first.identifier, "--yes")
    done = desk.hermes("exec", "-f", "x.hermes", "-n", "my name", "--env", "A=1", "--resume")
    assert "1 finished before" in done.stderr


def test_with_changes_from_anywhere(desk: Desk, first: hermes.Experiment) -> None:
    elsewhere = desk.path / "elsewhere"
    elsewhere.mkdir()
    words = ("lr=0.1", "gamma=1", "env=a maze", "-n", "other", "-c", "more", "--timeout", "2h")
    done = desk.hermes("rerun", first.identifier, *words, "--root", "..", cwd=elsewhere)
    assert "lr: 0.5 becomes 0.1\n--gamma 0.9 becomes --gamma 1\n" in done.stderr
    again = latest(desk)
    assert again.directory.parent == desk.path / "experiments" / "job" / "other"
    assert again.stdout == "['--gamma', '1', '--lr', '0.1', '--env', 'a maze'] 0.1 True\n"
    assert again.comments == ("a comment", "more")
    assert again.metadata.settings["timeout"] == 7200
    assert "rerun of " + first.identifier in desk.hermes("show", again.identifier).stdout
    # Of a rerun too
    desk.write("failing")
    desk.hermes("rerun", again.identifier, "lr=7", "--quiet", code=1)
    assert latest(desk).metadata.rerun_of == again.identifier
    assert latest(desk).metadata.parameters == {"lr": "7"}


def test_mistakes(desk: Desk, first: hermes.Experiment) -> None:
    done = desk.hermes("rerun", first.identifier, "gama=1", code=2)
    assert done.stderr == (
        "error: the job has no parameter and no argument `gama`\nhint: did you mean `gamma`?\n"
    )
    assert "expected `key=value`" in desk.hermes("rerun", first.identifier, "x", code=2).stderr
    assert "no experiment has" in desk.hermes("rerun", "nothing", code=2).stderr
    (desk.path / "job.py").unlink()
    assert "job.py" in desk.hermes("rerun", first.identifier, code=2).stderr
    (first.directory / "re_execution.hermes").unlink()
    assert "cannot be run again" in desk.hermes("rerun", first.identifier, code=2).stderr
    assert len(desk.experiments()) == 1


@pytest.mark.anyio
async def test_in_python(desk: Desk, first: hermes.Experiment) -> None:
    import anyio

    rerun = hermes.plan_rerun(first, {"lr": 0.25}, name="py", threads=1)
    assert rerun.told == ("lr: 0.5 becomes 0.25",)
    with anyio.fail_after(LIMIT):
        async with hermes.open_rerun(rerun) as run:
            pass
    assert run.result.ok
    assert latest(desk).metadata.parameters == {"lr": "0.25"}
