"""What ``labels.json`` says."""

from __future__ import annotations

from bloodauto.data.dataset import COMPETITION_CLASSES
from bloodauto.export.labels import competition_labels, labels_of
from bloodauto.run.artifacts import AbstentionRule, Labels


def test_labels_are_the_competitions_where_the_classes_are() -> None:
    assert competition_labels(COMPETITION_CLASSES) == tuple(range(8))
    swapped = ("Eosinophil", "basophil ", *COMPETITION_CLASSES[2:])
    assert competition_labels(swapped) == (1, 0, 2, 3, 4, 5, 6, 7)
    assert competition_labels(("cat", "dog")) == (0, 1)


def test_labels_describe_the_models_images_and_are_read_as_they_were_written(make, tmp_path) -> None:
    rule = AbstentionRule(confidence_score="margin", threshold=0.25)
    labels = labels_of(make.small(classes=2), ("ring", "blast"), rule)
    assert (labels.input.height_px, labels.input.width_px) == (24, 24)
    labels.write(tmp_path / Labels.FILE)
    assert Labels.read(tmp_path / Labels.FILE) == labels
