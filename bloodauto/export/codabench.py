"""The zip for the competition: ``model.py`` with a class ``Model``, and the weights, at its root."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from bloodauto.errors import RunError
from bloodauto.export.labels import Labels
from bloodauto.run.files import atomic_path

#: Files in a zip carry a date; a fixed one keeps it from changing what does not depend on it.
_DATE = (2024, 1, 1, 0, 0, 0)


def write_submission(model: keras.Model, labels: Labels, path: Path) -> None:
    """Writes the competition's zip atomically.

    At its root lie ``model.py``, ``labels.json`` and a TensorFlow SavedModel (``saved_model.pb``, ``variables/``). The
    SavedModel rather than a ``.keras`` file, because nobody can say which Keras is on the other side, and Keras
    does not load what a newer Keras wrote.

    Args:
        model: of ``build_export``.
        labels: of ``labels_of``.
        path: ends in ``.zip``.
    """
    with tempfile.TemporaryDirectory(prefix="bloodauto-submission-") as folder, atomic_path(path) as temporary:
        root = Path(folder) / "root"
        _write_saved_model(model, root)
        (root / "labels.json").write_text(json.dumps(labels.to_json(), indent=1), encoding="utf-8")
        source = Path(__file__).with_name("codabench_model.py").read_text(encoding="utf-8")
        (root / "model.py").write_text(source, encoding="utf-8")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in sorted(entry for entry in root.rglob("*") if entry.is_file()):
                entry = zipfile.ZipInfo(file.relative_to(root).as_posix(), _DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                with file.open("rb") as source_stream, archive.open(entry, "w", force_zip64=True) as stream:
                    shutil.copyfileobj(source_stream, stream, 1 << 20)


def _write_saved_model(model: keras.Model, folder: Path) -> None:
    # Not ``model.export``: it stores every weight twice, which doubles the file and the time.
    served = tf.Module()
    served.weights = [variable.value for variable in model.variables]
    served.serve = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)],
    )
    tf.saved_model.save(served, str(folder))


def check_submission(path: Path, images: np.ndarray, expected_probabilities: np.ndarray, tolerance: float) -> None:
    """Unpacks the zip elsewhere, asks its ``Model`` and compares its labels with the likeliest classes of the search.

    Args:
        path: a zip of ``write_submission``; its ``model.py`` is executed, so never one of somebody else.
        images: uint8, (n, height, width, 3).
        expected_probabilities: float, (n, c). Images whose two likeliest classes are nearer than twice the
            tolerance may fall either way and are left out.
        tolerance: of a probability, as in ``check_parity``.

    Raises:
        RunError: a label differs.
    """
    with tempfile.TemporaryDirectory(prefix="bloodauto-submission-") as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        spec = importlib.util.spec_from_file_location("bloodauto_submission", Path(folder) / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.Model()
        found = model.predict(images)
        wanted = model.label_of_output[expected_probabilities.argmax(axis=1)]
    highest = np.sort(expected_probabilities, axis=1)
    clear = highest[:, -1] - highest[:, -2] > 2 * tolerance
    wrong = np.flatnonzero(clear & (found != wanted))
    if len(wrong):
        raise RunError(
            f"{path.name}: expected the labels of the search, but {len(wrong)} of {len(images)} differ; image {wrong[0]}: "
            f"label {found[wrong[0]]} instead of {wanted[wrong[0]]}. Do not submit this file; export again."
        )
