"""What `sbatch` is called with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from hermes.executors.slurm.submitting import submission_words
from hermes.executors.slurm.tasks import Entry, Submission
from hermes.storage.metadata import GitState


def words(count: int, *options: str, threads: int = 4, after: Sequence[str] = ()) -> list[str]:
    submission = Submission(
        number=7,
        job_name="hermes-x-7",
        options=options,
        entries=tuple(Entry(index, f"key{index}", 1) for index in range(count)),
        git=GitState(),
        has_patch=False,
        grace=10.0,
    )
    return submission_words(
        submission,
        run_folder="/a b/run",
        task_folder="/a %b/run/slurm",
        working_directory="/a b",
        threads=threads,
        after=after,
    )


def test_an_array_runs_the_node_program_and_keeps_to_threads() -> None:
    found = words(9)
    assert "--array=0-8%4" in found
    assert "--job-name=hermes-x-7" in found
    assert not any(word.startswith("--dependency") for word in found)
    command = found[0].removeprefix("--wrap=exec ")
    assert shlex.split(command) == [
        sys.executable, "-P", "-X", "utf8", "-m", "hermes.executors.slurm.node", "/a b/run", "7",
    ]  # fmt: skip


def test_a_small_array_is_not_throttled_beyond_its_size() -> None:
    assert "--array=0-1%2" in words(2)


def test_what_hermes_relies_upon_overrules_the_user_s_options_and_those_its_defaults() -> None:
    found = words(1, "--signal=B:USR2@30", "--no-requeue", "--open-mode=truncate")
    assert found.index("--requeue") < found.index("--no-requeue")
    assert found.index("--signal=B:USR1@90") < found.index("--signal=B:USR2@30")
    assert found.index("--open-mode=truncate") < found.index("--open-mode=append")


def test_the_log_s_folder_is_no_pattern() -> None:
    assert "--output=/a %%b/run/slurm/7.%a.log" in words(1)


def test_an_array_waits_for_others_if_they_would_not_keep_to_threads_together() -> None:
    assert words(1, after=["12", "13"])[-1] == "--dependency=afterany:12:13"
