"""`exec`, `resume`, `stop` and `compile`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Unpack

import typer

import hermes

from . import completing
from .app import AsJson, Quiet, Root, app, end_quietly, say, write_lines

Comments = Annotated[
    list[str] | None,
    typer.Option(
        "-c",
        "--comment",
        metavar="TEXT",
        help="Store a comment with every experiment; repeatable.",
        show_default=False,
    ),
]

Detach = Annotated[
    bool,
    typer.Option("--detach", help="Go on without the terminal, and print the id of the run."),
]

RunId = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Id of a run, or a part of it.", show_default=False),
]

RunName = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--name",
        metavar="NAME",
        help="Name of the run.",
        show_default=False,
        autocompletion=completing.names,
    ),
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command an option for each setting, in place of its `**settings`."""
    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())[:-1]
    options = [
        inspect.Parameter(
            row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option_of(row)
        )
        for row in hermes.SETTINGS.values()
        if row.on_command_line
    ]
    # typer asks `inspect.signature`, which takes this attribute for the truth
    signature = signature.replace(parameters=[*own, *options])
    command.__signature__ = signature  # type: ignore[attr-defined]
    return command


def _option_of(row: hermes.Setting) -> object:
    flag, no = row.option, row.option.replace("--", "--no-", 1)
    switch = row.kind.argument is bool
    option = typer.Option(
        f"{flag}/{no}" if switch else flag,
        metavar=None if switch else row.kind.metavar,
        help=f"{row.meaning[0].upper()}{row.meaning[1:]}.",
        show_default=False,
    )
    # What consists of several parts is given part by part
    argument = list[str] if row.kind.argument is tuple else row.kind.argument
    return Annotated[argument | None, option]


def _compiled(
    file: str,
    root: Path | None,
    *,
    comments: Sequence[str] = (),
    **settings: Unpack[hermes.PlanArguments],
) -> hermes.Plan:
    if file != "-":
        return hermes.compile_file(file, root=root, comments=comments, **settings)
    text = sys.stdin.buffer.read()
    return hermes.compile_text(text, root=root, comments=comments, **settings)


@app.command("exec")
@with_settings
def execute(
    file: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--file",
            metavar="FILE",
            help="Hermes file to execute; `-` is standard input.",
            show_default=False,
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            "-e",
            "--execute",
            metavar="COMMAND",
            help="Execute this one command.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--name",
            metavar="NAME",
            help="Name that groups the experiments.  [default: FILE's stem]",
            show_default=False,
            autocompletion=completing.names,
        ),
    ] = None,
    comments: Comments = None,
    root: Root = None,
    compile_only: Annotated[
        bool, typer.Option("--compile-only", help="Print the commands and execute nothing.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Run only jobs that have not succeeded under this name yet."),
    ] = False,
    detach: Detach = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **settings: Unpack[hermes.PlanArguments],
) -> None:
    """Execute a hermes file, or one command.

    Exit code 0: all jobs succeeded; 1: a job failed or has problems; 2: the call or the hermes file
    is wrong; 128+n: ended by signal n.
    """
    if (file is None) == (command is None):
        raise hermes.HermesError(
            "expected either `-f FILE` or `-e COMMAND`",
            hint="`hermes exec -f sweep.hermes -n first_try`",
        )
    if command is not None:
        plan = hermes.compile_command(command, root=root, comments=comments or (), **settings)
    else:
        plan = _compiled(file or "", root, comments=comments or (), **settings)
    if compile_only:
        _print_plan(plan, as_json)
    else:
        from .run import run

        run(
            lambda: hermes.open_run(
                plan,
                name,
                follow_logs="shown",
                follow_files=as_json and not detach,
                only_missing=resume,
            ),
            quiet=quiet,
            as_json=as_json,
            detach=detach,
        )


@app.command("resume")
def resume_(
    run_id: RunId = None,
    name: RunName = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Run the jobs that failed again, too.")
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            min=1,
            help="Most jobs at the same time, from now on.",
            show_default=False,
        ),
    ] = None,
    root: Root = None,
    detach: Detach = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Take up the latest unfinished run of this working directory that nobody executes.

    Jobs that are still alive are waited for, jobs that ended meanwhile are finished, and jobs that
    were never started are started. What succeeded is not repeated.
    """
    from .run import named, run

    run(
        lambda: named(
            run_id or name,
            "resume",
            root,
            lambda found: hermes.open_resumed(
                found,
                failed=failed,
                threads=threads,
                follow_logs="shown",
                follow_files=as_json and not detach,
            ),
            quiet=quiet,
        ),
        quiet=quiet,
        as_json=as_json,
        detach=detach,
    )


@app.command("stop")
def stop(
    run_id: RunId = None,
    name: RunName = None,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Do not offer the run for resuming any more, ended or not."),
    ] = False,
    root: Root = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """End the latest run of this working directory that is in progress.

    Jobs get SIGTERM and 10 s to end, on a cluster `scancel`; what they left is collected.
    `hermes resume` goes on with the run.
    """
    from .run import named, run

    run(
        lambda: named(
            run_id or name,
            "forget" if forget else "stop",
            root,
            lambda found: hermes.open_stopped(found, forget=forget),
            quiet=quiet,
        ),
        quiet=quiet,
        as_json=as_json,
        is_stop=True,
    )


@app.command("compile")
def compile_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Hermes file to compile.", show_default=False)
    ],
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Print the commands of a hermes file, one a line, and execute nothing.

    {identifier} stands for the identifier that a job gets when it starts.
    """
    _print_plan(_compiled(file, root), as_json)


def _print_plan(plan: hermes.Plan, as_json: bool) -> None:
    import json

    end_quietly()
    for warning in plan.warnings:
        say(f"warning: {warning}")
    write_lines((json.dumps(job.as_json()) for job in plan.jobs) if as_json else plan.jobs.lines())
