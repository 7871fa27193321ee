"""`curves`: a long event file, and a file of 1 GB, which fills no memory."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

from hermes.query.metrics.crc import masked

from .measure import TURNS, Contender, python, take_turns
from .table import Figures, Row, Target, count

MOST_SECONDS = 2.0
"""Of a whole process that reads 110,000 scalars and checks every one of them."""

MOST_MEMORY = 100.0
"""In MB, whatever the size of the file."""

TENSORBOARD_VARIABLE = "HERMES_BENCH_TENSORBOARD"
"""Holds the path of TensorBoard's command, beside which its Python is."""

TAGS = 11
LINE = 1000

OURS_CODE = """\
import sys
from hermes.query.metrics.files import read_curves

found, problems = read_curves(sys.argv[1])
assert not problems and sum(map(len, found.values())) == int(sys.argv[2]), problems
"""

THEIRS_CODE = """\
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

found = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
found.Reload()
assert sum(len(found.Scalars(tag)) for tag in found.Tags()["scalars"]) == int(sys.argv[2])
"""


def run(folder: Path, *, smoke: bool) -> Row:
    steps, size, turns = (10, 2**20, 1) if smoke else (10_000, 10**9, TURNS)
    events, large = folder / "events", folder / "large"
    _write_events(events, steps)
    _write_lines(large, size)
    for name, code in (("ours.py", OURS_CODE), ("theirs.py", THEIRS_CODE)):
        (folder / name).write_text(code)
    scalars = str(steps * TAGS)
    ours, theirs = f"Hermes reads {steps * TAGS:,} scalars", "EventAccumulator"
    contenders = [Contender(ours, python("ours.py", "events", scalars), folder)]
    notes = []
    if program := shutil.which(os.environ.get(TENSORBOARD_VARIABLE, "")):
        alone = {"PYTHONPATH": ""}
        python_ = str(Path(program).with_name("python"))
        command = [python_, "theirs.py", "events", scalars]
        contenders.append(Contender(theirs, command, folder, environment=alone, is_peer=True))
    else:
        notes.append(f"{theirs}: absent")
    took = take_turns(contenders, turns, warm_up=True)
    whole = f"Hermes reads a log of {size / 1e9:g} GB"
    once = take_turns([Contender(whole, python("ours.py", "large", "0"), folder)], 1)
    memory = [sample.peak_memory for sample in once.samples[whole]]
    return Row(
        f"curves: whole processes; {count(turns)}",
        ours,
        [*took.times(ours), *once.times(), Figures(f"{whole}, peak memory", memory, "MB")],
        [
            Target(ours, "<=", MOST_SECONDS, took.seconds(ours), "s"),
            Target(f"{whole}, peak memory", "<=", MOST_MEMORY, memory, "MB"),
        ],
        notes + took.failures,
        {**took.raw(), **once.raw()},
    )


def _write_lines(folder: Path, size: int) -> None:
    """A log of what holds no metrics, such as a program that prints its tensors."""
    folder.mkdir()
    lines = (b"0.125 " * (LINE // 6) + b"\n") * 1000
    with (folder / "stdout.log").open("wb") as file:
        while file.tell() < size:
            file.write(lines)


def _write_events(folder: Path, steps: int) -> None:
    folder.mkdir()
    with (folder / "events.out.tfevents.1").open("wb") as file:
        file.write(_record(b"\x1a\x0dbrain.Event:2"))
        for step in range(steps):
            for tag in range(TAGS):
                file.write(_record(_scalar(f"rollout/metric_{tag}", 2048 * step, step / 2 + tag)))


def _scalar(tag: str, step: int, value: float) -> bytes:
    """An event as SummaryWriter writes it: time, step, and a summary of one value."""
    name = tag.encode()
    inner = b"\x0a%c%b\x15%b" % (len(name), name, struct.pack("<f", value))
    summary = b"\x0a%c%b" % (len(inner), inner)
    return b"\x09%b\x10%b\x2a%c%b" % (struct.pack("<d", step), _varint(step), len(summary), summary)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def _record(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    return b"%b%b%b%b" % (
        head,
        struct.pack("<I", masked(head)),
        data,
        struct.pack("<I", masked(data)),
    )
