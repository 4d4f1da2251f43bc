"""The device of a process: what it may use of it, and the compilation and precision that are fastest on it."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import cv2
from pydantic import Field

import bloodauto
from bloodauto.config.machine import available_cores, count_local_gpus, first_gpu_property
from bloodauto.errors import RunError
from bloodauto.models.tensorflow import START_UP_ENVIRONMENT, import_keras_quietly, import_tensorflow_quietly
from bloodauto.run.artifacts.base import Artifact, Record

#: Imports from where this process does; -P and the root folder keep modules of the user's working folder out.
_MEASURING_PROGRAM = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module('bloodauto.models.device_speed', run_name='__main__', alter_sys=True)"
)
_PACKAGE_ROOT = str(Path(bloodauto.__file__).resolve().parent.parent)
#: Fraction of a shared GPU's memory that is left to the CUDA context and cuDNN's workspaces.
_GPU_HEADROOM = 0.1


class TrainingSpeed(Record):
    """How fast a small network trains with one compilation and precision.

    Attributes:
        jit_compile: Whether XLA compiles the training step.
        precision: Keras' dtype policy.
        steps_per_second: Training steps per second; 0 when it does not run.
    """

    jit_compile: bool
    precision: str
    steps_per_second: Annotated[float, Field(ge=0)]


class DeviceSettings(Record):
    """How to train on a device.

    Attributes:
        jit_compile: Whether XLA compiles the training step.
        precision: Keras' dtype policy, for example ``float32`` or ``mixed_float16``.
        measured: The measurements that these were chosen from; none where nothing was measured.
        seconds_per_image: The quickest training that a search has seen, by network and image size.

    Example:
        >>> DeviceSettings().precision
        'float32'
    """

    jit_compile: bool = False
    precision: str = "float32"
    measured: tuple[TrainingSpeed, ...] = ()
    seconds_per_image: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class Device:
    """What a process trains on.

    Attributes:
        cores: CPU cores, at least 1.
        gpu_fraction: Of the first visible GPU, 0 to 1; 0 trains on the CPU.
        settings: Compilation and precision.

    Example:
        >>> Device(cores=4).on_gpu
        False
    """

    cores: int = 1
    gpu_fraction: float = 0.0
    settings: DeviceSettings = field(default_factory=DeviceSettings)

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU or a part of one."""
        return self.gpu_fraction > 0


class _DeviceCache(Artifact):
    """``device.json`` in the user's cache folder: the settings of each device that was measured."""

    FILE = "device.json"

    devices: dict[str, DeviceSettings]


def gpu_memory_limit_mib(gpu_fraction: float) -> int:
    """The memory in MiB that a fraction of the first visible GPU may take.

    Args:
        gpu_fraction: Of the GPU, above 0 and up to 1.

    Raises:
        RunError: The driver's tool fails, or prints no number.
    """
    text = first_gpu_property("memory.total")
    try:
        total = float(text)
    except ValueError as error:
        raise RunError(f"expected nvidia-smi to print the GPU's memory in MiB, got {text!r}.") from error
    return int(total * gpu_fraction * (1 - _GPU_HEADROOM))


def limit_native_threads(cores: int) -> None:
    """Makes OpenCV and TensorFlow use no more than the cores this process was given.

    OpenCV runs each call on its caller's thread: the batch pipeline's own threads are the parallel ones. TensorFlow's two
    pools are set to ``cores`` and 1. Call it once in each process before TensorFlow has run anything.

    Args:
        cores: At least 1.

    Raises:
        RunError: TensorFlow has already started its pools with other sizes.
    """
    tf = import_tensorflow_quietly()
    assert cores >= 1, f"expected at least one core, got {cores}"
    cv2.setNumThreads(1)
    threading = tf.config.threading
    sizes = (cores, 1)
    if (threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()) == sizes:
        return
    try:
        threading.set_intra_op_parallelism_threads(sizes[0])
        threading.set_inter_op_parallelism_threads(sizes[1])
    except RuntimeError as error:
        raise RunError(
            f"TensorFlow's threads: expected to set {cores} before TensorFlow runs, but it has already started "
            f"({error}). Call limit_native_threads first thing in the process."
        ) from error


def claim_device(*, cores: int, gpu_fraction: float) -> None:
    """Limits this process to its cores and its fraction of a GPU. Call it before TensorFlow has run anything.

    A fraction below 1 gets a fixed part of the GPU's memory, so that the processes beside it keep theirs; on a whole GPU the
    memory grows as needed. A fraction of 0 hides all GPUs.

    Args:
        cores: CPU cores, at least 1.
        gpu_fraction: Of the first visible GPU, 0 to 1.

    Raises:
        RunError: TensorFlow has already started with other threads, or the GPU's memory is unknown.
    """
    tf = import_tensorflow_quietly()
    limit_native_threads(cores)
    if gpu_fraction <= 0:
        tf.config.set_visible_devices([], "GPU")
        return
    for gpu in tf.config.list_physical_devices("GPU"):
        if gpu_fraction < 1:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=gpu_memory_limit_mib(gpu_fraction))
            tf.config.set_logical_device_configuration(gpu, [limit])
        else:
            tf.config.experimental.set_memory_growth(gpu, enable=True)


