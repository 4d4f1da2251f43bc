"""Writing an export: the model in the formats asked for, its labels and its card, checked before they appear."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from bloodauto.config.validation import did_you_mean
from bloodauto.errors import UserError
from bloodauto.export.codabench import check_submission, write_submission
from bloodauto.export.keras_model import check_parity, save_model
from bloodauto.export.labels import AbstentionRule, labels_of, write_labels
from bloodauto.export.model_card import CardFacts, render_card
from bloodauto.export.ood import OOD_FILE, OodDetector, write_ood_detector
from bloodauto.run.files import write_text

#: The file of each format.
FORMATS = {"keras": "model.keras", "codabench": "submission.zip"}


@dataclass(frozen=True)
class ParitySample:
    """Images and what the search itself answered for them.

    Attributes:
        images: uint8, (n, height, width, 3), n at least 1.
        probabilities: float, (n, c), of the weighted and calibrated ensemble.
        tolerance: see ``check_parity``.
    """

    images: np.ndarray
    probabilities: np.ndarray
    tolerance: float = 1e-4


@dataclass(frozen=True)
class ExportResult:
    """The files written, and the largest difference of a probability from the search's; None without a Keras file."""

    files: tuple[Path, ...]
    parity_difference: float | None


def check_formats(names: Sequence[str]) -> tuple[str, ...]:
    """The formats, each once, in the order given.

    Raises:
        UserError: one that is unknown; the message names the nearest. Or none at all.
    """
    for name in names:
        if name not in FORMATS:
            raise UserError(f"format: expected a known one, got {name!r}; {did_you_mean(name, FORMATS)}")
    if not names:
        raise UserError(f"format: expected at least one of {', '.join(FORMATS)}, got none.")
    return tuple(dict.fromkeys(names))


def write_export(
    folder: Path,
    model: keras.Model,
    class_names: Sequence[str],
    abstention_rule: AbstentionRule | None,
    facts: CardFacts,
    formats: Sequence[str],
    sample: ParitySample,
    *,
    written: Sequence[str] = (),
    ood_detector: OodDetector | None = None,
) -> ExportResult:
    """Writes model, ``labels.json`` (with the rule for marking images as not sure) and ``README.md`` into ``folder``.

    All files are first written to a hidden folder in it, compared with the search's answers, then moved: what does
    not pass never replaces what is there.

    Args:
        written: formats of the same model that an earlier call wrote, for the card; then there may be no others.
        familiarity: written beside the model, for ``predict``; None: it marks by probabilities alone.

    Raises:
        UserError: a format that is unknown.
        RunError: the written file answers otherwise than the search did.
    """
    wanted = check_formats([*written, *formats])
    assert len(sample.images), "parity: expected at least one image"
    labels = labels_of(model, class_names, abstention_rule)
    folder.mkdir(parents=True, exist_ok=True)
    difference = None
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as name:
        staged = Path(name)
        if "keras" in formats:
            path = staged / FORMATS["keras"]
            save_model(model, path)
            difference = check_parity(path, sample.images, sample.probabilities, sample.tolerance)
        if "codabench" in formats:
            path = staged / FORMATS["codabench"]
            write_submission(model, labels, path)
            check_submission(path, sample.images, sample.probabilities, sample.tolerance)
        write_labels(staged / "labels.json", labels)
        if ood_detector is not None:
            write_ood_detector(staged / OOD_FILE, ood_detector)
        write_text(staged / "README.md", render_card(labels, facts, wanted))
        files = tuple(path.replace(folder / path.name) for path in sorted(staged.iterdir()))
    if ood_detector is None:
        # That of a model that is no longer here.
        (folder / OOD_FILE).unlink(missing_ok=True)
    return ExportResult(files, difference)
