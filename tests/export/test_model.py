"""Exported models are loaded safely and predict arrays."""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import FrozenInstanceError

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.data.decode import to_square
from bloodauto.errors import DataError, RunError, UserError
from bloodauto.export.ensemble_model import ExportedMember, build_ensemble_model
from bloodauto.export.formats.keras_model import KerasExporter
from bloodauto.export.labels import labels_of
from bloodauto.export.model import Predictions, load_model, write_predictions_csv
from bloodauto.export.ood import fit_ood_detector
from bloodauto.run.artifacts import AbstentionRule
from bloodauto.run.directory import ExportDirectory

NAMES = ("basophil", "eosinophil", "ig", "monocyte", "platelet")


def write_labels(folder, model, rule=None):
    ExportDirectory(folder).labels.write(labels_of(model, NAMES, rule))


@pytest.fixture
def folder(small_pair, tmp_path):
    model = build_ensemble_model([ExportedMember(small_pair[0], 1.0)])
    write_labels(tmp_path, model)
    KerasExporter().write(model, labels_of(model, NAMES), tmp_path / "model.keras")
    return tmp_path


def test_a_model_and_its_folder_load_the_same(folder, make):
    images = make.images(9, 24)
    by_file, by_folder = load_model(folder / "model.keras"), load_model(str(folder))
    assert by_file.class_names == by_folder.class_names == NAMES
    assert (by_file.height_px, by_file.width_px) == (24, 24)
    predictions = by_file.predict(images, batch_size=4)
    np.testing.assert_allclose(predictions.probabilities, by_folder.predict(images).probabilities, atol=1e-6)


def test_predictions_are_plain_arrays(folder, make):
    predictions = load_model(folder).predict(make.images(9, 24))
    assert len(predictions) == 9
    assert predictions.class_names == NAMES
    assert (predictions.probabilities.shape, predictions.probabilities.dtype) == ((9, 5), np.float32)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(predictions.labels, predictions.probabilities.argmax(axis=1))
    assert (predictions.labels.dtype, predictions.abstained.dtype) == (np.int64, bool)
    assert not predictions.abstained.any(), "a model without a rule never abstains"
    assert (predictions.ood_score.shape, predictions.ood_score.dtype) == ((9,), np.float64)
    assert np.isnan(predictions.ood_score).all(), "a model without a detector has no OOD score"
    with pytest.raises(FrozenInstanceError):
        predictions.labels = predictions.labels + 1  # type: ignore[misc]


def test_no_images_give_no_predictions(folder, make):
    predictions = load_model(folder).predict(make.images(0, 24))
    assert len(predictions) == 0
    assert predictions.probabilities.shape == (0, 5)
    assert predictions.abstained.shape == predictions.ood_score.shape == (0,)


def test_without_labels_the_classes_are_numbered(folder):
    (folder / "labels.json").unlink()
    assert load_model(folder).class_names == ("class_0", "class_1", "class_2", "class_3", "class_4")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["a", "b"]}, "expected 5 classes"),
        ({"classes": ["a", "a", "b", "c", "d"]}, "each class once"),
        ({"classes": [1, 2, 3, 4, 5]}, "classes.0: expected a valid string, got 1"),
        ({"abstention": "yes"}, "abstention"),
        ({"abstention": {"threshold": 0.5}}, "abstention.confidence_score"),
        ({"abstention": {"confidence_score": "entropie", "threshold": 0.5}}, "abstention.confidence_score"),
        ({"abstention": {"confidence_score": "entropy", "threshold": True}}, "abstention.threshold"),
    ],
)
def test_labels_that_do_not_fit_are_refused(folder, change, message):
    path = folder / "labels.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunError, match=message):
        load_model(folder)


def test_a_model_abstains_below_the_threshold_of_its_rule(folder, make):
    model = load_model(folder)
    images = make.images(12, 24)
    middle = float(np.median(model.predict(images).probabilities.max(axis=1)))
    rule = AbstentionRule(confidence_score="max_probability", threshold=middle)
    write_labels(folder, model.network, rule)
    model = load_model(folder)
    assert model.abstention_rule == rule
    predictions = model.predict(images)
    np.testing.assert_array_equal(predictions.abstained, predictions.probabilities.max(axis=1) < middle)
    assert 0 < predictions.abstained.sum() < 12


