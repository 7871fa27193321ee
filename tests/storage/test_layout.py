"""The table of names and formats tells all that is on the disk."""

from __future__ import annotations

import os

from hermes.storage import layout
from hermes.storage.metadata import FORMAT, Metadata, Packages
from hermes.storage.run_record import RunFile

from .conftest import Lab, a_job


def test_formats_of_records_are_those_of_the_table() -> None:
    assert FORMAT == layout.FORMATS[layout.METADATA] == 1
    assert Metadata.__struct_fields__[0] == RunFile.__struct_fields__[0] == "format"
    assert RunFile(run_id="", name="", recipe={}).format == layout.FORMATS[layout.RUN_RECORD] == 1
    assert Packages.__struct_fields__[0] == "format"
    assert layout.FORMATS[layout.ENVIRONMENT] == 1


def test_every_name_on_the_disk_is_in_the_table(repository: Lab) -> None:
    repository.write("job.sh", "echo dirty")
    run = repository.run()
    experiment = run.experiment(a_job(), "key")
    experiment.complete()
    experiment.write(sync=False)
    run.code_as_begun()
    experiments = str(repository.experiments)
    assert set(os.listdir(experiment.directory)) == layout.OWN
    assert os.path.dirname(experiment.directory) == layout.named_folder(
        experiments, "job.sh", "test"
    )
    assert run.folder == layout.run_folder(experiments, run.run_id)
    assert set(os.listdir(run.folder)) == {
        layout.RUN_RECORD,
        layout.LOCK,
        layout.JOURNAL,
        layout.PATCH,
    }
    assert set(os.listdir(layout.runs_folder(experiments))) == {layout.CLOCK, run.run_id}
    assert run.exit_file("i") == layout.exit_file(run.folder, "i") == f"{run.folder}/i"
    assert layout.stop_file(run.folder) == f"{run.folder}/stop"
    experiment.close_logs()
    run.close(done=True)
