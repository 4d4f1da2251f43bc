"""What all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from bloodauto.config.recipe import Recipe
    from bloodauto.evaluation.fold_data import FoldData

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

# Machines that run these tests are shared: how long an example takes says nothing about the code.
settings.register_profile("bloodauto", deadline=None)
settings.load_profile("bloodauto")


@pytest.fixture(autouse=True)
def _restored_precision() -> Iterator[None]:
    """No test leaves its precision to the next one. Tests without Keras do not import it for this."""
    keras = sys.modules.get("keras")
    policy = None if keras is None else keras.config.dtype_policy()
    yield
    if policy is not None:
        sys.modules["keras"].config.set_dtype_policy(policy)


@pytest.fixture(scope="session")
def fold_data() -> FoldData:
    """260 synthetic cells of 32 px: 177 to train on, 44 to validate on."""
    from bloodauto.data.clean import clean
    from bloodauto.data.split import make_splits
    from bloodauto.data.synthetic.generator import synthesize
    from bloodauto.evaluation.fold_data import prepare_fold
    from bloodauto.shift.suite import ShiftSuite

    dataset = synthesize(260, seed=3, image_size_px=32)
    splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
    return prepare_fold(dataset, splits, ShiftSuite(seed=0, num_images=16), max_subset_images=32)


def _recipe(stages: list[dict] | None = None, **fields: object) -> Recipe:
    """A recipe of a small CNN, 4 blocks of width 16, at 32 px without augmentation and dropout, unless fields say otherwise."""
    from bloodauto.config.recipe import parse_recipe

    value = {
        "input": {"size_px": 32},
        "backbone": {"name": "own_cnn", "weights": "none"},
        "head": {"dropout": 0.0},
        "augmentation": {"orientation": False},
        "batch_size": 16,
        "stages": stages if stages is not None else [_stage()],
        **fields,
    }
    return parse_recipe(value, origin="test")


def _stage(epochs: int = 2, learning_rate: float = 5e-3, **fields: object) -> dict:
    return {
        "epochs": epochs,
        "optimizer": {"name": "adam", "learning_rate": learning_rate},
        "schedule": {"name": "constant"},
        **fields,
    }


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., Recipe]:
    return _recipe


@pytest.fixture(scope="session")
def stage_of() -> Callable[..., dict]:
    return _stage


@pytest.fixture(scope="session")
def noise() -> Callable[[int, int, int], np.ndarray]:
    """uint8 (n, height, width, 3) from a seed."""
    return lambda n, height, width: np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
