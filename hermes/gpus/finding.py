"""The GPUs of this machine, as the driver tells: by NVML, else by `nvidia-smi`, else by `rocm-smi`.

NVML is asked through `nvidia-ml-py`, which the extra `gpus` installs. All of this blocks.

Sources: NVIDIA's NVML API reference and `nvidia-smi(1)`; the CUDA programming guide on
`CUDA_VISIBLE_DEVICES`, whose list ends before the first entry that is no device; AMD's page "GPU
isolation techniques" on `ROCR_VISIBLE_DEVICES` and `HIP_VISIBLE_DEVICES`, which counts within the
former.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..errors import HermesError, did_you_mean, escape

TIMEOUT = 30.0
"""Seconds for a program of the driver, which hangs where the driver does."""

FAKE = "fake:"
"""Begins a setting that pretends GPUs."""

INSTALL = "pip install 'hermes-runner[gpus]'"


class Gpu(NamedTuple):
    """One GPU, or an instance of one that is divided (MIG).

    `id` is unique on this machine, `value` what `CUDA_VISIBLE_DEVICES` calls it, `names` what else
    people may call it: its index and its UUID.
    """

    id: str
    value: str
    names: tuple[str, ...] = ()


Free = Callable[[], Mapping[str, int]]
"""Free memory in bytes by the id of the GPU; those of which it is not known are left out. Raises
`HermesError`."""


class Gpus(NamedTuple):
    """The GPUs that jobs may use, in order."""

    gpus: tuple[Gpu, ...]
    free: Free


def find(setting: str, environment: Mapping[str, str], fakes_of: str) -> Gpus:
    """The GPUs that the setting `gpus` names, among those that `environment` leaves visible.

    Pretended ones are shared by all who give the same `fakes_of`. Raises `HermesError` if there are
    none, or fewer, or if one of them is not known.
    """
    if setting.startswith(FAKE):
        numbers = map(str, range(int(setting.removeprefix(FAKE))))
        fakes = tuple(Gpu(f"{FAKE}{fakes_of}:{number}", number, (number,)) for number in numbers)
        return Gpus(fakes, dict)
    there = _of_nvml() or _of_nvidia_smi() or _of_rocm_smi()
    if there is None:
        raise HermesError(
            f"`gpus: {setting}`: no GPU was found on this machine",
            hint=f"`nvidia-smi` or `rocm-smi` should list them; else try `{INSTALL}`",
        )
    visible = left_visible(there.gpus, environment)
    return Gpus(selected(setting, visible, there.gpus), there.free)


def left_visible(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Those that the variables of CUDA and ROCm leave to this process, in their order."""
    visible = tuple(gpus)
    for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        if name == "ROCR_VISIBLE_DEVICES" and name in environment:
            # What comes after counts within these
            kept = _listed(environment[name], visible)
            visible = tuple(Gpu(g.id, str(i), (str(i), g.id)) for i, g in enumerate(kept))
        elif name in environment:
            return _listed(environment[name], visible)
    return visible


