"""A batch in parts: the same step in less memory, and what a session does when memory is short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bloodauto.config.recipe import Optimizer
from bloodauto.models.device import Device
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training import session as session_module
from bloodauto.training.fused_optimizer import FusedOptimizer
from bloodauto.training.micro_batches import MicroBatchModel
from bloodauto.training.session import TrainingSession
from bloodauto.training.trainer import TrainOptions, train_epochs


def dense_model(num_micro_batches: int, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(5, activation="relu", kernel_initializer=keras.initializers.GlorotUniform(seed=1))(
        inputs
    )
    outputs = keras.layers.Dense(3, activation="softmax", kernel_initializer=keras.initializers.GlorotUniform(seed=2))(
        hidden
    )
    model = MicroBatchModel(inputs, outputs)
    model.num_micro_batches = num_micro_batches
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", weighted_metrics=["accuracy"])
    return model


@pytest.mark.parametrize(("parts", "images", "scaled"), [(2, 8, False), (3, 10, True)])
def test_parts_give_the_weights_and_the_means_of_the_whole_batch(parts: int, images: int, scaled: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(images, 6)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, images)]
    weights = rng.uniform(0.5, 2.0, images).astype(np.float32)
    ends = []
    for count in (1, parts):
        optimizer: Any = FusedOptimizer(Optimizer(name="adamw", learning_rate=0.05, clip_norm=1.0))
        model = dense_model(count, keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer)
        for _ in range(2):
            logs = model.train_on_batch(x, y, sample_weight=weights, return_dict=True)
        ends.append((model.get_weights(), logs))
    for value, other in zip(ends[0][0], ends[1][0], strict=True):
        np.testing.assert_allclose(value, other, atol=2e-6)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-5)


def test_a_training_without_memory_is_continued_once_in_parts_and_the_session_remembers(
    fold_data: Any, recipe_of: Any, stage_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole batches fail after three of the first epoch's steps, halves fit."""
    recipe = recipe_of([stage_of(epochs=1)], backbone={"name": "own_cnn", "weights": "none", "blocks": 2, "width": 4})
    attempts: list[tuple[int, int]] = []
    original = train_epochs

    def with_little_memory(*arguments: Any, folder: Path, options: TrainOptions, **keywords: Any) -> Any:
        saved = TrainingDirectory(folder).checkpoint.read_if_exists()
        attempts.append((options.num_micro_batches, 0 if saved is None else saved.epoch_steps))
        if options.num_micro_batches == 1:
            steps: list[int] = []
            stopped = {**keywords, "should_stop": lambda: bool(steps.append(1)) or len(steps) == 3}
            yield from original(*arguments, folder=folder, options=options, **stopped)
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return (yield from original(*arguments, folder=folder, options=options, **keywords))

    monkeypatch.setattr(session_module, "train_epochs", with_little_memory)
    with TrainingSession.open(fold_data, device=Device()) as session:
        first = session.train(recipe, tmp_path / "first", seed=0)
        second = session.train(recipe, tmp_path / "second", seed=1)
    assert (first.finished, second.finished) == (True, True)
    assert attempts == [(1, 0), (2, 3), (2, 0)]


def test_a_second_lack_of_memory_ends_the_training(
    fold_data: Any, recipe_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []

    def without_memory(*arguments: Any, options: TrainOptions, **keywords: Any) -> Any:
        attempts.append(options.num_micro_batches)
        raise MemoryError
        yield

    monkeypatch.setattr(session_module, "train_epochs", without_memory)
    with TrainingSession.open(fold_data, device=Device()) as session, pytest.raises(MemoryError):
        session.train(recipe_of(), tmp_path, seed=0)
    assert attempts == [1, 2]
