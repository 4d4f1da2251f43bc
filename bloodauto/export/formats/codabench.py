"""The competition's format: ``submission.zip`` with ``model.py``, a class ``Model``, and the weights at its root."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from bloodauto.export.parity import ParitySample, check_labels
from bloodauto.run.artifacts import Labels as LabelsFile
from bloodauto.run.directory import SUBMISSION_FILE
from bloodauto.run.files import atomic_path
from bloodauto.types import Images, Labels

#: Files in a zip carry a date; a fixed one keeps the archive the same where its contents are.
_DATE = (2024, 1, 1, 0, 0, 0)
_SOURCE = Path(__file__).with_name("codabench_model.py")


class CodabenchExporter:
    """Writes ``submission.zip``; see ``Exporter``.

    At its root lie ``model.py``, ``labels.json`` and a TensorFlow SavedModel (``saved_model.pb``, ``variables/``). The
    SavedModel rather than a ``.keras`` file, because the version of Keras on the other side is unknown, and Keras does
    not load what a newer Keras wrote.
    """

    name = "codabench"
    file_name = SUBMISSION_FILE

    def write(self, model: keras.Model, labels: LabelsFile, path: Path) -> None:
        """Writes the archive."""
        with tempfile.TemporaryDirectory(prefix="bloodauto-submission-") as folder, atomic_path(path) as temporary:
            root = Path(folder) / "root"
            _write_saved_model(model, root)
            labels.write(root / labels.FILE)
            (root / "model.py").write_text(_SOURCE.read_text(encoding="utf-8"), encoding="utf-8")
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for file in sorted(entry for entry in root.rglob("*") if entry.is_file()):
                    entry = zipfile.ZipInfo(file.relative_to(root).as_posix(), _DATE)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.external_attr = 0o644 << 16
                    with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                        shutil.copyfileobj(source, target, 1 << 20)

    def check(self, path: Path, labels: LabelsFile, sample: ParitySample) -> None:
        """Unpacks the archive elsewhere and compares the labels of its ``Model`` with those of the search.

        The archive's ``model.py`` is executed, so this is never for an archive of somebody else.
        """
        labels_of_file = _predict_with_submission(path, sample.images)
        check_labels(path.name, labels_of_file, np.array(labels.competition_labels), sample)

    def usage(self, labels: LabelsFile) -> str:
        """What the archive is for."""
        return (
            f"`{self.file_name}` is ready for the competition: `Model().predict(X)` in its `model.py` returns integer "
            "labels for images of any size."
        )


def _write_saved_model(model: keras.Model, folder: Path) -> None:
    # Not ``model.export``: it stores every weight twice, which doubles the file and the time.
    served = tf.Module()
    served.weights = [variable.value for variable in model.variables]
    served.serve = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)],
    )
    tf.saved_model.save(served, str(folder))


def _predict_with_submission(path: Path, images: Images) -> Labels:
    """int64 (n,), of the ``Model`` of an unpacked archive."""
    with tempfile.TemporaryDirectory(prefix="bloodauto-submission-") as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        spec = importlib.util.spec_from_file_location("bloodauto_submission", Path(folder) / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        labels: Labels = module.Model().predict(images)
        return labels
