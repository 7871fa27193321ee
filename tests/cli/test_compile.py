"""`hermes compile`: the commands, as a shell reads them."""

from __future__ import annotations

import json
import shlex
import signal

import hermes

from ..support import JOB, LIMIT, Desk


def test_compile_only_is_compile(desk: Desk) -> None:
    before = desk.tree(desk.path)
    compiled = desk.hermes("compile", "sweep.hermes")
    only = desk.hermes("exec", "-f", "sweep.hermes", "-n", "x", "--compile-only")
    assert only.stdout
    assert (only.stdout, only.stderr) == (compiled.stdout, compiled.stderr)
    assert json.loads(desk.hermes("exec", "-e", "echo", "--compile-only", "--json").stdout)[
        "argv"
    ] == ["echo", "{identifier}"]
    assert desk.tree(desk.path) == before


def test_compile_prints_commands_as_a_shell_reads_them(desk: Desk) -> None:
    for name in ("train.py", "with space.py", "tool"):
        desk.write(name)
    desk.write(
        "words.hermes",
        """\
STD-E
--note 'it''s $HOME'
EXEC
[[python, train.py, --lr 0.1 --empty "" --star '*']]
[[python, "with space.py", --out {identifier}]]
PROD([[python, train.py, --lr {lr}]], lr=[0.5, 0.25])
""",
    )
    done = desk.hermes("compile", "words.hermes")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "python train.py {identifier} --note 'its $HOME' --lr 0.1 --empty '' --star '*'",
        "python 'with space.py' --note 'its $HOME' --out {identifier}",
        "python train.py {identifier} --note 'its $HOME' --lr 0.5",
        "python train.py {identifier} --note 'its $HOME' --lr 0.25",
    ]
    # What is printed means to a shell what the jobs get
    jobs = list(hermes.compile_file("words.hermes", working_directory=desk.path).jobs)
    assert [tuple(shlex.split(line)) for line in done.stdout.splitlines()] == [
        job.argv for job in jobs
    ]


def test_compile_json(desk: Desk) -> None:
    desk.write(
        "options.hermes",
        """\
STD-H
-ca a.txt
EXEC

[[python, train.py, --lr 0.1],[-cb b.txt -ma 'c d.txt' -l false -c "first: try" -c second]]
[[./tool]]
""",
    )
    done = desk.hermes("compile", "options.hermes", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {
            "argv": ["python", "train.py", "{identifier}", "--lr", "0.1"],
            "script": "train",
            "line": 5,
            "parameters": {},
            "options": {
                "copy_after": ["a.txt"],
                "copy_before": ["b.txt"],
                "move_after": ["c d.txt"],
                "log": False,
                "comments": ["first: try", "second"],
            },
        },
        {
            "argv": ["./tool", "{identifier}"],
            "script": "tool",
            "line": 6,
            "parameters": {},
            "options": {
                "copy_after": ["a.txt"],
                "copy_before": [],
                "move_after": [],
                "log": True,
                "comments": [],
            },
        },
    ]


def test_compile_looks_at_nothing_but_the_file(desk: Desk) -> None:
    before = desk.tree(desk.path)
    desk.write("sweep.hermes", "EXEC\n[[no-such-program, missing.py],[-cb missing.txt]]\n")
    assert (
        desk.hermes("compile", "sweep.hermes").stdout == "no-such-program missing.py {identifier}\n"
    )
    assert desk.tree(desk.path).keys() == before.keys()


def test_a_reader_that_has_seen_enough_ends_compile(desk: Desk) -> None:
    desk.write(
        "huge.hermes", f"EXEC\nPROD({JOB[:-2]} {{a}} {{b}}]], a=RANGE[0, 1000], b=RANGE[0, 1000])\n"
    )
    with desk.started("compile", "huge.hermes") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().endswith("0.1 0 0\n")
        process.stdout.close()
        assert process.wait(LIMIT) == -signal.SIGPIPE
        assert process.stderr.read() == ""


def test_sigint_ends_compile_as_it_ends_any_program(desk: Desk) -> None:
    desk.write(
        "huge.hermes", f"EXEC\nPROD({JOB[:-2]} {{a}} {{b}}]], a=RANGE[0, 1000], b=RANGE[0, 1000])\n"
    )
    with desk.started("compile", "huge.hermes") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == -signal.SIGINT
        assert process.stderr.read() == ""
