"""`status` and `attach`: looks at runs that go on elsewhere."""

from __future__ import annotations

import sys

import hermes

from .app import AsJson, Quiet, Root, app, end_quietly, say, write_lines
from .changing import RunId


@app.command("status")
def status(
    run_id: RunId = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Tell which runs are in progress or unfinished, wherever they were started, and who executes
    them; of one run, which jobs run.
    """
    import json
    import shutil

    from hermes.show import status as shown
    from hermes.show import table

    end_quietly()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if run_id is not None:
        try:
            one = hermes.run_status(run_id, root)
        except hermes.HermesError:
            over = hermes.finished_run(run_id, root)
            if over is None:
                raise
            told = {"run_id": over.run_id, "name": over.name, "state": "over", "ok": over.ok}
            write_lines([json.dumps(told) if as_json else shown.finished(over)])
            return
        if as_json:
            write_lines([json.dumps(one.as_json())])
            return
        write_lines(shown.lines(one))
        if one.jobs:
            write_lines(["", *table.lines(shown.table_of_jobs(one), right={3}, width=width)])
        return
    runs = hermes.runs(root)
    for warning in runs.warnings:
        say(f"warning: {warning}")
    if as_json:
        write_lines(json.dumps(run.as_json()) for run in runs)
    elif runs:
        write_lines(table.lines(shown.table(runs), right=shown.NUMBERS))
    if not any(run.is_in_progress for run in runs):
        say(_none(runs))


def _none(runs: hermes.Runs) -> str:
    last = runs.last_experiment()
    told = "no run is in progress" if runs else "no run is in progress or unfinished"
    if last is None:
        return f"{told}; there are no experiments yet"
    when = last.end or last.start
    then = f" at {when.astimezone():%Y-%m-%d %H:%M:%S}" if when is not None else ""
    return hermes.escape(f"{told}; the last experiment, of `{last.name}`: {last.status}{then}")


@app.command("attach")
def attach(
    run_id: RunId = None,
    root: Root = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show the latest run in progress as `hermes exec` does, wherever it was started.

    Ctrl-C leaves it, and ends nothing. Exit code: that of the run when it ends; 128+n: left by
    signal n.
    """
    from .attaching import attach

    attach(run_id, root, quiet=quiet, as_json=as_json)
