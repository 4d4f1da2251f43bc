"""Writes an export: the model in the requested formats, its labels and its card, all checked before they appear."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from bloodauto.export.formats import EXPORTERS, check_formats
from bloodauto.export.model_card import CardFacts, render_card
from bloodauto.export.parity import ParitySample
from bloodauto.run.artifacts import HeldOutTest, Labels, Measured, OodDetector, StatedAccuracy
from bloodauto.run.directory import ExportDirectory
from bloodauto.run.files import write_text


@dataclass(frozen=True)
class ModelPackage:
    """What every format of an export is written from.

    Attributes:
        model: of ``build_ensemble_model``.
        labels: of the model's outputs.
        sample: what the files are compared with.
        ood_detector: written beside the model; None: ``Model`` abstains by probabilities alone.
    """

    model: keras.Model
    labels: Labels
    sample: ParitySample
    ood_detector: OodDetector | None = None


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        files: their paths.
        parity_difference: the largest difference of a probability from the search's; None where no written format
            predicts probabilities.
    """

    files: tuple[Path, ...]
    parity_difference: float | None


_STAGING_PREFIX = ".writing-"


def write_export(
    folder: Path,
    package: ModelPackage,
    facts: CardFacts,
    formats: Sequence[str],
    *,
    existing_formats: Sequence[str] = (),
) -> ExportResult:
    """Writes a model, ``labels.json``, ``README.md`` and, if there is one, the OOD detector into a folder.

    All files are first written to a hidden folder in it, compared with the predictions of the search, and then moved: a
    file that fails never replaces an existing one. ``labels.json`` comes last: where it lies, the export is complete. What a
    killed call left is deleted.

    Args:
        folder: created if it is absent.
        package: what to write.
        facts: for the model card.
        formats: names of ``formats.EXPORTERS``; may be empty where there are existing ones.
        existing_formats: those of the same model that an earlier call wrote; the card names them, too.

    Raises:
        UserError: an unknown format.
        RunError: a written file predicts otherwise than the search did.
    """
    all_formats = check_formats([*existing_formats, *formats])
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_STAGING_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    differences = []
    with tempfile.TemporaryDirectory(dir=folder, prefix=_STAGING_PREFIX) as name:
        staged = ExportDirectory(Path(name))
        for format_name in formats:
            exporter = EXPORTERS[format_name]
            path = staged.root / exporter.file_name
            exporter.write(package.model, package.labels, path)
            difference = exporter.check(path, package.labels, package.sample)
            if difference is not None:
                differences.append(difference)
        staged.labels.write(package.labels)
        if package.ood_detector is not None:
            staged.ood_detector.write(package.ood_detector)
        if facts.test is not None:
            staged.stated_accuracy.write(stated_accuracy(facts.test))
        write_text(staged.model_card, render_card(package.labels, facts, all_formats))
        ordered = sorted(staged.root.iterdir(), key=lambda path: (path == staged.labels.path, path.name))
        files = tuple(path.replace(folder / path.name) for path in ordered)
    if facts.test is None:
        # What an earlier export stated belongs to another model.
        ExportDirectory(folder).stated_accuracy.delete()
    if package.ood_detector is None:
        # A detector from an earlier export belongs to another model.
        ExportDirectory(folder).ood_detector.delete()
    return ExportResult(files, max(differences, default=None))


def stated_accuracy(test: HeldOutTest) -> StatedAccuracy:
    """What a model card states of a held-out test."""
    return StatedAccuracy(
        in_domain=Measured(value=test.accuracy, low=test.accuracy_low, high=test.accuracy_high),
        images=test.images,
        external=test.external,
    )
