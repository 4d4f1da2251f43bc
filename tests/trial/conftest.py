from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import pytest

from bloodauto.data.clean import clean
from bloodauto.data.split import make_splits
from bloodauto.data.synth import synthesize
from bloodauto.recipe import Recipe, parse_recipe
from bloodauto.shift.suite import ShiftSuite
from bloodauto.trial.material import Material, prepare

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(autouse=True)
def _own_precision():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="session")
def material() -> Material:
    """260 synthetic cells of 32 px: 177 to learn from, 44 to validate on."""
    cells = synthesize(260, seed=3, image_size_px=32)
    splits = make_splits(cells, clean(cells, enabled=False), seed=0)
    return prepare(cells, splits, ShiftSuite(seed=0, num_images=16), quick_images=32)


def _recipe(stages: list[dict] | None = None, **fields: object) -> Recipe:
    """A recipe of an own CNN, 4 blocks of width 16, at 32 px without augmentation and dropout, unless told otherwise."""
    value = {
        "input": {"size_px": 32},
        "backbone": {"name": "own_cnn", "weights": "none"},
        "head": {"dropout": 0.0},
        "augmentation": {"orientation": False},
        "batch_size": 16,
        "stages": stages if stages is not None else [stage()],
        **fields,
    }
    return parse_recipe(value, origin="test")


def stage(epochs: int = 2, learning_rate: float = 5e-3, **fields: object) -> dict:
    return {
        "epochs": epochs,
        "optimizer": {"name": "adam", "learning_rate": learning_rate},
        "schedule": {"name": "constant"},
        **fields,
    }


@pytest.fixture(scope="session")
def recipe_of():
    return _recipe


@pytest.fixture(scope="session")
def stage_of():
    return stage


@pytest.fixture(scope="session")
def noise():
    """uint8 (n, height, width, 3) from a seed."""
    return lambda n, height, width: np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
