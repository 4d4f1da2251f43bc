"""Measures which compilation and precision train fastest on a device; run as a program, it prints them as JSON."""

from __future__ import annotations

import sys

import keras
import numpy as np
from keras import layers

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.models.device import DeviceSettings, TrainingSpeed, claim_device

_PROBE_SIZE_PX = 96
_PROBE_BATCH = 32


def _probe_network() -> keras.Model:
    """A network with each kind of layer that backbones have, once: XLA's compile time is a part of what a probe costs."""
    inputs = keras.Input((_PROBE_SIZE_PX, _PROBE_SIZE_PX, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    x = layers.Conv2D(64, 1, strides=2, use_bias=False)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(8, dtype="float32")(x))


def _steps_per_second(*, jit_compile: bool, precision: str, seconds: float, clock: Clock) -> float:
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        network = _probe_network()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(optimizer="adam", loss=loss, jit_compile=jit_compile)
        images = np.zeros((_PROBE_BATCH, _PROBE_SIZE_PX, _PROBE_SIZE_PX, 3), dtype=np.float32)
        labels = np.zeros(_PROBE_BATCH, dtype=np.int32)
        # The first step traces and compiles.
        network.train_on_batch(images, labels)
        started, steps = clock.now(), 0
        while steps < 1 or clock.now() - started < seconds:
            network.train_on_batch(images, labels)
            steps += 1
        return steps / (clock.now() - started)
    finally:
        keras.config.set_dtype_policy(previous)


def measure_device_settings(
    *, on_gpu: bool, seconds_per_variant: float = 0.5, clock: Clock = SYSTEM_CLOCK
) -> DeviceSettings:
    """Measures a small network's training step with and without XLA, on a GPU also in half precision.

    On a CPU half precision is not tried: its kernels exist for few layers, and converting costs more than it gains.

    Args:
        on_gpu: Whether the device is a GPU.
        seconds_per_variant: How long each variant is measured, at least one step.
        clock: Tells the time.
    """
    measured = []
    for precision in ("float32", "mixed_float16") if on_gpu else ("float32",):
        for jit_compile in (False, True):
            try:
                speed = _steps_per_second(
                    jit_compile=jit_compile, precision=precision, seconds=seconds_per_variant, clock=clock
                )
            except Exception:
                # Whatever a driver or a compiler raises: a variant that does not run is not chosen.
                speed = 0.0
            measured.append(TrainingSpeed(jit_compile=jit_compile, precision=precision, steps_per_second=speed))
    keras.backend.clear_session()
    fastest = max(measured, key=lambda speed: speed.steps_per_second)
    return DeviceSettings(jit_compile=fastest.jit_compile, precision=fastest.precision, measured=tuple(measured))


if __name__ == "__main__":
    gpu = sys.argv[1] == "gpu"
    claim_device(cores=1, gpu_fraction=1.0 if gpu else 0.0)
    sys.stdout.write(measure_device_settings(on_gpu=gpu).model_dump_json() + "\n")
