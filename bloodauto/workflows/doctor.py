"""What a search needs of this machine, checked without TensorFlow, so that a broken installation can be told, too."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import filelock
from packaging.requirements import Requirement

from bloodauto.config.machine import available_cores, available_memory_bytes, count_local_gpus
from bloodauto.run.directory import RunDirectory

CheckState = Literal["ok", "warn", "fail"]
_MIN_PYTHON = (3, 11)
_GIGABYTE = 1_000_000_000
#: TensorFlow, the images and one small network; what two workers take.
_MIN_MEMORY_BYTES, _GOOD_MEMORY_BYTES = 2 * _GIGABYTE, 5 * _GIGABYTE
#: Checkpoints and the weights of a search of some hours.
_MIN_DISK_BYTES, _GOOD_DISK_BYTES = _GIGABYTE // 2, 5 * _GIGABYTE
#: Ray keeps the images there once for all workers; where it is too small it takes the disk.
_GOOD_SHM_BYTES = _GIGABYTE
_SHM = Path("/dev/shm")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What, in a word or two.
        state: ``ok``; ``warn``: a search works, worse or slower; ``fail``: it does not.
        finding: What was found.
        mend: The command or the step that mends it; empty where nothing is to be mended.
    """

    name: str
    state: CheckState
    finding: str
    mend: str = ""


def guarded(name: str, check: Callable[[], Check], mend: str = "") -> Check:
    """The check, or a failed one where it raises: a report on a broken machine has to be complete.

    Args:
        name: What is checked.
        check: Does it.
        mend: What to do where it raises.
    """
    try:
        return check()
    except Exception as error:
        lines = str(error).splitlines()
        return Check(name, "fail", f"{type(error).__name__}: {lines[0] if lines else 'no message'}", mend)


def machine_checks(folder: Path) -> Iterator[Check]:
    """Python, packages, devices, memory, shared memory and disk.

    Args:
        folder: Where runs are to be written; nothing that is written there stays.

    Yields:
        Checks, each as soon as it is done.
    """
    yield _python()
    yield guarded("packages", _packages, "pip install -c constraints.txt .")
    yield guarded("devices", _devices)
    yield guarded("memory", _memory)
    yield guarded("/dev/shm", _shared_memory, "Mount a tmpfs there, or give the container --shm-size 4g.")
    yield guarded("disk", lambda: _disk(folder), f"Choose another folder: --folder DIR instead of {folder}.")
    yield guarded("storage", lambda: _sqlite(folder), "Choose a folder on a local disk: --folder DIR.")


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < _MIN_PYTHON:
        needed = ".".join(str(part) for part in _MIN_PYTHON)
        return Check("Python", "fail", version, f"Install Python {needed} or later and make a new environment.")
    return Check("Python", "ok", f"{version} in {sys.prefix}")


def _packages() -> Check:
    """Whether every package that the installed version asks for is there in a version that it allows."""
    try:
        declared = metadata.requires("bloodauto")
    except metadata.PackageNotFoundError:
        return Check(
            "packages", "warn", "bloodauto is not installed, only importable", "pip install -c constraints.txt ."
        )
    wrong, count = [], 0
    for requirement in map(Requirement, declared if declared is not None else []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append((requirement, "absent"))
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append((requirement, installed))
    if wrong:
        finding = ", ".join(f"{requirement.name} {installed}" for requirement, installed in wrong)
        needed = " ".join(f"'{requirement.name}{requirement.specifier}'" for requirement, _ in wrong)
        return Check("packages", "fail", finding, f"pip install {needed}")
    return Check("packages", "ok", f"bloodauto {metadata.version('bloodauto')} and {count} packages")


def _devices() -> Check:
    cores, gpus = available_cores(), count_local_gpus()
    finding = f"{cores} CPU core{'s' if cores > 1 else ''}, {gpus} GPU{'' if gpus == 1 else 's'}"
    if cores == 1:
        mend = "Give the process more cores (docker run --cpus, taskset); with one, a worker and the search share it."
        return Check("devices", "warn", finding, mend)
    return Check("devices", "ok", finding)


def _memory() -> Check:
    free = available_memory_bytes()
    finding = f"{free / _GIGABYTE:.1f} GB free"
    if free < _MIN_MEMORY_BYTES:
        return Check(
            "memory", "fail", finding, "Close other programs, or raise the container's limit (docker run --memory)."
        )
    if free < _GOOD_MEMORY_BYTES:
        return Check("memory", "warn", f"{finding}: room for one worker", "Pass --workers 1, or free memory for more.")
    return Check("memory", "ok", finding)


def _shared_memory() -> Check:
    if not os.access(_SHM, os.W_OK):
        return Check("/dev/shm", "warn", "not writable: images are shared on disk", "docker run --shm-size 4g")
    free = shutil.disk_usage(_SHM).free
    finding = f"{free / _GIGABYTE:.1f} GB free"
    if free < _GOOD_SHM_BYTES:
        return Check("/dev/shm", "warn", f"{finding}: large data is shared on disk", "docker run --shm-size 4g")
    return Check("/dev/shm", "ok", finding)


def _existing_parent(folder: Path) -> Path:
    """The folder itself, or where it would be made."""
    folder = folder.resolve()
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())


def _disk(folder: Path) -> Check:
    existing = _existing_parent(folder)
    with tempfile.NamedTemporaryFile(dir=existing, prefix=".bloodauto-"):
        free = shutil.disk_usage(existing).free
    finding = f"{free / _GIGABYTE:.1f} GB free in {existing}"
    if free < _MIN_DISK_BYTES:
        return Check("disk", "fail", finding, f"Make room there, or choose another folder than {folder.resolve()}.")
    if free < _GOOD_DISK_BYTES:
        return Check("disk", "warn", f"{finding}: enough for a short search", "Make room before a long one.")
    return Check("disk", "ok", finding)


def _sqlite(folder: Path) -> Check:
    """Whether a study and a lock work there: on some network file systems neither does."""
    existing = _existing_parent(folder)
    with tempfile.TemporaryDirectory(dir=existing, prefix=".bloodauto-") as location:
        with closing(sqlite3.connect(RunDirectory(Path(location)).study, timeout=5)) as database:
            database.execute("CREATE TABLE trials (number INTEGER)")
            database.execute("INSERT INTO trials VALUES (1)")
            database.commit()
        with filelock.FileLock(Path(location) / ".lock", timeout=5):
            pass
    return Check("storage", "ok", f"SQLite {sqlite3.sqlite_version} and locks work in {existing}")
