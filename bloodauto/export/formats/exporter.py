"""The interface of an export format."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import keras

from bloodauto.export.parity import ParitySample
from bloodauto.run.artifacts import Labels


class Exporter(Protocol):
    """Writes a model in one format and checks what it wrote.

    A new format is one class like this in a module of its own, and one line in ``formats.EXPORTERS``. Every format keeps
    what ``bloodauto.testing.conformance.exporters`` checks.

    Attributes:
        name: what a user writes after ``--format``.
        file_name: the file of this format in the export's folder.
    """

    name: str
    file_name: str

    def write(self, model: keras.Model, labels: Labels, path: Path) -> None:
        """Writes the model atomically.

        Args:
            model: of ``build_ensemble_model``: uint8 RGB images (n, height, width, 3) -> probabilities (n, classes).
            labels: of the same model.
            path: the file; its suffix is that of ``file_name``.
        """
        ...

    def check(self, path: Path, labels: Labels, sample: ParitySample) -> float | None:
        """Reads a written file with another program's means and compares its predictions with those of the search.

        Args:
            path: of ``write``.
            labels: those that the file was written with.
            sample: images and the predictions of the search.

        Returns:
            The largest difference of a probability; None where the format predicts labels alone.

        Raises:
            RunError: a prediction differs by more than the sample's tolerance.
        """
        ...

    def usage(self, labels: Labels) -> str:
        """How to use the file, a paragraph of Markdown for the model card."""
        ...
