"""The Keras format: ``model.keras``, which loads with Keras alone."""

from __future__ import annotations

from pathlib import Path

import keras

from bloodauto.export.model_file import drop_newer_arguments
from bloodauto.export.parity import ParitySample, check_probabilities
from bloodauto.run.artifacts import Labels
from bloodauto.run.directory import KERAS_MODEL_FILE
from bloodauto.run.files import atomic_path


class KerasExporter:
    """Writes ``model.keras``; see ``Exporter``."""

    name = "keras"
    file_name = KERAS_MODEL_FILE

    def write(self, model: keras.Model, labels: Labels, path: Path) -> None:
        """Writes the model without an optimizer; the class names are in ``labels.json`` beside it."""
        assert path.suffix == ".keras", f"expected a path ending in .keras, got {path}"
        with atomic_path(path) as temporary:
            model.save(temporary, include_optimizer=False)
            drop_newer_arguments(temporary)

    def check(self, path: Path, labels: Labels, sample: ParitySample) -> float:
        """Loads the file in Keras' safe mode and compares its probabilities with those of the search."""
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        probabilities = model.predict(sample.images, batch_size=64, verbose=0)
        return check_probabilities(path.name, probabilities, sample)

    def usage(self, labels: Labels) -> str:
        """Python code that loads the file and predicts."""
        return (
            "```python\n"
            "import keras, numpy as np\n"
            f'model = keras.models.load_model("{self.file_name}")\n'
            f'images = np.zeros((1, {labels.input.height_px}, {labels.input.width_px}, 3), dtype="uint8")  # your images\n'
            "print(model.predict(images))\n"
            "```\n"
            f"`{self.file_name}` needs Keras 3.12 or later with TensorFlow, nothing of the project that wrote it."
        )