def _listed(text: str, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Those of a list as `CUDA_VISIBLE_DEVICES` has it, up to the first that is not there."""
    found: list[Gpu] = []
    for word in filter(None, map(str.strip, text.split(","))):
        gpu = _named(word, gpus)
        if gpu is None or gpu in found:
            break
        found.append(gpu)
    return tuple(found)


def selected(setting: str, visible: Sequence[Gpu], there: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Those that the setting names. Raises `HermesError`."""
    if setting == "all" or setting.isdigit():
        count = len(visible) if setting == "all" else int(setting)
        if not visible or count > len(visible):
            hidden = len(there) - len(visible)
            why = f", CUDA_VISIBLE_DEVICES hides {hidden} more" if hidden else ""
            raise HermesError(f"`gpus: {setting}`: the machine has {len(visible)} GPUs{why}")
        return tuple(visible[:count])
    found: list[Gpu] = []
    for name in filter(None, map(str.strip, setting.split(","))):
        gpu = _named(name, visible)
        if gpu is None:
            is_hidden = _named(name, there) is not None
            known = [each.names[0] if each.names else each.id for each in visible]
            raise HermesError(
                f"`gpus: {escape(setting)}`: there is no GPU `{escape(name)}`"
                if not is_hidden
                else f"`gpus: {escape(setting)}`: CUDA_VISIBLE_DEVICES hides `{escape(name)}`",
                hint=did_you_mean(name, known) or f"there are {', '.join(known) or 'none'}",
            )
        if gpu not in found:
            found.append(gpu)
    return tuple(found)


def _named(name: str, gpus: Iterable[Gpu]) -> Gpu | None:
    """The GPU of an index, of a UUID, or of the beginning of a UUID that no other one has."""
    each = list(gpus)
    exact = [gpu for gpu in each if name in (*gpu.names, gpu.id)]
    if not exact and not name.isdigit():
        exact = [gpu for gpu in each if gpu.id.startswith(name)]
    return exact[0] if len(exact) == 1 else None


# NVML


def _of_nvml() -> Gpus | None:
    try:
        import pynvml  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        found = list(_devices(pynvml))
    except pynvml.NVMLError:
        return None
    handles = {gpu.id: handle for gpu, handle in found}

    def free() -> Mapping[str, int]:
        memory = {}
        for id_, handle in handles.items():
            with suppress(pynvml.NVMLError):
                memory[id_] = int(pynvml.nvmlDeviceGetMemoryInfo(handle).free)
        return memory

    return Gpus(tuple(gpu for gpu, _ in found), free) if found else None


def _devices(nvml: Any) -> Iterator[tuple[Gpu, Any]]:
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        instances = list(_instances(nvml, handle))
        if instances:
            for instance in instances:
                uuid = _text(nvml.nvmlDeviceGetUUID(instance))
                yield Gpu(uuid, uuid), instance
        else:
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
            yield Gpu(uuid, str(index), (str(index),)), handle


def _instances(nvml: Any, handle: Any) -> Iterator[Any]:
    """The parts of a GPU that is divided; none if it is whole."""
    try:
        is_divided = nvml.nvmlDeviceGetMigMode(handle)[0]
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if is_divided else 0
    except nvml.NVMLError:
        return
    for number in range(count):
        with suppress(nvml.NVMLError):
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)


def _text(value: str | bytes) -> str:
    # Old versions of the library give bytes
    return value.decode() if isinstance(value, bytes) else value


# Programs

_SMI_GPU = re.compile(r"GPU (\d+): .*\(UUID: (GPU-[\w-]+)\)")
_SMI_MIG = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")


def _of_nvidia_smi() -> Gpus | None:
    listed = _output("nvidia-smi", "-L")
    gpus = listed_by_nvidia_smi(listed) if listed is not None else ()

    def free() -> Mapping[str, int]:
        words = ("--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits")
        memory = {}
        for line in (_output("nvidia-smi", *words) or "").splitlines():
            uuid, _, mebibytes = line.partition(",")
            with suppress(ValueError):
                memory[uuid.strip()] = int(mebibytes) * 2**20
        return memory

    return Gpus(gpus, free) if gpus else None


def listed_by_nvidia_smi(text: str) -> tuple[Gpu, ...]:
    """The GPUs in what `nvidia-smi -L` prints; of a divided one its instances."""
    found: list[Gpu] = []
    for line in text.splitlines():
        if whole := _SMI_GPU.match(line):
            index, uuid = whole.groups()
            found.append(Gpu(uuid, index, (index,)))
        elif instance := _SMI_MIG.match(line):
            if found and found[-1].names:
                # The GPU around it cannot be used as a whole
                found.pop()
            found.append(Gpu(instance[1], instance[1]))
    return tuple(found)


def _of_rocm_smi() -> Gpus | None:
    words = ("--showuniqueid", "--showmeminfo", "vram", "--json")
    gpus, _ = listed_by_rocm_smi(_output("rocm-smi", *words) or "")
    free = lambda: listed_by_rocm_smi(_output("rocm-smi", *words) or "")[1]  # noqa: E731
    return Gpus(gpus, free) if gpus else None


def listed_by_rocm_smi(text: str) -> tuple[tuple[Gpu, ...], dict[str, int]]:
    """The GPUs in what `rocm-smi --json` prints, and their free memory in bytes."""
    try:
        cards = json.loads(text)
    except ValueError:
        return (), {}
    found: list[Gpu] = []
    memory: dict[str, int] = {}
    for name, card in cards.items():
        index = name.removeprefix("card")
        if not index.isdigit():
            continue
        unique = str(card.get("Unique ID", "")).removeprefix("0x")
        gpu = Gpu(f"GPU-{unique}" if unique not in ("", "N/A") else name, index, (index,))
        found.append(gpu)
        with suppress(KeyError, ValueError):
            total = int(card["VRAM Total Memory (B)"])
            memory[gpu.id] = total - int(card["VRAM Total Used Memory (B)"])
    return tuple(sorted(found, key=lambda gpu: int(gpu.value))), memory


def _output(program: str, *words: str) -> str | None:
    """What a program prints; None if it is not there or fails. Raises `HermesError` if it hangs."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HermesError(f"`{program}` has not answered in {TIMEOUT:.0f} s") from None
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
