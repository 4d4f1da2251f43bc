import csv
import json
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.errors import DataError, RunError, UserError
from bloodauto.export.keras_model import Member, build_export, save_model
from bloodauto.export.labels import AbstentionRule, labels_of, write_labels
from bloodauto.export.ood import fit_ood_detector, write_ood_detector
from bloodauto.export.predict import open_model, predict_images, which_are_confident, write_predictions_csv

NAMES = ("basophil", "eosinophil", "ig", "monocyte", "platelet")


@pytest.fixture
def folder(small_pair, tmp_path):
    model = build_export([Member(small_pair[0], 1.0)])
    save_model(model, tmp_path / "model.keras")
    write_labels(tmp_path / "labels.json", labels_of(model, NAMES))
    return tmp_path


def test_a_model_and_its_folder_open_the_same(folder, make):
    images = make.images(9, 24)
    by_file, by_folder = open_model(folder / "model.keras"), open_model(folder)
    assert by_file.class_names == by_folder.class_names == NAMES
    assert (by_file.height_px, by_file.width_px) == (24, 24)
    found = predict_images(by_file, images, batch_size=4)
    np.testing.assert_allclose(found, predict_images(by_folder, images), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert predict_images(by_file, images[:0]).shape == (0, 5)


def test_without_labels_the_classes_are_numbered(folder):
    (folder / "labels.json").unlink()
    assert open_model(folder).class_names == ("class_0", "class_1", "class_2", "class_3", "class_4")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"classes": ["a", "b"]}, "expected 5 classes"),
        ({"classes": ["a", "a", "b", "c", "d"]}, "each class once"),
        ({"classes": [1, 2, 3, 4, 5]}, "basophil"),
        (["a"], "basophil"),
    ],
)
def test_labels_that_do_not_fit_are_refused(folder, content, message):
    (folder / "labels.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=message):
        open_model(folder)


@pytest.mark.parametrize(
    "rule",
    [
        "yes",
        {"threshold": 0.5},
        {"confidence_score": "entropie", "threshold": 0.5},
        {"confidence_score": "entropy", "threshold": True},
        [],
    ],
)
def test_a_rule_that_is_none_is_refused(folder, rule):
    (folder / "labels.json").write_text(json.dumps({"classes": list(NAMES), "abstention": rule}))
    with pytest.raises(RunError, match="abstention"):
        open_model(folder)


def test_a_model_brings_its_rule_and_images_below_it_are_marked(folder, make, tmp_path):
    model = keras.saving.load_model(folder / "model.keras")
    images = make.images(12, 24)
    probabilities = model.predict(images, verbose=0)
    middle = float(np.median(probabilities.max(axis=1)))
    write_labels(folder / "labels.json", labels_of(model, NAMES, AbstentionRule("max_probability", middle)))
    opened = open_model(folder)
    assert opened.abstention_rule == AbstentionRule("max_probability", middle)
    sure = which_are_confident(opened, images, probabilities)
    write_predictions_csv(tmp_path / "p.csv", [str(i) for i in range(12)], NAMES, probabilities, sure)
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["name", "label", *(f"probability_{name}" for name in NAMES), "confident"]
    marked = np.array([row["confident"] == "no" for row in rows])
    np.testing.assert_array_equal(marked, probabilities.max(axis=1) < middle)
    assert 0 < marked.sum() < 12


def test_images_unlike_the_trained_ones_are_marked_although_their_probabilities_are_sure(folder, make):
    grey = np.clip(make.images(60, 24) // 8 + 110, 0, 255).astype(np.uint8)
    opened = open_model(folder)
    assert which_are_confident(opened, grey, predict_images(opened, grey)) is None
    labels = predict_images(opened, grey).argmax(axis=1)
    rule, _ = fit_ood_detector(opened.network, grey, labels, np.arange(40), np.arange(40, 60), seed=0)
    write_ood_detector(folder / "ood.npz", rule)
    opened = open_model(folder)
    both = np.concatenate([grey[40:], make.images(20, 24)])
    sure = which_are_confident(opened, both, predict_images(opened, both))
    assert sure[:20].mean() >= 0.9
    assert sure[20:].mean() <= 0.1
    # Without it, the line for probabilities alone counts.
    write_labels(folder / "labels.json", labels_of(opened.network, NAMES, AbstentionRule("max_probability", 1.1)))
    opened = open_model(folder)
    np.testing.assert_array_equal(which_are_confident(opened, both, predict_images(opened, both)), sure)
    (folder / "ood.npz").unlink()
    opened = open_model(folder)
    assert not which_are_confident(opened, both, predict_images(opened, both)).any()


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(UserError, match="found nothing there"):
        open_model(tmp_path / "absent.keras")
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(UserError, match=r"ending in \.keras"):
        open_model(tmp_path / "model.h5")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(UserError, match=r"text\.keras: expected a Keras model, could not read it"):
        open_model(tmp_path / "text.keras")
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(UserError, match="expected a Keras model, could not read it"):
        open_model(tmp_path / "zip.keras")


def test_a_file_with_code_in_it_is_not_executed(tmp_path):
    images = keras.Input((24, 24, 3))
    keras.Model(images, layers.Lambda(lambda x: x)(images)).save(tmp_path / "code.keras")
    with pytest.raises(UserError, match=r"(?i)lambda|unsafe|safe_mode|could not read"):
        open_model(tmp_path / "code.keras")


def test_models_of_another_kind_are_refused(tmp_path, small_pair, make):
    numbers = keras.Input((7,))
    keras.Model(numbers, layers.Dense(2)(numbers)).save(tmp_path / "numbers.keras")
    with pytest.raises(RunError, match=r"expected a model of images .* got \(None, 7\)"):
        open_model(tmp_path / "numbers.keras")
    small_pair[0].save(tmp_path / "logits.keras")
    with pytest.raises(RunError, match="probabilities that sum to 1"):
        predict_images(open_model(tmp_path / "logits.keras"), make.images(3, 24))


def test_images_that_do_not_fit_are_refused(folder, make):
    model = open_model(folder)
    for images in (make.images(2, 32), make.images(2, 24) / 255):
        with pytest.raises(DataError, match=r"expected uint8 images \(n, 24, 24, 3\)"):
            predict_images(model, images)


def test_csv_can_be_read_again(tmp_path):
    probabilities = np.array([[0.25, 0.75], [0.9, 0.1]], dtype=np.float32)
    write_predictions_csv(tmp_path / "out" / "p.csv", ["a,b.png", "ü.png"], ["label", "b"], probabilities)
    with (tmp_path / "out" / "p.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {
        "name": "a,b.png",
        "label": "b",
        "probability_label": "0.250000",
        "probability_b": "0.750000",
        "confident": "",
    }
    assert rows[1]["name"] == "ü.png"
    assert rows[1]["label"] == "label"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["p.csv"]
