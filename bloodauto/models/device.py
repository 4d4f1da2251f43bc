"""The device of this process: what it may use of it, and which compilation and precision are fastest on it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from bloodauto.errors import RunError
from bloodauto.models.tensorflow import import_tensorflow_quietly
from bloodauto.run.files import read_json, write_json
from bloodauto.transforms import limit_native_threads

if TYPE_CHECKING:
    import keras

#: Share of a fractional GPU's memory left to the CUDA context and cuDNN's workspaces.
_GPU_HEADROOM = 0.1


@dataclass(frozen=True)
class TrainingSpeed:
    """Training steps a second of a small network under one setting; 0 when it does not run."""

    jit_compile: bool
    precision: str
    steps_per_second: float


@dataclass(frozen=True)
class DeviceSettings:
    """The fastest compilation and precision, and the measurements they were chosen from."""

    jit_compile: bool
    precision: str
    measured: tuple[TrainingSpeed, ...]


def _nvidia_smi(field: str) -> str:
    """One fact of the first visible GPU."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if visible:
        # The driver's tool does not look at what CUDA may see.
        command.append(f"--id={visible}")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return answer.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise RunError(f"expected nvidia-smi to tell the GPU's {field}, got {error}.") from None


def gpu_memory_limit_mib(gpu_fraction: float) -> int:
    """The memory in MiB that a share of the first visible GPU may take.

    Raises:
        RunError: the driver's tool does not answer, or not with a number.
    """
    answer = _nvidia_smi("memory.total")
    try:
        total = float(answer)
    except ValueError:
        raise RunError(f"expected nvidia-smi to tell the GPU's memory in MiB, got {answer!r}.") from None
    return int(total * gpu_fraction * (1 - _GPU_HEADROOM))


def claim_device(*, cores: int, gpu_fraction: float) -> None:
    """Limits this process to its cores and its share of a GPU. Call it before TensorFlow has run anything.

    A share below 1 gets a fixed part of the GPU's memory, so that its neighbours keep theirs; a whole GPU grows as needed.
    Not tested on GPU hardware.
    """
    import_tensorflow_quietly()
    import tensorflow as tf

    limit_native_threads(cores)
    if gpu_fraction <= 0:
        tf.config.set_visible_devices([], "GPU")
        return
    for gpu in tf.config.list_physical_devices("GPU"):
        if gpu_fraction < 1:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=gpu_memory_limit_mib(gpu_fraction))
            tf.config.set_logical_device_configuration(gpu, [limit])
        else:
            tf.config.experimental.set_memory_growth(gpu, True)


def claim_device_if_unused(*, cores: int, gpu_fraction: float) -> None:
    """As ``claim_device``; a process that has used TensorFlow already, such as a notebook's, keeps what it has."""
    # TensorFlow says that it has started by a RuntimeError.
    with contextlib.suppress(RunError, RuntimeError):
        claim_device(cores=cores, gpu_fraction=gpu_fraction)


@contextlib.contextmanager
def restored_device_state() -> Iterator[None]:
    """Restores Keras' dtype policy and OpenCV's number of threads at the end of the block.

    What TensorFlow was told about devices and threads stays: it accepts that once in a process.
    """
    import keras

    policy, threads = keras.config.dtype_policy(), cv2.getNumThreads()
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        cv2.setNumThreads(threads)


def _probe_network() -> keras.Model:
    """The kinds of layers backbones are made of, once each: XLA's compile time is a part of what a probe costs."""
    import keras
    from keras import layers

    inputs = keras.Input((96, 96, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    x = layers.Conv2D(64, 1, strides=2, use_bias=False)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(8, dtype="float32")(x))


def _measure(*, jit_compile: bool, precision: str, seconds: float) -> float:
    import keras

    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        network = _probe_network()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(optimizer="adam", loss=loss, jit_compile=jit_compile)
        images = np.zeros((32, 96, 96, 3), dtype=np.float32)
        labels = np.zeros(32, dtype=np.int32)
        network.train_on_batch(images, labels)
        started, steps = time.monotonic(), 0
        while steps < 1 or time.monotonic() - started < seconds:
            network.train_on_batch(images, labels)
            steps += 1
        return steps / (time.monotonic() - started)
    finally:
        keras.config.set_dtype_policy(previous)


def measure_device_settings(*, on_gpu: bool, seconds_per_variant: float = 0.5) -> DeviceSettings:
    """Times a small network's training step with and without XLA, on a GPU also in half precision.

    On a CPU half precision is not tried: its kernels exist for few layers, and converting costs more than it gains.
    """
    import keras

    tried = []
    for precision in ("float32", "mixed_float16") if on_gpu else ("float32",):
        for jit_compile in (False, True):
            try:
                speed = _measure(jit_compile=jit_compile, precision=precision, seconds=seconds_per_variant)
            except Exception:
                speed = 0.0
            tried.append(TrainingSpeed(jit_compile, precision, speed))
    keras.backend.clear_session()
    best = max(tried, key=lambda one: one.steps_per_second)
    return DeviceSettings(best.jit_compile, best.precision, tuple(tried))


def _cache_path() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")))
    return home / "bloodauto" / "device.json"


def _device_key(*, on_gpu: bool) -> str:
    version = importlib.metadata.version("tensorflow")
    if on_gpu:
        return f"tensorflow {version}, {_nvidia_smi('name')}"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"tensorflow {version}, {model}"


def cached_device_settings(*, on_gpu: bool) -> DeviceSettings:
    """As ``measure_device_settings``, in a process of its own, and remembered per device and TensorFlow version.

    The process of its own leaves the caller's threads and GPU memory alone; the memory is a file in the user's cache folder.

    Raises:
        RunError: the measuring process failed.
    """
    path, key = _cache_path(), _device_key(on_gpu=on_gpu)
    known: dict[str, Any] = {}
    # What cannot be read is measured again, and what cannot be kept is measured the next time.
    with contextlib.suppress(RunError, OSError):
        read = read_json(path)
        known = read if isinstance(read, dict) else {}
    if key not in known:
        command = [sys.executable, "-m", "bloodauto.models.device", "gpu" if on_gpu else "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RunError(f"the device could not be measured: {done.stderr.strip()[-300:]}")
        known[key] = json.loads(done.stdout.splitlines()[-1])
        with contextlib.suppress(OSError):
            write_json(path, known)
    saved = known[key]
    measured = tuple(TrainingSpeed(**one) for one in saved["measured"])
    return DeviceSettings(saved["jit_compile"], saved["precision"], measured)


if __name__ == "__main__":
    gpu = sys.argv[1] == "gpu"
    claim_device(cores=1, gpu_fraction=1.0 if gpu else 0.0)
    sys.stdout.write(json.dumps(asdict(measure_device_settings(on_gpu=gpu))) + "\n")
