"""The held-out test is opened once, for one ensemble, and says what to expect elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.data.clean import clean
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.ensemble.record import Ensemble
from bloodauto.evaluation.probability_scaling import Calibration
from bloodauto.evaluation.selective import fit_abstention
from bloodauto.export import final_test as sealed_test
from bloodauto.export.final_test import evaluate_held_out_test, read_held_out_test
from bloodauto.run.directory import RunDirectory

SIZE_PX = 24


class _Counting:
    """Stands where the exported model stands, answers by the mean colour, and counts the images it was asked for."""

    def __init__(self, model: keras.Model) -> None:
        self.model, self.images = model, 0

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        self.images += len(images)
        return self.model.predict_on_batch(images)


@pytest.fixture(scope="module")
def dataset():
    return synthesize(240, seed=3, image_size_px=SIZE_PX)


@pytest.fixture(scope="module")
def splits(dataset):
    return make_splits(dataset, clean(dataset, enabled=False), seed=0)


@pytest.fixture
def model() -> _Counting:
    images = keras.Input((SIZE_PX, SIZE_PX, 3), dtype="uint8")
    x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 32)(images))
    dense = layers.Dense(8, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(seed=1))
    return _Counting(keras.Model(images, dense(x)))


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(8), 60)
    labels = rng.integers(0, 8, 60)
    return Ensemble(
        metric="shift",
        members=(),
        calibration=Calibration(1.0, None, None),
        abstention=fit_abstention(rows, labels, rows[:0], labels[:0]),
        scores={},
        best_single=("a", {}),
        trace=(),
        images=60,
        shifted_images=0,
    )


def test_it_stays_closed_when_the_time_does_not_suffice(tmp_path, model, ensemble, dataset, splits) -> None:
    run = RunDirectory(tmp_path)
    evaluate_held_out_test(run, model, ensemble, dataset, splits, seed=0, seconds=0.0)
    assert not run.held_out_test.path.exists()
    # A batch, asked twice, told that.
    assert model.images == 2 * 128
    evaluate_held_out_test(run, model, ensemble, dataset, splits, seed=0)
    assert read_held_out_test(run, ensemble)["images"] == len(splits.test_index())


def test_it_is_opened_once_and_read_again(tmp_path, model, ensemble, dataset, splits) -> None:
    run = RunDirectory(tmp_path)
    assert read_held_out_test(run, ensemble) is None
    evaluate_held_out_test(run, model, ensemble, dataset, splits, seed=0)
    asked, written = model.images, run.held_out_test.path.read_bytes()
    assert asked > len(splits.test_index())
    evaluate_held_out_test(run, model, ensemble, dataset, splits, seed=5)
    assert model.images == asked
    assert run.held_out_test.path.read_bytes() == written
    assert read_held_out_test(run, ensemble)["images"] == len(splits.test_index())


def test_it_says_nothing_of_another_ensemble(tmp_path, model, ensemble, dataset, splits) -> None:
    run = RunDirectory(tmp_path)
    evaluate_held_out_test(run, model, ensemble, dataset, splits, seed=0)
    assert read_held_out_test(run, replace(ensemble, calibration=Calibration(1.5, None, None))) is None


def test_it_says_what_to_expect_elsewhere_and_shows_the_laboratories_behind_it(
    tmp_path, model, ensemble, dataset, splits
) -> None:
    run = RunDirectory(tmp_path)
    evaluate_held_out_test(run, model, ensemble, dataset, splits, seed=0)
    test = read_held_out_test(run, ensemble)
    elsewhere, laboratories = test["external"], test["simulated_sites"]
    assert len(laboratories) == elsewhere["simulated_sites"] == 96
    accuracies = [one["correct"] / one["images"] for one in laboratories]
    assert elsewhere["mean"] == pytest.approx(np.mean(accuracies), abs=0.02)
    assert elsewhere["low"] <= elsewhere["mean"] <= elsewhere["high"]
    assert {len(one["families"]) for one in laboratories} == set(range(3, 10))
    assert test["accuracy_low"] <= test["accuracy"] <= test["accuracy_high"]
    assert 0 <= test["ece_shifted"] <= 1


def test_time_that_is_left_goes_into_more_laboratories_of_the_same_draw(
    tmp_path, model, ensemble, dataset, splits, monkeypatch
) -> None:
    monkeypatch.setattr(sealed_test, "_MAX_SITES", 103)
    found = {}
    for name, seconds, spare in (("without limit", math.inf, 0.0), ("with time", 600.0, 0.0), ("spared", 600.0, 600.0)):
        run = RunDirectory(tmp_path / name)
        evaluate_held_out_test(run, model, ensemble, dataset, splits, seed=0, seconds=seconds, reserved_seconds=spare)
        found[name] = read_held_out_test(run, ensemble)
    few, many = found["without limit"]["simulated_sites"], found["with time"]["simulated_sites"]
    assert (len(few), len(many)) == (96, 103)
    assert many[:96] == few
    assert found["with time"]["external"]["simulated_sites"] == 103
    assert len(found["spared"]["simulated_sites"]) == 96, "what is kept for the other formats is left alone"


def test_laboratories_end_when_their_time_does(model, dataset, monkeypatch) -> None:
    """A batch of them takes a second and a half at most of what is left."""
    clock = [0.0]

    def slow(model: object, images: np.ndarray) -> np.ndarray:
        clock[0] += len(images) / 100
        return np.tile(np.eye(8)[:1], (len(images), 1))

    monkeypatch.setattr(sealed_test, "predict_batches", slow)
    monkeypatch.setattr(sealed_test.time, "perf_counter", lambda: clock[0])
    few = dataset.images[:4], dataset.labels[:4]
    for seconds, most in ((0.0, 96), (10.0, 400), (20.0, 400)):
        clock[0] = 0.0
        drawn = list(sealed_test._simulated_sites(None, few[1], few[0], 4, seed=0, more_until=seconds))
        assert 96 <= len(drawn) <= most
        # Ninety-six of them take 3.84 s, a batch 1.28.
        assert clock[0] <= max(seconds, 3.84)
        assert clock[0] > min(seconds, 16.0) - 1.5 * 1.28 - 0.01


def test_the_same_seed_draws_the_same_laboratories(tmp_path, model, ensemble, dataset, splits) -> None:
    found = []
    for name in ("a", "b"):
        run = RunDirectory(tmp_path / name)
        evaluate_held_out_test(run, model, ensemble, dataset, splits, seed=7)
        found.append(run.held_out_test.path.read_bytes())
    assert found[0] == found[1]


def test_without_sealed_images_nothing_is_written(tmp_path, model, ensemble, dataset, splits) -> None:
    run = RunDirectory(tmp_path)
    whole = replace(splits, fold=np.where(splits.fold == -2, 1, splits.fold))
    assert len(whole.test_index()) == 0
    evaluate_held_out_test(run, model, ensemble, dataset, whole, seed=0)
    assert not run.held_out_test.path.exists()
