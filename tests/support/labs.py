"""Runs and experiments on the disk whose jobs are never started."""

from __future__ import annotations

from collections.abc import Mapping

from hermes.language.compiling import compile_file
from hermes.language.keys import Keys
from hermes.language.plan import Plan
from hermes.model import Job, Status
from hermes.storage.run_folder import RunFolder
from hermes.storage.writer import Experiment
from hermes.timing import Timing

from .project import Project


class Lab:
    """A run of a plan of `sh job.sh 0`, `sh job.sh 1` and so on, whose experiments have whatever
    status a test says.
    """

    def __init__(
        self,
        project: Project,
        count: int,
        *,
        name: str = "test",
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.project = project
        project.write("job.sh")
        path = project.hermes_file(
            f"PROD([[sh, job.sh, {{n}}]], n=RANGE[0, {count}])", settings=settings
        )
        self.plan: Plan = compile_file(path, working_directory=project.path, root=project.path)
        self.jobs: list[Job] = list(self.plan.jobs)
        keys = Keys(self.plan.place)
        self.keys = [keys.key(job) for job in self.jobs]
        self.folder = RunFolder.create(self.plan, name, Timing())

    def experiment(self, index: int, status: Status | None = None) -> Experiment:
        """One of the job `index`: begun, and ended with `status` unless that is None."""
        attempt = 1 + sum(
            each.metadata.key == self.keys[index] for each in self.project.experiments()
        )
        experiment = self.folder.experiment(
            self.jobs[index], self.keys[index], attempt=attempt, index=index
        )
        experiment.close_logs()
        if status is not None:
            experiment.metadata.status = status
            assert self.folder.journal is not None
            self.folder.journal.end(experiment.identifier, status)
        experiment.write(sync=False)
        return experiment

    def close(self) -> None:
        """Another process can take up the run."""
        self.folder.close(done=False)
