from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import pytest
from keras import layers

CLASSES = 5


def make_mobilenet(size_px: int = 96) -> keras.Model:
    """As the search builds networks: plain uint8 images in, normalisation inside, a nested backbone, logits out."""
    images = keras.Input((size_px, size_px, 3), dtype="uint8", name="images")
    backbone = keras.applications.MobileNet(
        alpha=0.25, weights=None, include_top=False, input_shape=(size_px, size_px, 3)
    )
    x = backbone(layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(images))
    x = layers.Dropout(0.5, name="dropout")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(images, layers.Dense(CLASSES, dtype="float32", name="logits")(x), name="network")


def make_small(size_px: int = 24, classes: int = CLASSES) -> keras.Model:
    """A network whose logits depend on positions in the image, so that a wrong transform shows."""
    images = keras.Input((size_px, size_px, 3), dtype="uint8", name="images")
    x = layers.Rescaling(1 / 255, name="scale")(images)
    x = layers.Conv2D(6, 5, strides=3, use_bias=False, name="conv")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    x = layers.Dropout(0.5, name="dropout")(layers.Flatten(name="flat")(x))
    return keras.Model(images, layers.Dense(classes, dtype="float32", name="logits")(x), name="network")


def randomise(network: keras.Model, seed: int) -> keras.Model:
    """Random weights and statistics large enough that classes differ from image to image."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        if "variance" in variable.path or "gamma" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif len(variable.shape) < 2:
            variable.assign(rng.normal(0, 0.2, variable.shape))
        else:
            fan_in = max(1, int(np.prod(variable.shape[:-1])))
            variable.assign(rng.normal(0, 2 / np.sqrt(min(fan_in, 300)), variable.shape))
    return network


def random_images(count: int, size_px: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def small_pair() -> list[keras.Model]:
    return [randomise(make_small(), seed) for seed in (1, 2)]


@pytest.fixture(scope="session")
def mobilenet_pair() -> list[keras.Model]:
    return [randomise(make_mobilenet(), seed) for seed in (3, 4)]


def _run_bare(code: str, cwd: Path) -> str:
    """Runs code isolated (-I: no PYTHONPATH, no current folder) and returns what it printed.

    An editable install would still make the project importable; the process refuses it.
    """
    forbid = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'bloodauto':\n"
        "            raise ModuleNotFoundError('bloodauto is not here')\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", forbid + code],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def run_bare() -> Callable[[str, Path], str]:
    """Runs code in a Python process that knows nothing of this project."""
    return _run_bare


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The makers of networks and images above."""
    return SimpleNamespace(
        mobilenet=make_mobilenet, small=make_small, randomise=randomise, images=random_images, classes=CLASSES
    )
