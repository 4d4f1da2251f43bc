"""Which images a reader is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bloodauto.evaluation.prediction_pictures import PredictedImages, largest_mistakes, prediction_pictures
from bloodauto.types import Floats, Images, Labels

CLASSES = ("a", "b", "c")


def predicted_images(labels: list[int], rows: list[list[float]], abstained: tuple[int, ...]) -> PredictedImages:
    return PredictedImages(
        images=np.full((len(labels), 12, 12, 3), 120, np.uint8),
        names=np.array([f"{index}.png" for index in range(len(labels))]),
        labels=np.array(labels),
        probabilities=np.array(rows),
        abstained=np.isin(np.arange(len(labels)), abstained),
        class_names=CLASSES,
        source="some images",
    )


PREDICTED = predicted_images(
    [0, 0, 0, 1, 2, -1],
    [[0.3, 0.7, 0], [0.05, 0.9, 0.05], [0.8, 0.1, 0.1], [0.6, 0.4, 0], [0.3, 0.3, 0.4], [0, 0, 1]],
    abstained=(2, 4, 5),
)


def test_the_most_confident_mistake_of_each_pair_of_classes_comes_first() -> None:
    assert largest_mistakes(PREDICTED.labels, PREDICTED.probabilities, 10).tolist() == [1, 3, 0]
    assert largest_mistakes(PREDICTED.labels, PREDICTED.probabilities, 1).tolist() == [1]


def test_mistakes_doubts_and_marked_images_are_shown_with_the_map_of_the_predicted_class() -> None:
    requested: list[list[int]] = []

    def explain(images: Images, labels: Labels) -> Floats:
        requested.append(labels.tolist())
        return np.ones(images.shape[:3], np.float32)

    pictures = prediction_pictures(PREDICTED, explain)
    names = [
        [entry.picture.name for entry in shown]
        for shown in (pictures.confident_mistakes, pictures.uncertain_correct, pictures.abstained)
    ]
    assert names == [["1.png", "3.png", "0.png"], ["4.png", "2.png"], ["2.png", "4.png"]], "not one without a class"
    assert requested == [[1, 0, 1, 2, 0, 0, 2]]
    first = pictures.confident_mistakes[0]
    assert (first.true_class, first.predicted_class, first.probability) == ("a", "b", 0.9)
    assert first.saliency not in (None, first.picture.jpeg)
    cells = {(cell.true_index, cell.predicted_index): [p.name for p in cell.pictures] for cell in pictures.confusion}
    assert cells == {(0, 1): ["1.png", "0.png"], (0, 0): ["2.png"], (1, 0): ["3.png"], (2, 2): ["4.png"]}


def test_without_maps_and_without_mistakes() -> None:
    rows = [2, 4]
    correct = replace(
        PREDICTED,
        images=PREDICTED.images[rows],
        names=PREDICTED.names[rows],
        labels=PREDICTED.labels[rows],
        probabilities=PREDICTED.probabilities[rows],
        abstained=np.zeros(2, bool),
    )
    pictures = prediction_pictures(correct, None)
    assert (pictures.confident_mistakes, pictures.abstained) == ((), ())
    assert [entry.saliency for entry in pictures.uncertain_correct] == [None, None]


def test_many_classes_stay_within_a_report() -> None:
    classes, count = 40, 3000
    rng = np.random.default_rng(0)
    many = PredictedImages(
        images=np.zeros((count, 4, 4, 3), np.uint8),
        names=np.arange(count).astype(str),
        labels=rng.integers(0, classes, count),
        probabilities=rng.random((count, classes)),
        abstained=np.ones(count, bool),
        class_names=tuple(map(str, range(classes))),
        source="some images",
    )
    pictures = prediction_pictures(many, None)
    assert sum(len(cell.pictures) for cell in pictures.confusion) <= 256
    assert len(pictures.confident_mistakes) + len(pictures.uncertain_correct) + len(pictures.abstained) <= 48
