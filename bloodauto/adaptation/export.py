"""Writes an adapted model with its labels, its card and the record of the adaptation."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from bloodauto.evaluation.intervals import percentile_interval
from bloodauto.evaluation.selective import DEFAULT_COVERAGE, confidence_score
from bloodauto.export.formats.keras_model import KerasExporter
from bloodauto.export.labels import labels_of
from bloodauto.export.parity import ParitySample
from bloodauto.run.artifacts import AbstentionRule, Adaptation, Difference, Labels
from bloodauto.run.directory import ExportDirectory
from bloodauto.run.files import write_text
from bloodauto.run.yaml_files import dump_yaml
from bloodauto.types import Images, Mask, Probabilities

_RESAMPLES = 2000
_PARITY_IMAGES = 32
_TAGS = ("bloodauto", "blood-cells", "microscopy", "hematology", "domain-adaptation")


def accuracy_difference(correct: Mask, reference: Mask, *, seed: int = 0) -> Difference:
    """How much more often one model is right than another on the same n images, with a paired bootstrap interval.

    Args:
        correct: bool (n,), n at least 1.
        reference: bool (n,), of the other model.
        seed: of the resampling.
    """
    difference = correct.astype(np.int64) - reference.astype(np.int64)
    n = len(difference)
    outcomes = np.array([np.sum(difference == value) for value in (-1, 0, 1)])
    drawn = np.random.default_rng([seed, 81]).multinomial(n, outcomes / n, size=_RESAMPLES)
    interval = percentile_interval((drawn[:, 2] - drawn[:, 0]) / n)
    value = float(difference.mean())
    return Difference(value=value, low=min(interval.low, value), high=max(interval.high, value))


def adapted_labels(model: keras.Model, class_names: tuple[str, ...], source_probabilities: Probabilities) -> Labels:
    """Describes the adapted model. It abstains where its entropy is above that of 95 % of the source's held-out images.

    Args:
        model: the adapted model.
        class_names: of its outputs.
        source_probabilities: what it predicts for held-out images of the source site, (m, classes).
    """
    confidence = confidence_score(source_probabilities, "entropy")
    threshold = float(np.quantile(confidence, 1 - DEFAULT_COVERAGE, method="lower"))
    return labels_of(model, class_names, AbstentionRule(confidence_score="entropy", threshold=threshold))


def write_adapted_export(
    folder: Path, model: keras.Model, labels: Labels, adaptation: Adaptation, images: Images
) -> tuple[Path, ...]:
    """Writes ``model.keras``, ``labels.json``, ``adaptation.json`` and ``README.md``, all checked before they appear.

    Args:
        folder: created if it is absent.
        model: the adapted model.
        labels: of it.
        adaptation: the record.
        images: some of them are predicted by the written file and compared with the model.

    Returns:
        The files.

    Raises:
        RunError: the written file predicts otherwise than the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sample_images = images[:_PARITY_IMAGES]
    sample = ParitySample(sample_images, model.predict_on_batch(sample_images))
    exporter = KerasExporter()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as name:
        staged = ExportDirectory(Path(name))
        exporter.write(model, labels, staged.keras_model)
        exporter.check(staged.keras_model, labels, sample)
        staged.adaptation.write(adaptation)
        staged.labels.write(labels)
        write_text(staged.model_card, render_adapted_card(labels, adaptation))
        files = tuple(path.replace(folder / path.name) for path in sorted(staged.root.iterdir()))
    # What lies there of another export belongs to another model.
    directory = ExportDirectory(folder)
    directory.ood_detector.delete()
    directory.stated_accuracy.delete()
    return files


def render_adapted_card(labels: Labels, adaptation: Adaptation) -> str:
    """The model card, Markdown with the header that the Hugging Face Hub reads."""
    header = dump_yaml(
        {
            "license": "unknown",
            "library_name": "keras",
            "pipeline_tag": "image-classification",
            "tags": list(_TAGS),
            "metrics": ["accuracy"],
        }
    )
    height_px, width_px, num_source = labels.input.height_px, labels.input.width_px, adaptation.source_images
    return (
        "\n\n".join(
            [
                f"---\n{header}---",
                "# Blood-cell classifier, adapted to a site",
                adaptation.summary(),
                "## Labelled cells of the site\n\n" + _table("cells", adaptation.cells),
                "## Figures\n\n"
                + _table(
                    "accuracy (95 % interval)",
                    {
                        "site, labelled cells, as it was": adaptation.unchanged_accuracy.text(),
                        "site, labelled cells, adapted (cross-validated)": adaptation.accuracy.text(),
                        f"source site, {num_source} images, as it was": adaptation.source_unchanged_accuracy.text(),
                        f"source site, {num_source} images, adapted": adaptation.source_accuracy.text(),
                    },
                ),
                "## How to use\n\n"
                f"RGB images as uint8, 0-255, shape (n, {height_px}, {width_px}, 3), in; "
                f"one probability for each of {', '.join(labels.classes)} out. Magnification, colours and normalisation are "
                "inside the model.\n\n" + KerasExporter().usage(labels),
                "## Limitations\n\n"
                f"The model was adapted from `{adaptation.adapted_model}` for one site; that model's card says what it was "
                "trained on. A few dozen cells do not measure rare classes. Measure it with `bloodauto evaluate` on labelled "
                "images of the site that were not used here.",
            ]
        )
        + "\n"
    )


def _table(column: str, rows: Mapping[str, object]) -> str:
    return "\n".join([f"| | {column} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
