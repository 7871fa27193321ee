"""What tells the processes of a job which GPUs are theirs, and tells others that they still are."""

from __future__ import annotations

CLAIM = "HERMES_GPU_CLAIM"
"""The variable that names, in every process of a job, the claim to its GPUs."""


def claim_name(run_id: str, key: str, attempt: int) -> str:
    """That of one start of a job: the same when another runner takes the job up."""
    return f"{run_id}/{key}/{attempt}"


def gpu_variables(gpus: tuple[str, ...], claim: str) -> dict[bytes, bytes]:
    """The environment of a job that gets these GPUs, as CUDA_VISIBLE_DEVICES calls them."""
    value = ",".join(gpus).encode()
    return {
        b"CUDA_VISIBLE_DEVICES": value,
        b"HIP_VISIBLE_DEVICES": value,
        # The order of the indices: by default CUDA counts the fastest first
        b"CUDA_DEVICE_ORDER": b"PCI_BUS_ID",
        CLAIM.encode(): claim.encode(),
    }
