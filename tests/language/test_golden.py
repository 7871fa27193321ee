"""The language by example.

What each hermes file in `golden/good` compiles to, and what is said about each in `golden/bad`.
Those that begin with `rlmate_` are written as for rlmate, which Hermes follows. It makes the same
commands of `rlmate_example`, `rlmate_sweeps` and `rlmate_re_execution`.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from hermes.errors import HermesFileError
from hermes.language.compiling import compile_file
from hermes.language.plan import Plan
from hermes.model import PLACEHOLDER, Job, Options

from .helpers import (
    BAD,
    GOLDEN,
    GOOD,
    values,
)

IDENTIFIER = "2021_07_25_160008326976_1930e"


def compile_golden(path: Path, root: Path) -> Plan:
    # By its bare name, for that is what messages show
    return compile_file(path.name, working_directory=path.parent, root=root)


def shown(job: Job) -> str:
    """The command as a shell would take it, the identifier left as the placeholder."""
    return shlex.join(job.command(values(IDENTIFIER))).replace(IDENTIFIER, PLACEHOLDER)


def selected(job: Job, wanted: dict[str, Any]) -> dict[str, Any]:
    """Those facts of a job that the golden file tells."""
    facts = {"script": job.script, "line": job.line, "options": job.options.as_json()}
    return {name: facts[name] for name in wanted}


def stem(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", GOOD, ids=stem)
def test_good(path: Path, tmp_path: Path) -> None:
    plan = compile_golden(path, tmp_path)
    jobs = list(plan.jobs)
    assert "".join(f"{shown(job)}\n" for job in jobs) == path.with_suffix(".commands").read_text(
        encoding="utf-8"
    )
    assert len(jobs) == plan.count == len(plan.jobs)


@pytest.mark.parametrize(
    "path", [path for path in GOOD if path.with_suffix(".json").exists()], ids=stem
)
def test_good_facts(path: Path, tmp_path: Path) -> None:
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    plan = compile_golden(path, tmp_path)
    settings = plan.settings.as_json()
    expected_settings = facts.get("settings", {})
    assert {name: settings[name] for name in expected_settings} == expected_settings
    if "jobs" in facts:
        # Options that are not told are the defaults
        for wanted in facts["jobs"]:
            if "options" in wanted:
                wanted["options"] = Options().as_json() | wanted["options"]
        assert [
            selected(job, wanted) for job, wanted in zip(plan.jobs, facts["jobs"], strict=True)
        ] == facts["jobs"]


@pytest.mark.parametrize(
    "path", [path for path in GOOD if path.with_suffix(".warnings").exists()], ids=stem
)
def test_good_warnings(path: Path, tmp_path: Path) -> None:
    told = "".join(f"{warning}\n" for warning in compile_golden(path, tmp_path).warnings)
    assert told == path.with_suffix(".warnings").read_text(encoding="utf-8")


@pytest.mark.fault(20)
@pytest.mark.parametrize("path", BAD, ids=stem)
def test_bad(path: Path, tmp_path: Path) -> None:
    with pytest.raises(HermesFileError) as caught:
        compile_golden(path, tmp_path)
    assert f"{caught.value}\n" == path.with_suffix(".message").read_text(encoding="utf-8")


def test_every_file_has_its_counterpart() -> None:
    assert len(GOOD) + len(BAD) >= 60
    good = (".hermes", ".commands", ".json", ".warnings")
    known = {path.with_suffix(suffix) for path in GOOD for suffix in good}
    known |= {path.with_suffix(suffix) for path in BAD for suffix in (".hermes", ".message")}
    assert {path for folder in ("good", "bad") for path in (GOLDEN / folder).iterdir()} <= known
    assert all(path.with_suffix(".commands").exists() for path in GOOD)
    assert all(path.with_suffix(".message").exists() for path in BAD)


def test_bytes_are_as_written() -> None:
    # A checkout that changes line ends would make these files test nothing
    assert b"\r\n" in (GOLDEN / "good" / "crlf.hermes").read_bytes()
    assert (GOLDEN / "good" / "bom.hermes").read_bytes().startswith(b"\xef\xbb\xbf")
