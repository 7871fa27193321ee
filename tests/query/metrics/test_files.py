"""Metrics of an experiment, from the files that programs leave."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.query.metrics.crc import crc32c, masked
from hermes.query.metrics.files import read_curves, summarise

DATA = Path(__file__).parent / "data"


def write(folder: Path, name: str, text: str | bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def last(folder: Path) -> dict[str, float]:
    found, problems = summarise(str(folder))
    assert problems == []
    return {name: summary.last for name, summary in found.items()}


def points(folder: Path, name: str) -> list[tuple[float, float]]:
    curve = read_curves(str(folder), [name])[0][name]
    return list(zip(curve.steps, curve.values, strict=True))


# Scores


def test_scores_of_rlmate(tmp_path: Path) -> None:
    write(tmp_path, "2021_07_25_160008326976_3_1930e.scores", "returns\n1.5\n\n-2\n3e1")
    assert points(tmp_path, "score") == [(0, 1.5), (1, -2), (2, 30)]
    write(tmp_path, "2021_07_25_160008326976_3_1930e.scores", "1\n2\nthree\n4\n")
    found, problems = summarise(str(tmp_path))
    assert (found["score"].count, found["score"].last) == (3, 4)
    assert problems == [
        "`2021_07_25_160008326976_3_1930e.scores`: 1 of its lines are no numbers, and left out"
    ]


# Tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_with_steps(tmp_path: Path, delimiter: str) -> None:
    rows = ["step,return,loss", "10,1.5,", "20,2.5,0.25", "30,nan,inf"]
    write(tmp_path, "returns.csv", "\n".join(rows).replace(",", delimiter) + "\n")
    found, problems = summarise(str(tmp_path))
    assert problems == []
    summary = found["return"]
    assert (summary.count, summary.valid, summary.last_step) == (3, 2, 30)
    assert math.isnan(summary.last)
    assert (summary.min, summary.max, summary.mean) == (1.5, 2.5, 2.0)
    # An empty cell is no value, and not 0
    assert points(tmp_path, "loss") == [(20, 0.25), (30, math.inf)]


def test_a_row_that_is_not_whole_is_no_row(tmp_path: Path) -> None:
    write(tmp_path, "returns.csv", "episode,return\n0,1\n1,2\n2")
    assert points(tmp_path, "return") == [(0, 1), (1, 2)]


def test_a_table_without_header_holds_no_metrics(tmp_path: Path) -> None:
    write(tmp_path, "matrix.csv", "1,2\n3,4\n")
    write(tmp_path, "empty.csv", "")
    write(tmp_path, "texts.csv", "name,city\na,b\n")
    assert last(tmp_path) == {}


def test_monitor_csv_of_stable_baselines3(tmp_path: Path) -> None:
    """As `stable_baselines3.common.monitor.Monitor` writes it."""
    write(
        tmp_path,
        "0.monitor.csv",
        '#{"t_start": 1700000000.0, "env_id": "CartPole-v1"}\nr,l,t\n20.0,20,0.1\n35.0,35,0.2\n',
    )
    assert points(tmp_path, "r") == [(20, 20), (55, 35)]


def test_progress_csv_of_stable_baselines3(tmp_path: Path) -> None:
    write(
        tmp_path,
        "progress.csv",
        "time/fps,rollout/ep_rew_mean,time/total_timesteps,train/loss\n900,20.5,2048,\n"
        "800,30.5,4096,0.5\n",
    )
    assert points(tmp_path, "rollout/ep_rew_mean") == [(2048, 20.5), (4096, 30.5)]
    assert points(tmp_path, "train/loss") == [(4096, 0.5)]


# JSON


def test_json_of_values_of_curves_and_of_rows(tmp_path: Path) -> None:
    write(tmp_path, "final.json", '{"return": 7, "eval": {"accuracy": 0.5}, "done": true}')
    write(tmp_path, "history.json", '{"loss": [3.0, 2.0, 1.0], "names": ["a"]}')
    write(tmp_path, "rows.json", '[{"step": 5, "reward": 1}, {"step": 6, "reward": 2}]')
    write(tmp_path, "config.json", '{"lr": 0.1}')
    assert last(tmp_path) == {"return": 7, "eval/accuracy": 0.5, "loss": 1.0, "reward": 2}
    assert points(tmp_path, "loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert points(tmp_path, "reward") == [(5, 1), (6, 2)]


@pytest.mark.parametrize("name", ["log.jsonl", "progress.json"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    lines = [json.dumps({"step": step, "return": step / 2}) for step in (2, 4)]
    write(tmp_path, name, "\n".join(lines) + '\n{"step": 6, "ret')
    assert points(tmp_path, "return") == [(2, 1), (4, 2)]


def test_what_is_no_json_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a.json", "{oops")
    write(tmp_path, "b.jsonl", '{"x": 1}\noops\n')
    found, problems = summarise(str(tmp_path))
    assert found.keys() == {"x"}
    assert problems == [
        "`b.jsonl`: 1 of its lines are no JSON, and left out",
        "`a.json`: it is no JSON",
    ]


# What was printed


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("return: 1.5", {"return": 1.5}),
        ("mean return = -2e-3", {"mean return": -0.002}),
        ("epoch 3: loss=0.5 acc=0.9", {"loss": 0.5, "acc": 0.9}),
        ("[step 100] loss: 0.5, acc: 0.9", {"loss": 0.5, "acc": 0.9}),
        ("loss: nan", {"loss": math.nan}),
        ("\x1b[32mloss\x1b[0m: 0.5", {"loss": 0.5}),
        ("50%|###  | 5/10 [00:01<00:01, 4.9it/s, loss=0.7]", {"loss": 0.7}),
        ("started at 12:30:01", {}),
        ("see http://localhost:8080/x", {}),
        ("version: 1.2.3", {}),
        ("step: 5", {}),
        ("hello", {}),
    ],
)
def test_printed_lines(tmp_path: Path, line: str, expected: dict[str, float]) -> None:
    write(tmp_path, "stdout.log", line + "\n")
    assert last(tmp_path) == pytest.approx(expected, nan_ok=True)


def test_printed_steps_and_carriage_returns(tmp_path: Path) -> None:
    write(tmp_path, "stdout.log", "epoch 1: loss=3\repoch 2: loss=2\nepoch 9: loss=1\n")
    assert points(tmp_path, "loss") == [(1, 3), (2, 2), (9, 1)]


BOX = """\
---------------------------------
| rollout/           |          |
|    ep_len_mean     | 22.1     |
|    ep_rew_mean     | {reward}     |
| time/              |          |
|    fps             | 1034     |
|    total_timesteps | {steps}     |
---------------------------------
"""
"""As Stable-Baselines3 prints it."""


def test_boxes_of_stable_baselines3(tmp_path: Path) -> None:
    text = BOX.format(reward=21.5, steps=2048) + BOX.format(reward=31.5, steps=4096)
    write(tmp_path, "stdout.log", "Using cpu device\n" + text)
    assert points(tmp_path, "rollout/ep_rew_mean") == [(2048, 21.5), (4096, 31.5)]
    assert last(tmp_path).keys() == {"rollout/ep_len_mean", "rollout/ep_rew_mean", "time/fps"}


# Event files


def test_events_that_tensorboardx_wrote(tmp_path: Path) -> None:
    shutil.copy(DATA / "tensorboardX.tfevents", tmp_path / "events.out.tfevents.1.host")
    assert last(tmp_path).keys() == {"charts/episodic_return", "losses/value_loss"}
    expected = [(step * 100, step * 1.5) for step in range(20)]
    assert points(tmp_path, "charts/episodic_return") == expected


def test_a_torn_end_is_left_out_wherever_it_is(tmp_path: Path) -> None:
    data = (DATA / "tensorboardX.tfevents").read_bytes()
    path = tmp_path / "x.tfevents"
    counts = []
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        found, problems = summarise(str(tmp_path))
        assert problems == []
        counts.append(sum(summary.count for summary in found.values()))
    assert counts == sorted(counts)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    data = bytearray((DATA / "tensorboardX.tfevents").read_bytes())
    path = tmp_path / "x.tfevents"
    for place in range(40, len(data) - 4, 53):
        data[place] ^= 4
        path.write_bytes(data)
        _, problems = summarise(str(tmp_path))
        assert len(problems) == 1, place
        data[place] ^= 4


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def event(tag: str, step: int, value: float, *, as_tensor: bool) -> bytes:
    """A record of one scalar, as summary writers make it: old style, or as a tensor."""
    if as_tensor:
        tensor = b"\x08\x01" + field(2, b"") + field(4, struct.pack("<f", value))
        content = field(8, tensor)
    else:
        content = b"\x15" + struct.pack("<f", value)
    summary = field(5, field(1, field(1, tag.encode()) + content))
    data = b"\x09" + struct.pack("<d", 1.0) + b"\x10" + varint(step) + summary
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked(head)) + data + struct.pack("<I", masked(data))


VALUES = st.lists(
    st.tuples(
        st.sampled_from(["loss", "é/ü", "a b"]),
        st.integers(0, 2**62),
        st.floats(width=32, allow_nan=False),
        st.booleans(),
    ),
    max_size=30,
)


@given(values=VALUES)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, values: list) -> None:  # type: ignore[type-arg]
    folder = tmp_path_factory.mktemp("events")
    records = [event(tag, step, value, as_tensor=new) for tag, step, value, new in values]
    write(folder, "x.tfevents", b"".join(records))
    found, problems = read_curves(str(folder))
    assert problems == []
    assert sum(len(curve) for curve in found.values()) == len(values)
    for name, curve in found.items():
        expected = [(float(step), value) for tag, step, value, _ in values if tag == name]
        assert list(zip(curve.steps, curve.values, strict=True)) == expected


def test_crc32c_of_the_standard() -> None:
    """The check value of CRC-32C, and vectors of RFC 3720."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


