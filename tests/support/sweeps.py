"""Sweeps of jobs that write down when they have come to their end."""

from __future__ import annotations

from hermes.executors.proc import processes_of

from . import Desk

JOB = """\
echo "started $2"
echo early > "early_$1.txt"
mkdir "$1.d" && echo inside > "$1.d/file"
while [ -e "hold$2" ]; do sleep 0.02; done
echo late > "late_$1.txt"
# One line a time that the job came to its end
echo "$2 $1" >> ledger
exit "$2"
"""
"""A job whose exit code is its argument. It waits as long as there is a file `hold` with its
argument.
"""

LEFT = {
    "early_@.txt": "early\n",
    "late_@.txt": "late\n",
    "@.d": "/",
    "@.d/file": "inside\n",
    "job.sh": JOB,
}
"""What is in the experiment directory in the end, `@` standing for the identifier."""


def sweep(
    desk: Desk, codes: str, *, threads: int = 2, supervise: bool = True, job: str = JOB
) -> None:
    """Writes a hermes file with a job for each of the exit codes."""
    desk.write("job.sh", job)
    settings = f"threads: {threads}\nsupervise: {str(supervise).lower()}"
    desk.write(
        "s.hermes",
        f"PRE\n{settings}\nSTD-H\n-ca job.sh\nEXEC\nPROD([[sh, job.sh, {{n}}]], n=[{codes}])\n",
    )


def ledger(desk: Desk) -> list[tuple[str, str]]:
    """Argument and identifier of the jobs that came to their end, in this order."""
    path = desk.path / "ledger"
    return (
        [(line.split()[0], line.split()[1]) for line in path.read_text().splitlines()]
        if path.exists()
        else []
    )


def alive(run_ids: set[str]) -> list[int]:
    return [
        pid
        for run_id, pids in processes_of("HERMES_RUN_ID").items()
        if run_id in run_ids
        for pid in pids
    ]


def check_all_done(desk: Desk, jobs: int) -> None:
    """Every job came to its end once, and what it left is where it belongs, whole."""
    experiments = desk.experiments()
    ended = [each for each in experiments if each.status in ("finished", "failed")]
    assert len(ended) == jobs, [(each.identifier, each.status) for each in experiments]
    assert {each.status for each in experiments} <= {"finished", "failed", "lost"}
    assert sorted(identifier for _, identifier in ledger(desk)) == [
        each.identifier for each in ended
    ]
    for each in ended:
        assert desk.tree(each.directory, own=True) == {
            name.replace("@", each.identifier): content for name, content in LEFT.items()
        }, each.metadata.problems
        assert each.stdout == f"started {each.argv[-1]}\n"
        assert each.exit_code == int(each.argv[-1])
        assert desk.leftovers(each.identifier) == []
        assert not each.problems
    assert len({each.identifier for each in experiments}) == len(experiments)
    assert alive({each.metadata.run_id for each in experiments}) == []
