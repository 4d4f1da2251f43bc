"""What this machine offers to trainings: CPU cores, memory and GPUs."""

from __future__ import annotations

import math
import os
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bloodauto.errors import RunError

#: Memory of one worker: TensorFlow, its part of the images and a small network.
_BYTES_PER_WORKER = 2_500_000_000
_NVIDIA_SMI_TIMEOUT_SECONDS = 30
_CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """The resources of a machine.

    Attributes:
        cores: CPU cores that this process may run on.
        free_memory_bytes: memory that is available now.
        gpus: GPUs that this process may use.

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
    return Machine(available_cores(), available_memory_bytes(), count_local_gpus())


def available_cores() -> int:
    """CPU cores that this process may use, at least 1: those of its affinity, within its control groups' limit on CPU time."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count()
        cores = 1 if count is None else count
    # Half a core of a limit's fraction is worth another process; less is not.
    limits = [math.floor(quota + 0.5) for quota in _cpu_quotas()]
    return max(min([cores, *limits]), 1)


def available_memory_bytes() -> int:
    """Memory that this process may still take: the machine's free memory, within control groups and ``ulimit -v``."""
    available: list[int] = [psutil.virtual_memory().available, *_cgroup_memory_left()]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        available.append(limit - psutil.Process().memory_info().vms)
    return max(min(available), 0)


def total_memory_bytes() -> int:
    """Memory that all processes of this machine or container together may take."""
    limits: list[int] = [psutil.virtual_memory().total, *(limit for limit, _ in _cgroup_memory())]
    return min(limits)


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups that limit a controller, up to the root; of version 1 and of version 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUP_ROOT / controller if controllers else _CGROUP_ROOT
        folder = root / name.lstrip("/")
        yield root
        while folder != root and root in folder.parents:
            yield folder
            folder = folder.parent


def _numbers(path: Path) -> list[int]:
    """The whole numbers in a file of the kernel; none where it is absent or unlimited (``max``)."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []


def _cpu_quotas() -> Iterator[float]:
    """The limits on CPU time, in cores."""
    for folder in _cgroup_folders("cpu"):
        both = _numbers(folder / "cpu.max")
        quota, period = _numbers(folder / "cpu.cfs_quota_us"), _numbers(folder / "cpu.cfs_period_us")
        if len(both) == 2 and both[1] > 0:
            yield both[0] / both[1]
        elif quota and period and quota[0] > 0 and period[0] > 0:
            yield quota[0] / period[0]


def _cgroup_memory() -> Iterator[tuple[int, int]]:
    """The limits on memory with what is used of each, in bytes."""
    for folder in _cgroup_folders("memory"):
        for limit_file, usage_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, usage = _numbers(folder / limit_file), _numbers(folder / usage_file)
            if limit and usage:
                yield limit[0], usage[0]


def _cgroup_memory_left() -> Iterator[int]:
    total = psutil.virtual_memory().total
    for limit, usage in _cgroup_memory():
        # Version 1 writes a number beyond any machine's memory for "no limit".
        if limit < total:
            yield limit - usage


def count_local_gpus() -> int:
    """GPUs that the NVIDIA driver lists and ``CUDA_VISIBLE_DEVICES`` lets through; 0 without a driver."""
    try:
        listed = len(_nvidia_smi("--list-gpus"))
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(_visible_gpus(listed))


def _visible_gpus(listed: int) -> list[str]:
    """The entries of ``CUDA_VISIBLE_DEVICES`` that name a GPU, as CUDA reads it: it stops at the first that names none."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return [str(index) for index in range(listed)]
    visible: list[str] = []
    for entry in (part.strip() for part in value.split(",")):
        is_index = entry.isdecimal() and int(entry) < listed
        if not (is_index or entry.startswith(("GPU-", "MIG-"))) or entry in visible:
            break
        visible.append(entry)
    return visible


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
