"""The competition's entry point: predicts integer labels for images of blood cells.

Needs TensorFlow and numpy alone. The networks, their average and its calibration are in the TensorFlow SavedModel beside
this file (``saved_model.pb`` and ``variables/``), which, unlike a ``.keras`` file, does not depend on the version of Keras
that wrote it.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

_FOLDER = Path(__file__).resolve().parent
_BATCH_SIZE = 64


class Model:
    """The exported model.

    Attributes:
        size_px: height and width of the images that the network takes.
        label_of_output: int64 (classes,), the competition's label of each output.
        network: the SavedModel.
    """

    def __init__(self) -> None:
        labels = json.loads((_FOLDER / "labels.json").read_text(encoding="utf-8"))
        self.size_px = (labels["input"]["height_px"], labels["input"]["width_px"])
        self.label_of_output = np.array(labels["competition_labels"], dtype=np.int64)
        self.network = tf.saved_model.load(str(_FOLDER))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predicts labels.

        Args:
            X: images (n, height, width, 3), RGB, 0-255, of any number type and any size.

        Returns:
            int64, (n,).

        Raises:
            ValueError: another shape.
        """
        X = np.asarray(X)
        if X.ndim != 4 or X.shape[3] != 3:
            raise ValueError(f"expected images (n, height, width, 3), got {X.shape}")
        labels = [
            np.argmax(self.network.serve(self._network_input(X[start : start + _BATCH_SIZE])).numpy(), axis=1)
            for start in range(0, len(X), _BATCH_SIZE)
        ]
        return self.label_of_output[np.concatenate(labels)] if labels else np.zeros(0, dtype=np.int64)

    def _network_input(self, batch: np.ndarray) -> tf.Tensor:
        """uint8 images of the network's size, resized as the training images were: averaged or interpolated."""
        if batch.shape[1:3] != self.size_px:
            method = "area" if min(batch.shape[1:3]) >= min(self.size_px) else "bilinear"
            batch = tf.image.resize(batch.astype(np.float32), self.size_px, method=method).numpy()
        if batch.dtype != np.uint8:
            batch = np.clip(np.rint(batch), 0, 255).astype(np.uint8)
        return tf.constant(batch)
