"""The held-out test set is evaluated on once, for one ensemble, and gives the external estimate."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.clock import SimulatedClock
from bloodauto.data.clean import clean
from bloodauto.data.split import HELD_OUT_TEST, make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.export import final_test
from bloodauto.export.final_test import EvaluationTime, evaluate_held_out_test, read_held_out_test
from bloodauto.run.directory import RunDirectory

SIZE_PX = 24
ENSEMBLE_ID = "0123456789ab"
NO_LIMIT = EvaluationTime()


class _CountingModel:
    """In place of the exported model: predicts by the mean colour and counts the images."""

    def __init__(self, model: keras.Model, clock: SimulatedClock, seconds_per_image: float = 0.0) -> None:
        self.model, self.clock, self.seconds_per_image, self.num_images = model, clock, seconds_per_image, 0

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        self.num_images += len(images)
        self.clock.advance(len(images) * self.seconds_per_image)
        return self.model.predict_on_batch(images)


@pytest.fixture(scope="module")
def dataset():
    return synthesize(240, seed=3, image_size_px=SIZE_PX)


@pytest.fixture(scope="module")
def splits(dataset):
    return make_splits(dataset, clean(dataset, enabled=False), seed=0)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def model(clock) -> _CountingModel:
    images = keras.Input((SIZE_PX, SIZE_PX, 3), dtype="uint8")
    x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 32)(images))
    dense = layers.Dense(8, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(seed=1))
    return _CountingModel(keras.Model(images, dense(x)), clock)


def evaluate(run, model, dataset, splits, *, seed=0, time=NO_LIMIT) -> None:
    evaluate_held_out_test(run, model, ENSEMBLE_ID, dataset, splits, seed=seed, time=time, clock=model.clock)


def test_it_does_not_begin_when_the_time_does_not_suffice(tmp_path, model, dataset, splits) -> None:
    run = RunDirectory(tmp_path)
    model.seconds_per_image = 0.01
    evaluate(run, model, dataset, splits, time=EvaluationTime(seconds=5.0))
    assert not run.held_out_test.exists
    assert model.num_images == 2 * 128, "one batch, predicted twice to measure it"
    evaluate(run, model, dataset, splits)
    assert read_held_out_test(run, ENSEMBLE_ID).images == len(splits.test_index())


def test_it_is_evaluated_once_and_read_again(tmp_path, model, dataset, splits) -> None:
    run = RunDirectory(tmp_path)
    assert read_held_out_test(run, ENSEMBLE_ID) is None
    evaluate(run, model, dataset, splits)
    num_images, written = model.num_images, run.held_out_test.path.read_bytes()
    assert num_images > len(splits.test_index())
    evaluate(run, model, dataset, splits, seed=5)
    assert model.num_images == num_images
    assert run.held_out_test.path.read_bytes() == written
    assert read_held_out_test(run, ENSEMBLE_ID).images == len(splits.test_index())


def test_it_says_nothing_of_another_ensemble(tmp_path, model, dataset, splits) -> None:
    run = RunDirectory(tmp_path)
    evaluate(run, model, dataset, splits)
    assert read_held_out_test(run, "another") is None


def test_the_external_estimate_comes_from_the_simulated_sites(tmp_path, model, dataset, splits) -> None:
    run = RunDirectory(tmp_path)
    evaluate(run, model, dataset, splits)
    test = read_held_out_test(run, ENSEMBLE_ID)
    assert len(test.simulated_sites) == test.external.simulated_sites == 96
    accuracies = [site.correct / site.images for site in test.simulated_sites]
    assert test.external.mean == pytest.approx(np.mean(accuracies), abs=0.02)
    assert test.external.low <= test.external.mean <= test.external.high
    assert {len(site.families) for site in test.simulated_sites} == set(range(3, 10))
    assert test.accuracy_low <= test.accuracy <= test.accuracy_high
    assert 0 <= test.ece_shifted <= 1


def test_spare_time_goes_into_more_sites_of_the_same_draw(tmp_path, model, dataset, splits, monkeypatch) -> None:
    monkeypatch.setattr(final_test, "_MAX_SITES", 103)
    tests = {}
    for name, time in (
        ("without limit", EvaluationTime()),
        ("with time", EvaluationTime(seconds=600.0)),
        ("reserved", EvaluationTime(seconds=600.0, reserved_seconds=700.0)),
    ):
        run = RunDirectory(tmp_path / name)
        evaluate(run, model, dataset, splits, time=time)
        tests[name] = read_held_out_test(run, ENSEMBLE_ID)
    fewer, more = tests["without limit"].simulated_sites, tests["with time"].simulated_sites
    assert (len(fewer), len(more)) == (96, 103)
    assert more[:96] == fewer
    assert tests["with time"].external.simulated_sites == 103
    assert len(tests["reserved"].simulated_sites) == 96, "what is reserved for the other formats is not used"


@pytest.mark.parametrize("seconds", [0.0, 10.0, 20.0])
def test_no_batch_of_sites_begins_that_would_end_too_late(dataset, clock, monkeypatch, seconds) -> None:
    def slow(model: object, images: np.ndarray) -> np.ndarray:
        clock.advance(len(images) / 100)
        return np.tile(np.eye(8)[:1], (len(images), 1))

    monkeypatch.setattr(final_test, "predict_batches", slow)
    images, labels = dataset.images[:4], dataset.labels[:4]
    sites = list(final_test._simulated_sites(None, labels, images, 4, seed=0, more_until=seconds, clock=clock))
    assert 96 <= len(sites) <= 400
    # Ninety-six sites take 3.84 s, a batch of them 1.28 s.
    assert clock.now() <= max(seconds, 3.84) + 1e-9
    assert clock.now() > min(seconds, 16.0) - 1.5 * 1.28 - 0.01


def test_the_same_seed_draws_the_same_sites(tmp_path, model, dataset, splits) -> None:
    contents = []
    for name in ("a", "b"):
        run = RunDirectory(tmp_path / name)
        evaluate(run, model, dataset, splits, seed=7)
        contents.append(run.held_out_test.path.read_bytes())
    assert contents[0] == contents[1]


def test_without_held_out_images_nothing_is_written(tmp_path, model, dataset, splits) -> None:
    run = RunDirectory(tmp_path)
    without_test = replace(splits, fold=np.where(splits.fold == HELD_OUT_TEST, 1, splits.fold))
    assert len(without_test.test_index()) == 0
    evaluate(run, model, dataset, without_test, time=EvaluationTime(seconds=math.inf))
    assert not run.held_out_test.exists