def claim_device_if_unused(*, cores: int, gpu_fraction: float) -> None:
    """Claims the device as ``claim_device`` does; a process that has used TensorFlow already keeps the settings it has.

    Args:
        cores: CPU cores, at least 1.
        gpu_fraction: Of the first visible GPU, 0 to 1.
    """
    # TensorFlow reports that it has started by a RuntimeError.
    with contextlib.suppress(RunError, RuntimeError):
        claim_device(cores=cores, gpu_fraction=gpu_fraction)


def free_networks() -> None:
    """Frees the networks of ended trainings, which Keras' global state and reference cycles keep alive."""
    import_keras_quietly().backend.clear_session()
    gc.collect()


@contextlib.contextmanager
def restored_device_state() -> Iterator[None]:
    """Restores Keras' dtype policy and OpenCV's number of threads at the end of the block.

    What TensorFlow was told about devices and threads stays: it accepts that once in a process.
    """
    keras = import_keras_quietly()
    policy, threads = keras.config.dtype_policy(), cv2.getNumThreads()
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        cv2.setNumThreads(threads)


def _cache_path() -> Path:
    """In the user's cache folder; in the temporary folder for a user without a home, as in a container."""
    cache_home = os.environ.get("XDG_CACHE_HOME", "")
    if not cache_home:
        try:
            cache_home = str(Path.home() / ".cache")
        except RuntimeError:
            cache_home = str(Path(tempfile.gettempdir()) / f"cache-of-{os.getuid()}")
    return Path(cache_home) / "bloodauto" / _DeviceCache.FILE


def _device_key(*, on_gpu: bool) -> str:
    version = importlib.metadata.version("tensorflow")
    if on_gpu:
        return f"tensorflow {version}, {first_gpu_property('name')}"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"tensorflow {version}, {model}"


def local_device(*, measure: bool = True) -> Device:
    """All cores that this process may run on, and the first GPU where there is one.

    Args:
        measure: Whether compilation and precision are measured, once per machine; otherwise they are the defaults.

    Raises:
        RunError: The measurement failed.
    """
    on_gpu = count_local_gpus() > 0
    settings = cached_device_settings(on_gpu=on_gpu) if measure else DeviceSettings()
    return Device(available_cores(), 1.0 if on_gpu else 0.0, settings)


def cached_device_settings(*, on_gpu: bool) -> DeviceSettings:
    """The settings of ``device_speed.measure_device_settings``, measured once per device and TensorFlow version.

    A process of its own measures, which leaves the caller's threads and GPU memory alone. The settings are kept in a file
    in the user's cache folder.

    Args:
        on_gpu: Whether the device is the first visible GPU; otherwise it is the CPU.

    Raises:
        RunError: The measuring process failed.
    """
    path, key = _cache_path(), _device_key(on_gpu=on_gpu)
    devices: dict[str, DeviceSettings] = {}
    # A file that cannot be read is replaced, and one that cannot be written is tried again the next time.
    with contextlib.suppress(RunError):
        devices = dict(_DeviceCache.read(path).devices)
    if key not in devices:
        command = [sys.executable, "-P", "-c", _MEASURING_PROGRAM, _PACKAGE_ROOT, "gpu" if on_gpu else "cpu"]
        environment = {**os.environ, **START_UP_ENVIRONMENT}
        process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")
        if process.returncode != 0:
            raise RunError(f"the device could not be measured: {process.stderr.strip()[-300:]}")
        devices[key] = DeviceSettings.model_validate_json(process.stdout.splitlines()[-1])
        with contextlib.suppress(OSError):
            _DeviceCache(devices=devices).write(path)
    return devices[key]


def known_seconds_per_image(*, on_gpu: bool) -> dict[str, float]:
    """The seconds that training took for an image, by network and image size, in earlier searches on this device.

    Args:
        on_gpu: Whether the device is the first visible GPU; otherwise it is the CPU.
    """
    with contextlib.suppress(RunError):
        devices = _DeviceCache.read(_cache_path()).devices
        key = _device_key(on_gpu=on_gpu)
        return dict(devices[key].seconds_per_image) if key in devices else {}
    return {}


def save_seconds_per_image(measured: Mapping[str, float], *, on_gpu: bool) -> None:
    """Keeps the quickest training of each network beside the device's settings; does nothing where these are not kept.

    Args:
        measured: Seconds for an image, by network and image size.
        on_gpu: Whether the device is the first visible GPU; otherwise it is the CPU.
    """
    with contextlib.suppress(RunError, OSError):
        path, key = _cache_path(), _device_key(on_gpu=on_gpu)
        devices = dict(_DeviceCache.read(path).devices)
        if key not in devices:
            return
        known = dict(devices[key].seconds_per_image)
        for network, seconds in measured.items():
            known[network] = min(seconds, known.get(network, seconds))
        devices[key] = devices[key].replace(seconds_per_image=known)
        _DeviceCache(devices=devices).write(path)
