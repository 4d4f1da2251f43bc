"""``labels.json``: what the outputs of an exported model mean and what it wants to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from bloodauto.data.dataset import COMPETITION_CLASSES
from bloodauto.errors import RunError
from bloodauto.evaluation.selective import CONFIDENCE_SCORES, ConfidenceScore
from bloodauto.run.files import read_json, write_json


@dataclass(frozen=True)
class AbstentionRule:
    """When an image is marked "not sure, or none of these cells": its confidence is below a threshold.

    See ``ensemble.abstention.sureness`` for the measures.
    """

    confidence_score: ConfidenceScore
    threshold: float


@dataclass(frozen=True)
class Labels:
    """The classes in the order of the outputs, the size of the images in pixels, and when an answer is not sure."""

    class_names: tuple[str, ...]
    height_px: int
    width_px: int
    abstention_rule: AbstentionRule | None = None

    def to_json(self) -> dict[str, Any]:
        """What ``labels.json`` holds."""
        return {
            "classes": list(self.class_names),
            "input": {
                "height_px": self.height_px,
                "width_px": self.width_px,
                "channels": "RGB",
                "dtype": "uint8",
                "lowest": 0,
                "highest": 255,
            },
            "competition_labels": list(competition_labels(self.class_names)),
            "abstention": None if self.abstention_rule is None else asdict(self.abstention_rule),
        }


def labels_of(model: keras.Model, class_names: Sequence[str], abstention_rule: AbstentionRule | None = None) -> Labels:
    """The labels of a model of ``build_export``."""
    _, height_px, width_px, _ = model.input_shape
    classes = model.output_shape[-1]
    assert len(class_names) == classes, f"expected {classes} class names, got {len(class_names)}"
    return Labels(tuple(class_names), height_px, width_px, abstention_rule)


def competition_labels(class_names: Sequence[str]) -> tuple[int, ...]:
    """The competition's label of each output.

    Where the classes are the competition's eight, in whatever order and case, these are its numbers; otherwise the
    outputs are numbered as they come.
    """
    names = [name.strip().lower() for name in class_names]
    if sorted(names) == sorted(COMPETITION_CLASSES):
        return tuple(COMPETITION_CLASSES.index(name) for name in names)
    return tuple(range(len(names)))


def write_labels(path: Path, labels: Labels) -> None:
    """Writes ``labels.json`` atomically."""
    write_json(path, labels.to_json())


def read_class_names(path: Path) -> tuple[str, ...]:
    """The classes in a ``labels.json``.

    Raises:
        RunError: it is no JSON, or has no list of unique names under ``classes``.
    """
    value = read_json(path)
    classes = value.get("classes") if isinstance(value, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise RunError(
            f'{path}: expected {{"classes": ["basophil", ...]}}, got {str(classes)[:80]!r} there. Restore the file, or '
            "remove it to have the classes numbered."
        )
    if len(set(classes)) != len(classes):
        raise RunError(f"{path}: expected each class once, got {classes}. Mend the list.")
    return tuple(classes)


def read_abstention_rule(path: Path) -> AbstentionRule | None:
    """The rule in a ``labels.json``; None where it has none.

    Raises:
        RunError: it is no JSON, or its ``abstention`` is no such rule.
    """
    value = read_json(path)
    rule = value.get("abstention") if isinstance(value, dict) else None
    if rule is None:
        return None
    threshold = rule.get("threshold") if isinstance(rule, dict) else None
    if (
        not isinstance(threshold, int | float)
        or isinstance(threshold, bool)
        or rule.get("confidence_score") not in CONFIDENCE_SCORES
    ):
        raise RunError(
            f'{path}: expected {{"not_sure": {{"confidence_score": one of {", ".join(CONFIDENCE_SCORES)}, "threshold": a number}}}}, got '
            f"{str(rule)[:80]!r} there. Restore the file, or remove abstention to have no image marked."
        )
    return AbstentionRule(rule["confidence_score"], float(threshold))
