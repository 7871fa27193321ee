"""The commands and their options.

What a command needs is imported when it runs, so that `hermes --help` stays light.
"""

from __future__ import annotations

import inspect
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn, Unpack

import typer

import hermes

# Plain help: rich would take as long as all the rest of start-up, for boxes around the same text
app = typer.Typer(
    name="hermes",
    help="Run the jobs of a hermes file, each with an identifier, a directory and logs of its own.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

WRONG_CALL = 2
"""The exit code after a call that typer has not understood."""

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
Root = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="DIR", help="Folder that experiments/ goes into.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print failures and nothing else.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def _version(wanted: bool) -> None:
    if wanted:
        from .predecessor import installed

        print(f"hermes {hermes.__version__}")
        if beside := installed():
            _say(beside)
        raise typer.Exit


@app.callback(no_args_is_help=True, invoke_without_command=True)
def _hermes(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run the jobs of a hermes file, each with an identifier, a directory and logs of its own."""


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
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
@_with_settings
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
                plan, name, follow_logs="shown", follow_files=as_json, only_missing=resume
            ),
            quiet=quiet,
            as_json=as_json,
        )


@app.command("resume", short_help="Go on with an unfinished run.")
def resume_(
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Id of a run, or a part of it.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("-n", "--name", metavar="NAME", help="Name of the run.", show_default=False),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Run the jobs that failed again, too.")
    ] = False,
    root: Root = None,
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
                found, failed=failed, follow_logs="shown", follow_files=as_json
            ),
            quiet=quiet,
        ),
        quiet=quiet,
        as_json=as_json,
    )


@app.command(short_help="End a run.")
def stop(
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Id of a run, or a part of it.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("-n", "--name", metavar="NAME", help="Name of the run.", show_default=False),
    ] = None,
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


@app.command("compile", short_help="Print the commands of a hermes file.")
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


@app.command()
def create(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the new file; `.hermes` is added.", show_default=False
        ),
    ],
    scripts: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            "--script",
            metavar="SCRIPT",
            help="Script to execute; repeatable.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a commented hermes file to start from. Never overwrites."""
    from .templates import new_file

    path = Path(name if name.endswith(".hermes") else f"{name}.hermes")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(new_file(scripts or ()))
    except FileExistsError:
        raise hermes.HermesError(
            f"`{hermes.escape(str(path))}` exists already, it was left as it is"
        ) from None
    except (OSError, ValueError) as exc:
        told = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise hermes.HermesError(f"cannot write `{hermes.escape(str(path))}`: {told}") from None
    print(path)
    _say(
        f"edit it, look at it with `hermes compile {path}`, "
        f"run it with `hermes exec -f {path} -n NAME`"
    )


@app.command(short_help="Write a small example and run it.")
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder for the example.")] = Path(
        "hermes_demo"
    ),
) -> None:
    """Write a small example, two agents that learn to balance a pole, and run it.

    Takes a few seconds.
    """
    from .run import run
    from .templates import write_demo

    write_demo(folder)
    _say(
        f"the example is in `{folder}`: a hermes file, two training scripts "
        "and the network they share"
    )
    _say(f"$ cd {shlex.quote(str(folder))} && hermes exec -f example_file.hermes -n test_agents")
    plan = hermes.compile_file("example_file.hermes", working_directory=folder)
    run(
        lambda: hermes.open_run(plan, "test_agents", follow_logs="shown", follow_files=False),
        after=_show_results,
    )


def _show_results(result: hermes.RunResult) -> None:
    from .display import Writer

    out = Writer(sys.stdout)
    for outcome in result.outcomes:
        if outcome.directory is not None:
            out.line(os.path.relpath(outcome.directory))
            for stored in hermes.load_experiment(outcome.directory).files:
                out.line(
                    f"    {hermes.escape(stored.path)}  ({stored.origin}, {stored.bytes} bytes)"
                )


@app.command("help")
def help_(
    context: typer.Context,
    command: Annotated[
        str | None,
        typer.Argument(metavar="[COMMAND]", help="Command to explain.", show_default=False),
    ] = None,
) -> None:
    """Show help for hermes or for one of its commands."""
    parent = context.parent
    assert parent is not None, "a command always has the group above it"
    if command is None:
        print(parent.get_help())
        return
    group = typer.main.get_command(app)
    found = getattr(group, "commands", {}).get(command)
    if found is None:
        raise hermes.HermesError(
            f"no command `{command}`",
            hint=hermes.did_you_mean(command, getattr(group, "commands", {})),
        )
    with found.make_context(command, [], parent=parent, resilient_parsing=True) as own:
        print(own.get_help())


def _print_plan(plan: hermes.Plan, as_json: bool) -> None:
    import json

    # Whoever reads may have seen enough, as `head` does
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for warning in plan.warnings:
        _say(f"warning: {warning}")
    _write_lines((json.dumps(job.as_json()) for job in plan.jobs) if as_json else plan.jobs.lines())


def _write_lines(lines: Iterable[str]) -> None:
    # A sweep may have millions of lines: no call per line, and no list of all
    from itertools import islice

    lines = iter(lines)
    while block := list(islice(lines, 1000)):
        sys.stdout.write("\n".join(block) + "\n")


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def main() -> NoReturn:
    """Executes the command line, and exits."""
    # Whoever starts Hermes with SIGCHLD ignored would make every job end with exit code 255
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Closed by the caller: the next file that is opened would get its number, and with it
            # all that is printed
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # Names are bytes: what is not UTF-8 in them must not end the program
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    try:
        app(prog_name="hermes")
    except hermes.HermesError as exc:
        sys.stdout.flush()
        _say(_coloured(str(exc)))
        sys.exit(2)
    except SystemExit as exc:
        if exc.code == WRONG_CALL:
            _hint(sys.argv[1:])
        raise
    sys.exit(0)


def _hint(words: Sequence[str]) -> None:
    """Says more about a wrong call, which typer has already told."""
    from .predecessor import hints

    commands = getattr(typer.main.get_command(app), "commands", {})
    options = {
        name: {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
        for name, command in commands.items()
    }
    for hint in hints(words, options):
        _say(_coloured(f"hint: {hint}"))


def _coloured(text: str) -> str:
    if (
        not sys.stderr.isatty()
        or os.environ.get("NO_COLOR")
        or os.environ.get("TERM", "dumb") == "dumb"
    ):
        return text
    colours = {"error:": "\033[1;31merror:\033[0m", "hint:": "\033[1;36mhint:\033[0m"}
    lines = []
    for line in text.split("\n"):
        word = line.partition(" ")[0]
        lines.append(colours[word] + line[len(word) :] if word in colours else line)
    return "\n".join(lines)