# Several files


def test_the_better_kind_of_file_counts(tmp_path: Path) -> None:
    write(tmp_path, "stdout.log", "loss: 9\nonly printed: 3\n")
    write(tmp_path, "a.csv", "step,loss\n1,2\n")
    write(tmp_path, "x.tfevents", event("loss", 1, 1.0, as_tensor=False))
    assert last(tmp_path) == {"loss": 1.0, "only printed": 3}


def test_files_of_one_kind_have_their_names_before_the_metrics(tmp_path: Path) -> None:
    folder = tmp_path / "2021_07_25_160008326976_1930e"
    write(folder, "eval_2021_07_25_160008326976_1930e.csv", "step,loss\n1,2\n")
    write(folder, "train.csv", "step,loss\n1,3\n")
    write(folder, "logs/b.tfevents", event("acc", 1, 0.5, as_tensor=False))
    write(folder, "logs/c.tfevents", event("acc", 2, 0.75, as_tensor=True))
    write(folder, "more/b.tfevents", event("acc", 1, 0.25, as_tensor=False))
    assert last(folder) == {"loss": 2, "train/loss": 3, "acc": 0.75, "more/acc": 0.25}
    assert points(folder, "acc") == [(1, 0.5), (2, 0.75)]
    assert points(folder, "train/loss") == [(1, 3)]


