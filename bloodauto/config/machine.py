"""What this machine offers to trainings: CPU cores, memory and GPUs."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

import psutil

from bloodauto.errors import RunError

#: Memory of one worker: TensorFlow, its part of the images and a small network.
_BYTES_PER_WORKER = 2_500_000_000
_NVIDIA_SMI_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Machine:
    """The resources of a machine.

    Attributes:
        cores: CPU cores that this process may run on.
        free_memory_bytes: memory that is available now.
        gpus: GPUs that the NVIDIA driver lists.

    Example:
        >>> Machine(cores=8, free_memory_bytes=64_000_000_000, gpus=0).max_workers(cpus_per_trial=2, gpus_per_trial=0)
        4
    """

    cores: int
    free_memory_bytes: int
    gpus: int

    def max_workers(self, *, cpus_per_trial: float, gpus_per_trial: float) -> int:
        """How many trainings fit at a time by cores, memory and GPUs; at least 1."""
        limits = [self.cores / cpus_per_trial, self.free_memory_bytes / _BYTES_PER_WORKER]
        if gpus_per_trial > 0:
            limits.append(self.gpus / gpus_per_trial)
        return max(int(min(limits)), 1)


def detect_machine() -> Machine:
    """Asks the operating system and the NVIDIA driver."""
    return Machine(available_cores(), psutil.virtual_memory().available, count_local_gpus())


def available_cores() -> int:
    """CPU cores that this process may run on; containers and ``taskset`` give fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    count = os.cpu_count()
    return 1 if count is None else count


def count_local_gpus() -> int:
    """GPUs that the NVIDIA driver lists; 0 without a driver."""
    try:
        return len(_nvidia_smi("--list-gpus"))
    except (OSError, subprocess.SubprocessError):
        return 0


def first_gpu_property(name: str) -> str:
    """A property of the first visible GPU.

    Args:
        name: As ``nvidia-smi --help-query-gpu`` lists it, for example ``memory.total``.

    Raises:
        RunError: The driver's tool is absent, fails, or prints nothing.
    """
    arguments = [f"--query-gpu={name}", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if visible:
        # The driver's tool lists all GPUs, also those that CUDA may not see.
        arguments.append(f"--id={visible}")
    try:
        return _nvidia_smi(*arguments)[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise RunError(f"expected nvidia-smi to print the GPU's {name}, got {error}.") from error


def _nvidia_smi(*arguments: str) -> list[str]:
    command = ["nvidia-smi", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_SECONDS, check=True
    ).stdout.splitlines()
