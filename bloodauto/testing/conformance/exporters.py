"""What every export format promises: one file, written atomically, that predicts as the model does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from bloodauto.errors import RunError
from bloodauto.export.formats.exporter import Exporter
from bloodauto.export.labels import labels_of
from bloodauto.export.parity import ParitySample
from bloodauto.run.artifacts import Labels

_CLASSES = ("basophil", "lymphocyte", "monocyte")
_SIZE_PX = 16
_TOLERANCE = 1e-4


def sample_model(seed: int) -> keras.Model:
    """A small model as ``build_ensemble_model`` builds them: uint8 images (n, 16, 16, 3) -> probabilities (n, 3)."""
    images = keras.Input((_SIZE_PX, _SIZE_PX, 3), dtype="uint8", name="images")
    features = layers.Flatten()(layers.Rescaling(1 / 255)(images))
    initializer = keras.initializers.RandomNormal(stddev=0.5, seed=seed)
    probabilities = layers.Dense(len(_CLASSES), activation="softmax", kernel_initializer=initializer)(features)
    return keras.Model(images, probabilities)


def _labels(model: keras.Model) -> Labels:
    return labels_of(model, _CLASSES)


def _sample(model: keras.Model) -> ParitySample:
    images = np.random.default_rng(0).integers(0, 256, (12, _SIZE_PX, _SIZE_PX, 3), dtype=np.uint8)
    return ParitySample(images, model.predict_on_batch(images), _TOLERANCE)


def check_names(exporter: Exporter, folder: Path) -> None:
    """The name fits into a list with commas; the file name has a suffix and no folder; the usage names the file."""
    assert exporter.name, "expected a name"
    assert exporter.name == exporter.name.strip().lower(), f"{exporter.name!r}: expected lower case without blanks"
    assert "," not in exporter.name, f"{exporter.name!r}: expected no comma"
    assert Path(exporter.file_name).name == exporter.file_name, f"{exporter.file_name!r}: expected no folder"
    assert Path(exporter.file_name).suffix, f"{exporter.file_name!r}: expected a suffix"
    usage = exporter.usage(_labels(sample_model(1)))
    assert exporter.file_name in usage, f"{exporter.name}: expected a usage that names {exporter.file_name}"


def check_written_file_predicts_as_the_model(exporter: Exporter, folder: Path) -> None:
    """The written file passes the format's own check; nothing else remains in the folder."""
    model, path = sample_model(1), folder / exporter.file_name
    exporter.write(model, _labels(model), path)
    assert [file.name for file in folder.iterdir()] == [exporter.file_name], "expected one file"
    difference = exporter.check(path, _labels(model), _sample(model))
    assert difference is None or 0 <= difference <= _TOLERANCE, f"{exporter.name}: differs by {difference}"


def check_another_model_is_refused(exporter: Exporter, folder: Path) -> None:
    """The format's check refuses a file that predicts otherwise than the search did, by an error that names the file."""
    model, other, path = sample_model(1), sample_model(2), folder / exporter.file_name
    exporter.write(other, _labels(other), path)
    message = ""
    try:
        exporter.check(path, _labels(model), _sample(model))
    except RunError as error:
        message = str(error)
    assert exporter.file_name in message, f"{exporter.name}: expected a RunError that names the file, got {message!r}"


def check_an_earlier_file_is_replaced(exporter: Exporter, folder: Path) -> None:
    """A second export to the same path takes the place of the first."""
    path = folder / exporter.file_name
    for seed in (1, 2):
        exporter.write(sample_model(seed), _labels(sample_model(seed)), path)
    exporter.check(path, _labels(sample_model(2)), _sample(sample_model(2)))


def check_a_failed_write_changes_nothing(exporter: Exporter, folder: Path) -> None:
    """Writing is atomic: an error leaves the folder as it was."""
    path = folder / exporter.file_name
    path.write_bytes(b"earlier")
    no_model: Any = object()
    has_failed = False
    try:
        exporter.write(no_model, _labels(sample_model(1)), path)
    except Exception:  # Each format raises what its library raises.
        has_failed = True
    assert has_failed, f"{exporter.name}: expected an error where there is no model"
    assert [file.name for file in folder.iterdir()] == [exporter.file_name], "expected no other file"
    assert path.read_bytes() == b"earlier", "expected the earlier file"


#: Every check; each takes a format and an empty folder.
EXPORTER_CHECKS: tuple[Callable[[Exporter, Path], None], ...] = (
    check_names,
    check_written_file_predicts_as_the_model,
    check_another_model_is_refused,
    check_an_earlier_file_is_replaced,
    check_a_failed_write_changes_nothing,
)