def test_links_pipes_and_hermes_own_files_are_not_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside.csv"
    outside.write_text("step,loss\n1,2\n")
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "link.csv").symlink_to(outside)
    os.mkfifo(folder / "pipe.csv")
    write(folder, "stderr.log", "loss: 3\n")
    assert last(folder) == {}


def test_a_large_table_does_not_fill_the_memory(tmp_path: Path) -> None:
    row = ",".join(["0.123456"] * 20)
    with open(tmp_path / "large.csv", "w") as file:
        file.write(",".join(f"m{n}" for n in range(20)) + "\n")
        file.writelines(f"{row}\n" for _ in range(10_000))
    tracemalloc.start()
    try:
        summarise(str(tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json", "x.scores", "stdout.log"])
def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "a,b\n" if name == "x.csv" else "\n")
    os.truncate(tmp_path / name, 2**28)
    tracemalloc.start()
    found, problems = summarise(str(tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {}
    assert len(problems) == (name != "stdout.log")
    assert peak < 2**28


def test_a_progress_bar_without_line_ends_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes.query.metrics.files.LONGEST_LINE", 1000)
    text = "\r".join(f"{n}%|###| loss=0.{n}1" for n in range(1000)) + "\r" + "x" * 5000 + "\rend=1"
    write(tmp_path, "stdout.log", text)
    assert points(tmp_path, "loss") == [(n, float(f"0.{n}1")) for n in range(1000)]
    assert last(tmp_path)["end"] == 1
