"""Which GPUs there are, and which of them jobs may use."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hermes.errors import HermesError
from hermes.gpus.finding import Gpu, find, left_visible, listed_by_nvidia_smi, listed_by_rocm_smi

LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-aaaa)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22222222-bbbb)
  MIG 3g.20gb     Device  0: (UUID: MIG-33333333-cccc)
  MIG 3g.20gb     Device  1: (UUID: MIG-44444444-dddd)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-55555555-eeee)
"""

ZERO, TWO = Gpu("GPU-11111111-aaaa", "0", ("0",)), Gpu("GPU-55555555-eeee", "2", ("2",))
PARTS = Gpu("MIG-33333333-cccc", "MIG-33333333-cccc"), Gpu("MIG-44444444-dddd", "MIG-44444444-dddd")
ALL = (ZERO, *PARTS, TWO)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the only programs that there are."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    return tmp_path


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


def nvidia_smi(folder: Path) -> None:
    program(
        folder,
        "nvidia-smi",
        f'if [ "$1" = -L ]; then cat <<X\n{LISTED}X\nelse cat <<X\n'
        "GPU-11111111-aaaa, 1024\nGPU-22222222-bbbb, [N/A]\nGPU-55555555-eeee, 40000\nX\nfi\n"
        .replace("cat", "/bin/cat"),
    )  # fmt: skip


def test_nvidia_smi_is_asked_where_there_is_no_nvml(machine: Path) -> None:
    nvidia_smi(machine)
    program(machine, "cat", 'exec /bin/cat "$@"\n')
    found = find("all", {}, "")
    assert found.gpus == ALL
    assert found.free() == {"GPU-11111111-aaaa": 2**30, "GPU-55555555-eeee": 40000 * 2**20}


def test_a_divided_gpu_is_its_parts() -> None:
    assert listed_by_nvidia_smi(LISTED) == ALL


def test_rocm_smi_is_asked_last(machine: Path) -> None:
    card = {"Unique ID": "0xabc", "VRAM Total Memory (B)": "100",
            "VRAM Total Used Memory (B)": "30"}  # fmt: skip
    text = json.dumps({"card1": {"Unique ID": "N/A"}, "card0": card, "system": {}})
    program(machine, "rocm-smi", f"echo '{text}'\n")
    found = find("all", {}, "")
    assert found.gpus == (Gpu("GPU-abc", "0", ("0",)), Gpu("card1", "1", ("1",)))
    assert found.free() == {"GPU-abc": 70}
    assert listed_by_rocm_smi("no JSON") == ((), {})


def test_nvml_is_asked_first(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(machine)

    class NVMLError(Exception):
        pass

    def mig(handle: str) -> tuple[int, int]:
        if handle == "h0":
            raise NVMLError
        return 1, 1

    def part(handle: str, number: int) -> str:
        if number > 1:
            raise NVMLError
        return f"{handle}.{number}"

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: f"h{index}",
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}".encode(),
        nvmlDeviceGetMigMode=mig,
        nvmlDeviceGetMaxMigDeviceCount=lambda handle: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=part,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(free=5),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = find("all", {}, "")
    assert [gpu.id for gpu in found.gpus] == ["GPU-h0", "GPU-h1.0", "GPU-h1.1"]
    assert [gpu.value for gpu in found.gpus] == ["0", "GPU-h1.0", "GPU-h1.1"]
    assert found.free() == {"GPU-h0": 5, "GPU-h1.0": 5, "GPU-h1.1": 5}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["0", *(part.id for part in PARTS), "2"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, ["2", "0"]),
        ({"CUDA_VISIBLE_DEVICES": "2,9,0"}, ["2"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-5555, 0"}, ["2", "0"]),
        ({"CUDA_VISIBLE_DEVICES": "MIG-33333333-cccc"}, ["MIG-33333333-cccc"]),
        ({"HIP_VISIBLE_DEVICES": "2"}, ["2"]),
        # What HIP is told counts within what ROCr is told
        ({"ROCR_VISIBLE_DEVICES": "2,0", "HIP_VISIBLE_DEVICES": "1"}, ["1"]),
    ],
)
def test_what_the_environment_hides_is_not_used(
    environment: dict[str, str], expected: list[str]
) -> None:
    assert [gpu.value for gpu in left_visible(ALL, environment)] == expected


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("all", ["0", "2"]), ("1", ["0"]), ("2,", ["2"]), ("2,0", ["2", "0"]),
        ("GPU-5555", ["2"]), ("fake:3", ["0", "1", "2"]),
    ],
)  # fmt: skip
def test_the_setting_names_gpus(machine: Path, setting: str, expected: list[str]) -> None:
    nvidia_smi(machine)
    visible = {"CUDA_VISIBLE_DEVICES": "0,2"}
    assert [gpu.value for gpu in find(setting, visible, "here").gpus] == expected


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("3", "the machine has 2 GPUs, CUDA_VISIBLE_DEVICES hides 2 more"),
        ("7,", "there is no GPU `7`"),
        ("MIG-33333333-cccc", "CUDA_VISIBLE_DEVICES hides `MIG-33333333-cccc`"),
    ],
)
def test_gpus_that_are_not_there_are_told(machine: Path, setting: str, says: str) -> None:
    nvidia_smi(machine)
    with pytest.raises(HermesError, match=says):
        find(setting, {"CUDA_VISIBLE_DEVICES": "0,2"}, "")


def test_a_machine_without_gpus_is_told(machine: Path) -> None:
    with pytest.raises(HermesError, match="no GPU was found"):
        find("all", dict(os.environ), "")
    program(machine, "nvidia-smi", "exit 9\n")
    with pytest.raises(HermesError, match="no GPU was found"):
        find("all", dict(os.environ), "")
