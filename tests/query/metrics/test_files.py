"""Metrics are read from the files that jobs leave."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from hermes.query.metrics.crc import crc32c, masked
from hermes.query.metrics.files import read_curves, summarise


def _record(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    checks = [struct.pack("<I", masked(each)) for each in (head, data)]
    return head + checks[0] + data + checks[1]


def _event(tag: str, step: int, value: float) -> bytes:
    name = tag.encode()
    inner = b"\x0a" + bytes([len(name)]) + name + b"\x15" + struct.pack("<f", value)
    summary = b"\x0a" + bytes([len(inner)]) + inner
    return _record(b"\x10" + bytes([step]) + b"\x2a" + bytes([len(summary)]) + summary)


def _values(folder: Path, name: str) -> list[tuple[float, float]]:
    curve = read_curves(str(folder))[0][name]
    return list(zip(curve.steps, curve.values, strict=True))


def test_the_checksum_is_that_of_rfc_3720() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_event_files_are_read_up_to_a_torn_end(tmp_path: Path) -> None:
    first, second = _event("loss", 1, 0.5), _event("loss", 2, 0.25)
    path = tmp_path / "events.out.tfevents.1"
    for end in range(len(second)):
        path.write_bytes(first + second[:end])
        assert _values(tmp_path, "loss") == [(1, 0.5)]
        assert summarise(str(tmp_path))[1] == []
    path.write_bytes(first + second)
    assert _values(tmp_path, "loss") == [(1, 0.5), (2, 0.25)]


def test_a_flipped_bit_is_told(tmp_path: Path) -> None:
    whole = _event("loss", 1, 0.5)
    for index in range(len(whole)):
        broken = bytearray(whole)
        broken[index] ^= 4
        (tmp_path / "events.out.tfevents.1").write_bytes(broken + whole)
        assert len(summarise(str(tmp_path))[1]) == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_an_empty_cell_is_no_value(tmp_path: Path, delimiter: str) -> None:
    text = "step,loss,acc\n10,0.5,\n20,nan,0.75\n30,0.1".replace(",", delimiter)
    (tmp_path / "progress.csv").write_text(text)
    assert _values(tmp_path, "acc") == [(20, 0.75)]
    assert summarise(str(tmp_path))[0]["loss"].count == 2


def test_the_steps_of_monitor_csv_are_those_of_its_episodes(tmp_path: Path) -> None:
    (tmp_path / "monitor.csv").write_text('#{"t_start": 1.0}\nr,l,t\n20.0,20,0.1\n9.0,9,0.2\n')
    assert _values(tmp_path, "r") == [(20, 20.0), (29, 9.0)]


def test_json_and_json_lines(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"return": 1.5, "eval": {"loss": 2}, "ok": true}')
    (tmp_path / "log.jsonl").write_text('{"step": 5, "acc": 0.5}\n{"step": 6, "ac')
    found, problems = summarise(str(tmp_path))
    assert {name: each.last for name, each in found.items()} == {
        "return": 1.5, "eval/loss": 2, "acc": 0.5,
    }  # fmt: skip
    assert problems == []


def test_what_was_printed(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_text(
        "Starting at 10:30\nepoch 3: loss=0.5 acc=0.9\nstep: 100 return: 5.0\n"
        "-----\n| rollout/ | |\n|    ep_rew_mean | 20 |\n| time/ | |\n"
        "|    total_timesteps | 64 |\n-----\n"
    )
    assert _values(tmp_path, "loss") == [(3, 0.5)]
    assert _values(tmp_path, "return") == [(100, 5.0)]
    assert _values(tmp_path, "rollout/ep_rew_mean") == [(64, 20.0)]


def test_pipes_and_links_are_not_opened(tmp_path: Path) -> None:
    (folder := tmp_path / "experiment").mkdir()
    os.mkfifo(folder / "a.csv")
    (tmp_path / "out.csv").write_text("loss\n1\n")
    (folder / "b.csv").symlink_to(tmp_path / "out.csv")
    assert summarise(str(folder)) == ({}, [])
