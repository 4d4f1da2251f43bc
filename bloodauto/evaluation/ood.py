"""Out-of-distribution (OOD) detection: one rule of feature distance and entropy that flags images unlike the training images.

Probabilities alone do not suffice: an empty field gets a class with full confidence. Feature distances alone do not suffice
either: a cell of a type that was not trained on lies between the known types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.metrics import auroc
from bloodauto.evaluation.selective import DEFAULT_COVERAGE, confidence_score, selective_accuracy
from bloodauto.run.artifacts import FeatureSpace, OodDetector, OodEvaluation, SelectiveAccuracy, SyntheticOodResult
from bloodauto.shift.simulated_sites import draw_simulated_sites
from bloodauto.types import Floats, Images, Labels, Probabilities, Rows

_FIT_IMAGES, _HELD_OUT_IMAGES, _SYNTHETIC_OOD_IMAGES = 1024, 512, 128
#: Simulated sites, and images of each: known cells of another site are not to be flagged.
_FIT_SITES, _HELD_OUT_SITES, _IMAGES_PER_SITE = 32, 48, 8
#: Distance and entropy are divided by this quantile of images that were held out of training. It is where their tails begin: a
#: confident ensemble's entropy is close to zero for most images and large for a few.
_UNIT_QUANTILE = 0.99
#: Directions of a class's variation with a variance of their own; all other directions share one.
_PRINCIPAL_DIRECTIONS = 16
_SMALLEST_VARIANCE = 1e-12
_BATCH_SIZE = 64


@dataclass(frozen=True)
class OodModel:
    """A model whose images are to be checked.

    Attributes:
        model: uint8 images (n, height, width, 3) -> class probabilities (n, classes).
        features: The same images -> what each member's last layer gets, one output (n, d) for each member.
    """

    model: keras.Model
    features: keras.Model

    def predict(self, images: Images) -> Probabilities:
        """Class probabilities, shape (n, classes)."""
        return predict_outputs(self.model, images)[0]

    def predict_features(self, images: Images) -> list[Floats]:
        """Features of each member, shape (n, d) each."""
        return predict_outputs(self.features, images, batch_size=_BATCH_SIZE)


def class_distances(space: FeatureSpace, features: Floats) -> NDArray[np.float64]:
    """Squared Mahalanobis distance to the nearest class in units of the typical distance.

    Args:
        space: Of one network.
        features: Shape (n, d).

    Returns:
        Shape (n,).
    """
    nearest = np.full(len(features), np.inf)
    for mean in space.means:
        difference = features.astype(np.float64) - mean
        along = (difference @ space.directions) ** 2
        other = np.maximum((difference**2).sum(axis=1) - along.sum(axis=1), 0)
        nearest = np.minimum(nearest, (along / space.variances).sum(axis=1) + other / space.other_variance)
    return np.asarray(nearest / space.typical_distance)


def mean_class_distances(spaces: Sequence[FeatureSpace], features: Sequence[Floats]) -> NDArray[np.float64]:
    """Distance to the training classes, averaged over the members of a model.

    Args:
        spaces: Of each member.
        features: Of each member, shape (n, d) each.

    Returns:
        Shape (n,).
    """
    distances = [
        class_distances(space, member_features) for space, member_features in zip(spaces, features, strict=True)
    ]
    return np.asarray(np.mean(distances, axis=0))


def combined_ood_score(detector: OodDetector, distances: Floats, probabilities: Probabilities) -> NDArray[np.float64]:
    """The sum of distance and entropy, each divided by its unit; larger is less like the training images.

    Cells of a type that was not trained on are somewhat distant *and* somewhat uncertain, and so have a high sum.

    Args:
        detector: Gives the units.
        distances: Of ``mean_class_distances``, shape (n,).
        probabilities: Class probabilities of the same images, shape (n, classes).

    Returns:
        Shape (n,).
    """
    return np.asarray(distances / detector.distance_unit + _entropy(probabilities) / detector.entropy_unit)


def fit_feature_space(features: Floats, labels: Labels) -> FeatureSpace:
    """Fits class means and one covariance for all classes, which has some principal directions and one variance for the rest.

    Args:
        features: Of training images, shape (n, d).
        labels: Shape (n,).
    """
    classes, class_of = np.unique(labels, return_inverse=True)
    means = np.stack([features[class_of == number].mean(axis=0) for number in range(len(classes))])
    within_class = (features - means[class_of]).astype(np.float64)
    _, lengths, directions = np.linalg.svd(within_class / np.sqrt(len(within_class)), full_matrices=False)
    kept = min(_PRINCIPAL_DIRECTIONS, len(lengths) - 1, features.shape[1] - 1)
    variances = np.maximum(lengths**2, _SMALLEST_VARIANCE)
    other = max(float(variances[kept:].sum()) / (features.shape[1] - kept), _SMALLEST_VARIANCE)
    return FeatureSpace(
        means=means.astype(np.float32),
        directions=directions[:kept].T.astype(np.float32),
        variances=variances[:kept].astype(np.float32),
        other_variance=other,
    )


def fit_ood_detector(
    model: OodModel, images: Images, labels: Labels, train_index: Rows, held_out_index: Rows, *, seed: int
) -> tuple[OodDetector, OodEvaluation]:
    """Fits the classes' places in feature space on training images, and units and threshold on held-out images.

    After Lee et al., arXiv:1807.03888: class means and one covariance for all classes. Deviations: the distance is the mean
    over several networks and uses the last features alone; the covariance has some directions of its own and one variance for
    the rest, which needs fewer images than there are features. Some of the training images are added as simulated sites would
    show them, one for every four: more would hide empty fields, fewer would flag other sites.

    Args:
        model: The model, and its features.
        images: Shape (n, height, width, 3).
        labels: Shape (n,).
        train_index: Rows of ``images`` that the networks were trained on; at most 1,024 are used.
        held_out_index: Rows that they were not trained on; at most 512 are used.
        seed: The same seed gives the same detector.

    Returns:
        The detector, which flags 5 % of the held-out images, and what it does to them, to simulated sites and to synthetic
        images without a cell.
    """
    rng = np.random.default_rng([seed, 60])
    train_index = rng.permutation(train_index)[:_FIT_IMAGES]
    held_out_index = rng.permutation(held_out_index)[:_HELD_OUT_IMAGES]
    at_sites, site_index = _at_simulated_sites(images, train_index, _FIT_SITES, seed=int(rng.integers(2**31)))
    of_train, of_sites = model.predict_features(images[train_index]), model.predict_features(at_sites)
    of_held_out, probabilities = model.predict_features(images[held_out_index]), model.predict(images[held_out_index])
    fit_labels = labels[np.concatenate([train_index, site_index])]
    spaces = []
    for train_features, site_features, held_out_features in zip(of_train, of_sites, of_held_out, strict=True):
        space = fit_feature_space(np.concatenate([train_features, site_features]), fit_labels)
        typical = float(np.median(class_distances(space, held_out_features)))
        spaces.append(space.replace(typical_distance=typical))
    distances = mean_class_distances(spaces, of_held_out)
    distance_unit, entropy_unit = (
        max(float(np.quantile(values, _UNIT_QUANTILE)), _SMALLEST_VARIANCE)
        for values in (distances, _entropy(probabilities))
    )
    units = OodDetector(spaces=tuple(spaces), distance_unit=distance_unit, entropy_unit=entropy_unit, threshold=0.0)
    in_domain = combined_ood_score(units, distances, probabilities)
    detector = units.replace(threshold=float(np.quantile(in_domain, DEFAULT_COVERAGE)))
    correct = probabilities.argmax(axis=1) == labels[held_out_index]
    evaluation = OodEvaluation(
        in_domain=selective_accuracy(-in_domain, correct, -detector.threshold),
        external=_evaluate_sites(detector, model, images, labels, held_out_index, seed=int(rng.integers(2**31))),
        synthetic_ood=tuple(
            _evaluate_synthetic_ood(detector, model, kind, synthetic, in_domain)
            for kind, synthetic in make_synthetic_ood(images[held_out_index[:_SYNTHETIC_OOD_IMAGES]], rng).items()
        ),
    )
    return detector, evaluation


def _evaluate_sites(
    detector: OodDetector, model: OodModel, images: Images, labels: Labels, index: Rows, *, seed: int
) -> SelectiveAccuracy:
    at_sites, site_index = _at_simulated_sites(images, index, _HELD_OUT_SITES, seed=seed)
    scores, probabilities = _predict_scores(detector, model, at_sites)
    correct = probabilities.argmax(axis=1) == labels[site_index]
    return selective_accuracy(-scores, correct, -detector.threshold)


def _evaluate_synthetic_ood(
    detector: OodDetector, model: OodModel, kind: str, images: Images, in_domain: Floats
) -> SyntheticOodResult:
    scores, _ = _predict_scores(detector, model, images)
    return SyntheticOodResult(
        kind=kind,
        images=len(images),
        flagged=float((scores > detector.threshold).mean()),
        auroc=auroc(scores, in_domain),
    )


def _predict_scores(
    detector: OodDetector, model: OodModel, images: Images
) -> tuple[NDArray[np.float64], Probabilities]:
    probabilities = model.predict(images)
    distances = mean_class_distances(detector.spaces, model.predict_features(images))
    return combined_ood_score(detector, distances, probabilities), probabilities


def make_synthetic_ood(images: Images, rng: np.random.Generator) -> Mapping[str, Images]:
    """Makes images that show no cell, as many of each kind and as large as the given ones.

    The background is the least varied corner, a quarter of the side long, mirrored until it fills the frame; the pieces are
    the sixteen parts of an image in another order.

    Args:
        images: Shape (n, height, width, 3).
        rng: Orders the pieces and draws the noise.

    Returns:
        By kind, shape (n, height, width, 3) each.
    """
    height, width = images.shape[1:3]
    tall, wide = max(height // 4, 2), max(width // 4, 2)
    backgrounds, shuffled = [], []
    for image in images:
        corners = [
            image[rows, columns]
            for rows in (slice(tall), slice(-tall, None))
            for columns in (slice(wide), slice(-wide, None))
        ]
        flattest = min(corners, key=lambda corner: float(corner.std(axis=(0, 1)).sum()))
        backgrounds.append(np.pad(flattest, ((0, height - tall), (0, width - wide), (0, 0)), mode="reflect"))
        pieces = [image[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide] for y in range(4) for x in range(4)]
        copy = image.copy()
        for position, piece in enumerate(rng.permutation(16).tolist()):
            y, x = divmod(position, 4)
            copy[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide] = pieces[piece]
        shuffled.append(copy)
    return {
        "background without a cell": np.stack(backgrounds),
        "cells in pieces": np.stack(shuffled),
        "noise": rng.integers(0, 256, images.shape, dtype=np.uint8),
    }


def _entropy(probabilities: Probabilities) -> NDArray[np.float64]:
    return -confidence_score(probabilities, "entropy")


def _at_simulated_sites(images: Images, index: Rows, num_sites: int, *, seed: int) -> tuple[Images, Rows]:
    """Some images as simulated sites show them, and their rows."""
    rows = np.resize(index, (num_sites, _IMAGES_PER_SITE))
    sites = draw_simulated_sites(num_sites, seed=seed)
    rendered = [site.render(images[site_rows]) for site, site_rows in zip(sites, rows, strict=True)]
    return np.concatenate(rendered), rows.reshape(-1)