def test_images_unlike_the_training_images_are_flagged_although_their_probabilities_are_high(folder, make):
    grey = np.clip(make.images(60, 24) // 8 + 110, 0, 255).astype(np.uint8)
    model = load_model(folder)
    labels = model.predict(grey).labels
    detector, _ = fit_ood_detector(model.network, grey, labels, np.arange(40), np.arange(40, 60), seed=0)
    detector.write(folder / "ood.npz")
    both = np.concatenate([grey[40:], make.images(20, 24)])
    predictions = load_model(folder).predict(both)
    assert predictions.abstained[:20].mean() <= 0.1
    assert predictions.abstained[20:].mean() >= 0.9
    np.testing.assert_array_equal(predictions.abstained, predictions.ood_score > detector.threshold)
    # The rule for probabilities alone counts only where there is no detector.
    write_labels(folder, model.network, AbstentionRule(confidence_score="max_probability", threshold=1.1))
    np.testing.assert_array_equal(load_model(folder).predict(both).abstained, predictions.abstained)
    (folder / "ood.npz").unlink()
    assert load_model(folder).predict(both).abstained.all()


@pytest.mark.parametrize("shape", [(36, 36), (12, 30)])
def test_images_of_another_size_are_made_square_and_resized(folder, shape):
    model = load_model(folder)
    images = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    expected = model.predict(np.stack([to_square(image, 24) for image in images]))
    np.testing.assert_array_equal(model.predict(images).probabilities, expected.probabilities)


def test_a_model_of_oblong_images_names_the_size_it_takes(tmp_path):
    images = keras.Input((24, 32, 3), dtype="uint8")
    outputs = layers.Dense(2, activation="softmax")(layers.Flatten()(layers.Rescaling(1 / 255)(images)))
    keras.Model(images, outputs).save(tmp_path / "model.keras")
    model = load_model(tmp_path)
    assert len(model.predict(np.zeros((2, 24, 32, 3), np.uint8))) == 2
    with pytest.raises(DataError, match="expected images of 24 x 32 px"):
        model.predict(np.zeros((2, 24, 24, 3), np.uint8))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 24, 24, 3)), r"expected images as a uint8 array \(n, height, width, 3\), got float64"),
        (np.zeros((24, 24, 3), np.uint8), r"got uint8 \(24, 24, 3\)"),
        (np.zeros((2, 24, 24, 1), np.uint8), r"got uint8 \(2, 24, 24, 1\)"),
        ([[0]], "got list"),
    ],
)
def test_arrays_that_are_no_images_are_refused(folder, images, message):
    with pytest.raises(DataError, match=message):
        load_model(folder).predict(images)


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(UserError, match="found nothing there"):
        load_model(tmp_path / "absent.keras")
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(UserError, match=r"ending in \.keras"):
        load_model(tmp_path / "model.h5")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(UserError, match=r"text\.keras: expected a Keras model, got a damaged file"):
        load_model(tmp_path / "text.keras")
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(UserError, match="expected a Keras model that holds"):
        load_model(tmp_path / "zip.keras")


def test_a_file_with_code_in_it_is_not_executed(tmp_path):
    images = keras.Input((24, 24, 3))
    keras.Model(images, layers.Lambda(lambda x: x)(images)).save(tmp_path / "code.keras")
    with pytest.raises(UserError, match=r"(?i)lambda|unsafe|safe_mode|could not read"):
        load_model(tmp_path / "code.keras")


def test_a_detector_with_pickled_objects_is_not_executed(folder):
    np.savez(folder / "ood.npz", fields=np.array([print], dtype=object))
    with pytest.raises(RunError, match=r"ood\.npz"):
        load_model(folder)


def test_models_of_another_kind_are_refused(tmp_path, small_pair, make):
    numbers = keras.Input((7,))
    keras.Model(numbers, layers.Dense(2)(numbers)).save(tmp_path / "numbers.keras")
    with pytest.raises(RunError, match=r"expected a model of images .* got \(None, 7\)"):
        load_model(tmp_path / "numbers.keras")
    small_pair[0].save(tmp_path / "logits.keras")
    with pytest.raises(RunError, match="probabilities that sum to 1"):
        load_model(tmp_path / "logits.keras").predict(make.images(3, 24))


def _read_csv(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_csv_can_be_read_again(tmp_path):
    predictions = Predictions(
        np.array([[0.25, 0.75], [0.9, 0.1]], dtype=np.float32),
        np.array([1, 0]),
        ("label", "b"),
        np.array([True, False]),
        np.array([2.5, np.nan]),
    )
    write_predictions_csv(tmp_path / "out" / "p.csv", ["a,b.png", "ü.png"], predictions)
    first, second = _read_csv(tmp_path / "out" / "p.csv")
    assert first == {
        "name": "a,b.png",
        "label": "b",
        "probability_label": "0.250000",
        "probability_b": "0.750000",
        "abstained": "true",
        "ood_score": "2.5",
    }
    assert (second["name"], second["label"]) == ("ü.png", "label")
    assert (second["abstained"], second["ood_score"]) == ("false", "")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["p.csv"]
