"""The competition's entry point: answers with integer labels for images of blood cells.

Needs TensorFlow and numpy alone. The network, the averaging and the calibration are in the TensorFlow SavedModel beside
this file (``saved_model.pb`` and ``variables/``), which, unlike a ``.keras`` file, does not ask for the version of Keras
that wrote it.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

_HERE = Path(__file__).resolve().parent
_BATCH_SIZE = 64


class Model:
    def __init__(self) -> None:
        facts = json.loads((_HERE / "labels.json").read_text(encoding="utf-8"))
        self.size_px = (facts["input"]["height_px"], facts["input"]["width_px"])
        self.label_of_output = np.array(facts["competition_labels"], dtype=np.int64)
        self.network = tf.saved_model.load(str(_HERE))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Images (n, height, width, 3), RGB, 0-255, any number type -> int64 labels (n,)."""
        X = np.asarray(X)
        if X.ndim != 4 or X.shape[3] != 3:
            raise ValueError(f"expected images (n, height, width, 3), got {X.shape}")
        labels = [
            np.argmax(self.network.serve(self._plain(X[start : start + _BATCH_SIZE])).numpy(), axis=1)
            for start in range(0, len(X), _BATCH_SIZE)
        ]
        return self.label_of_output[np.concatenate(labels)] if labels else np.zeros(0, dtype=np.int64)

    def _plain(self, batch: np.ndarray) -> tf.Tensor:
        """uint8 images of the network's size, resized as the training images were: averaged or interpolated."""
        if batch.shape[1:3] != self.size_px:
            how = "area" if min(batch.shape[1:3]) >= min(self.size_px) else "bilinear"
            batch = tf.image.resize(batch.astype(np.float32), self.size_px, method=how).numpy()
        if batch.dtype != np.uint8:
            batch = np.clip(np.rint(batch), 0, 255).astype(np.uint8)
        return tf.constant(batch)
