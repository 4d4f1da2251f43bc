"""An exported ensemble of two tiny networks, and a source site and a new site whose cells differ in known ways."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.adaptation.selection import SiteCells, SourceImages
from bloodauto.export.ensemble_model import ExportedMember, TtaTransform, build_ensemble_model

SIZE_PX = 24
CLASSES = ("disc", "ring", "square")


def draw(label: int, radius: float, rng: np.random.Generator, tint: int = 0) -> np.ndarray:
    """One cell: a disc, a ring or a square of a radius in pixels."""
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] - (SIZE_PX - 1) / 2 - rng.uniform(-1, 1, (2, 1, 1))
    distance = np.maximum(abs(x), abs(y)) if label == 2 else np.hypot(x, y)
    inside = distance < radius
    if label == 1:
        inside &= distance > radius * 0.55
    image = np.full((SIZE_PX, SIZE_PX, 3), 200.0)
    image[inside] = (110, 60, 140)
    image[..., 0] -= tint
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def cells_of(count: int, *, radius: float = 6.0, tint: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    return np.stack([draw(label, radius, rng, tint) for label in labels.tolist()]), labels


def train(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    images = keras.Input((SIZE_PX, SIZE_PX, 3), dtype="uint8", name="images")
    x = layers.Rescaling(1 / 255, name="scale")(images)
    for width in (8, 16):
        x = layers.Conv2D(width, 3, strides=2, activation="relu")(x)
    x = layers.Dense(12, activation="relu")(layers.Flatten()(x))
    network = keras.Model(images, layers.Dense(3, dtype="float32", name="logits")(x))
    network.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(*cells_of(300, seed=seed), epochs=6, batch_size=32, verbose=0)
    return network


@pytest.fixture(scope="session")
def ensemble_model() -> keras.Model:
    tta = (TtaTransform("identity", 0.5), TtaTransform("flip_left_right", 0.5))
    return build_ensemble_model([ExportedMember(train(1), 0.6, tta), ExportedMember(train(2), 0.4)], temperature=1.2)


@pytest.fixture(scope="session")
def source() -> SourceImages:
    return SourceImages(*cells_of(90, seed=8), *cells_of(150, seed=9))


@pytest.fixture(scope="session")
def site_cells():
    """Makes labelled cells of a site."""

    def make(count: int, *, radius: float = 6.0, tint: int = 0, seed: int = 20) -> SiteCells:
        images, labels = cells_of(count, radius=radius, tint=tint, seed=seed)
        return SiteCells(images, labels, np.full(count, ""))

    return make
