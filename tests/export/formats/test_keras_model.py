"""The Keras file, beyond what every format has in common."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bloodauto.errors import RunError
from bloodauto.export.ensemble_model import ExportedMember, TtaTransform, build_ensemble_model
from bloodauto.export.formats.keras_model import KerasExporter
from bloodauto.export.labels import labels_of
from bloodauto.export.parity import ParitySample

NAMES = ("basophil", "eosinophil", "ig", "monocyte", "platelet")


def write(model: keras.Model, folder):
    path = folder / "model.keras"
    KerasExporter().write(model, labels_of(model, NAMES), path)
    return path


@pytest.mark.slow
def test_file_of_two_equal_architectures_loads_without_the_project(mobilenet_pair, tmp_path, make, run_bare):
    tta = (
        TtaTransform("identity", 0.4),
        TtaTransform("turn_270", 0.3),
        TtaTransform("rotate_left", 0.2),
        TtaTransform("brighter", 0.1),
    )
    model = build_ensemble_model([ExportedMember(network, 0.5, tta=tta) for network in mobilenet_pair], temperature=1.3)
    images = make.images(3, 96)
    path = write(model, tmp_path)
    np.save(tmp_path / "images.npy", images)
    printed = run_bare(
        "import keras, numpy as np\n"
        f"model = keras.models.load_model({str(path)!r})\n"
        "np.save('probabilities.npy', model.predict(np.load('images.npy'), verbose=0))\n"
        "print('bloodauto' in sys.modules)\n",
        tmp_path,
    )
    assert printed.split()[-1] == "False"
    probabilities = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(probabilities, model.predict(images, verbose=0), atol=1e-4)


def test_training_mode_of_the_caller_changes_nothing(small_pair, tmp_path, make):
    loaded = keras.models.load_model(write(build_ensemble_model([ExportedMember(small_pair[0], 1.0)]), tmp_path))
    images = make.images(4, 24)
    statistics = [variable.numpy().copy() for variable in loaded.weights]
    np.testing.assert_array_equal(loaded(images, training=True), loaded(images, training=False))
    for variable, value in zip(loaded.weights, statistics, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_the_check_returns_the_largest_difference_and_names_the_image(small_pair, tmp_path, make):
    model = build_ensemble_model([ExportedMember(small_pair[0], 1.0)])
    labels, path = labels_of(model, NAMES), write(model, tmp_path)
    images = make.images(6, 24)
    right = np.asarray(model.predict(images, verbose=0), np.float64)
    assert KerasExporter().check(path, labels, ParitySample(images, right)) < 1e-5
    wrong = right.copy()
    wrong[4] = np.roll(wrong[4], 1)
    largest = np.abs(wrong - right).max()
    for probabilities, message in (
        (wrong, f"image 4 differs by {largest:.3g}"),
        (right * np.nan, "differs by nan"),
        (right[:, :-1], "expected probabilities of shape"),
    ):
        with pytest.raises(RunError, match=message):
            KerasExporter().check(path, labels, ParitySample(images, probabilities))
