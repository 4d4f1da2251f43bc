"""Detects out-of-distribution (OOD) images by the distance of their features and the entropy of their probabilities.

Probabilities alone do not suffice: an empty field looks like nothing else and still gets a class with a high probability.
Distances in the networks' feature spaces alone do not either: a cell of a type that was never shown lies between the known
ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from bloodauto.errors import RunError
from bloodauto.evaluation import selective
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.metrics import auroc
from bloodauto.evaluation.selective import DEFAULT_COVERAGE, confidence_score, selective_accuracy
from bloodauto.run.artifacts import (
    FeatureSpace,
    OodDetector,
    OodEvaluation,
    RiskCoverage,
    SelectiveAccuracy,
    SyntheticOodResult,
)
from bloodauto.shift.simulated_sites import draw_simulated_sites
from bloodauto.types import Floats, Images, Labels, Probabilities, Rows, Scores

_FIT_IMAGES, _HELD_OUT_IMAGES, _SYNTHETIC_OOD_IMAGES = 1024, 512, 128
#: Simulated sites, and images of each: known cells of another site must not look out of distribution.
_FIT_SITES, _HELD_OUT_SITES, _IMAGES_PER_SITE = 32, 48, 8
#: The unit of both measures is this quantile of images that were not trained on. It lies where their tails begin: a confident
#: ensemble's entropy is close to 0 for most images and large for some.
_UNIT_QUANTILE = 0.99
#: Directions of variation within a class that have a variance of their own; all others share one.
_PRINCIPAL_DIRECTIONS = 16
_SMALLEST_VARIANCE = 1e-12
_BATCH_SIZE = 64


def ood_score(detector: OodDetector, model: keras.Model, images: Images, probabilities: Probabilities) -> Scores:
    """Scores images by distance and entropy, each divided by its unit, added.

    An image that is somewhat distant and somewhat uncertain has a high score, too, as cells of unknown types do.

    Args:
        detector: of this model.
        model: of ``build_ensemble_model``.
        images: uint8, (n, height, width, 3).
        probabilities: float, (n, classes), of the model for these images.

    Returns:
        float64, (n,); images above ``detector.threshold`` are flagged.

    Raises:
        RunError: the detector belongs to another model.
    """
    return _scores(detector, mean_distances(detector, model, images), _entropy(probabilities))


def mean_distances(detector: OodDetector, model: keras.Model, images: Images) -> Scores:
    """Distance of images to the nearest class, a mean over the members of a model.

    Args:
        detector: of this model.
        model: of ``build_ensemble_model``.
        images: uint8, (n, height, width, 3).

    Returns:
        float64, (n,), in units of the typical distance of images that were not trained on.

    Raises:
        RunError: the detector belongs to another model.
    """
    network = _feature_network(model)
    of_model = [output.shape[-1] for output in network.outputs]
    of_detector = [space.means.shape[1] for space in detector.spaces]
    if of_model != of_detector:
        raise RunError(
            f"{OodDetector.FILE}: expected features of {of_model} numbers, as this model's members have, got {of_detector}. "
            "The two files do not belong together; export again."
        )
    return _mean_distances(detector.spaces, _features(network, images))


def distances(space: FeatureSpace, features: Floats) -> Scores:
    """Squared Mahalanobis distance to the nearest class, in units of the typical distance.

    Args:
        space: of a network.
        features: float, (n, d), of the same network.

    Returns:
        float64, (n,).
    """
    nearest = np.full(len(features), np.inf)
    for mean in space.means:
        offset = features.astype(np.float64) - mean
        along = (offset @ space.directions) ** 2
        other = np.maximum((offset**2).sum(axis=1) - along.sum(axis=1), 0)
        nearest = np.minimum(nearest, (along / space.variances).sum(axis=1) + other / space.other_variance)
    in_units: Scores = nearest / space.typical_distance
    return in_units


def fit_ood_detector(
    model: keras.Model, images: Images, labels: Labels, train: Rows, held_out: Rows, *, seed: int
) -> tuple[OodDetector, OodEvaluation]:
    """Fits a detector to a model's training images, with its threshold set on images that were not trained on.

    Lee et al. 2018 (arXiv:1807.03888): class means and one covariance for all classes. Ours is a mean over several
    networks, uses the last features alone, and its covariance has some directions of its own and one variance for the
    others: that needs fewer images than there are features. For every four training images one is added as a simulated
    site would show it: more would hide empty fields, fewer would flag other sites.

    Args:
        model: of ``build_ensemble_model``.
        images: uint8, (n, height, width, 3).
        labels: int, (n,).
        train: int, rows of ``images`` that the model was trained on; at most 1,024 of them are used.
        held_out: int, rows of ``images`` that it was not trained on; at most 512 of them are used.
        seed: of the choice of images and of the simulated sites.

    Returns:
        The detector, which flags 5 % of the held-out images, and what it does to them and to synthetic OOD images.
    """
    rng = np.random.default_rng([seed, 60])
    train, held_out = rng.permutation(train)[:_FIT_IMAGES], rng.permutation(held_out)[:_HELD_OUT_IMAGES]
    network = _feature_network(model)
    shifted, shifted_rows = _simulated_site_images(images, train, _FIT_SITES, seed=int(rng.integers(2**31)))
    fit_labels = labels[np.concatenate([train, shifted_rows])]
    fit_features = zip(_features(network, images[train]), _features(network, shifted), strict=True)
    held_out_features = _features(network, images[held_out])
    spaces = []
    for parts, of_held_out in zip(fit_features, held_out_features, strict=True):
        space = _fit_space(np.concatenate(parts), fit_labels)
        spaces.append(space.replace(typical_distance=float(np.median(distances(space, of_held_out)))))
    probabilities = predict_outputs(model, images[held_out])[0]
    held_out_distances, entropy = _mean_distances(spaces, held_out_features), _entropy(probabilities)
    detector = OodDetector(
        spaces=tuple(spaces), distance_unit=_unit(held_out_distances), entropy_unit=_unit(entropy), threshold=0.0
    )
    scores = _scores(detector, held_out_distances, entropy)
    detector = detector.replace(threshold=float(np.quantile(scores, DEFAULT_COVERAGE)))
    in_domain = _ScoredImages(scores, probabilities.argmax(axis=1) == labels[held_out])
    return detector, _evaluate(detector, model, network, in_domain, images, labels, held_out, rng)


@dataclass(frozen=True)
class _ScoredImages:
    """OOD scores of some images, and which of them are predicted correctly."""

    scores: Scores
    is_correct: np.ndarray


def _evaluate(
    detector: OodDetector,
    model: keras.Model,
    network: keras.Model,
    in_domain: _ScoredImages,
    images: Images,
    labels: Labels,
    held_out: Rows,
    rng: np.random.Generator,
) -> OodEvaluation:
    """What the detector does to held-out images, to simulated sites and to synthetic OOD images."""

    def scored(shown: Images) -> tuple[Scores, Probabilities]:
        probabilities = predict_outputs(model, shown)[0]
        mean = _mean_distances(detector.spaces, _features(network, shown))
        return _scores(detector, mean, _entropy(probabilities)), probabilities

    shifted, rows = _simulated_site_images(images, held_out, _HELD_OUT_SITES, seed=int(rng.integers(2**31)))
    external_scores, probabilities = scored(shifted)
    external = _ScoredImages(external_scores, probabilities.argmax(axis=1) == labels[rows])
    results = []
    for kind, synthetic in make_synthetic_ood(images[held_out[:_SYNTHETIC_OOD_IMAGES]], rng).items():
        scores, _ = scored(synthetic)
        results.append(
            SyntheticOodResult(
                kind=kind,
                images=len(synthetic),
                flagged=float((scores > detector.threshold).mean()),
                auroc=auroc(scores, in_domain.scores),
            )
        )
    return OodEvaluation(
        in_domain=_selective_accuracy(in_domain, detector.threshold),
        external=_selective_accuracy(external, detector.threshold),
        synthetic_ood=tuple(results),
    )


def _selective_accuracy(scored: _ScoredImages, threshold: float) -> SelectiveAccuracy:
    result: selective.SelectiveAccuracy = selective_accuracy(-scored.scores, scored.is_correct, -threshold)
    curve = result.curve
    return SelectiveAccuracy(
        images=result.images,
        coverage=result.coverage,
        accuracy=result.accuracy,
        curve=RiskCoverage(coverage=curve.coverage, risk=curve.risk, aurc=curve.aurc),
    )


def make_synthetic_ood(images: Images, rng: np.random.Generator) -> dict[str, Images]:
    """Makes images that show no cell from images that do.

    Args:
        images: uint8, (n, height, width, 3).
        rng: draws the order of the pieces and the noise.

    Returns:
        By kind as many images of the same size: the background (the least varied corner, a quarter of the side long,
        mirrored until it fills the frame), cells in pieces (the sixteen parts of an image in another order) and noise.
    """
    height, width = images.shape[1:3]
    tall, wide = max(height // 4, 2), max(width // 4, 2)
    background, in_pieces = [], []
    for image in images:
        corners = [
            image[rows, columns]
            for rows in (slice(tall), slice(-tall, None))
            for columns in (slice(wide), slice(-wide, None))
        ]
        flattest = min(corners, key=lambda corner: float(corner.std(axis=(0, 1)).sum()))
        background.append(np.pad(flattest, ((0, height - tall), (0, width - wide), (0, 0)), mode="reflect"))
        pieces = [image[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide] for y in range(4) for x in range(4)]
        shuffled = image.copy()
        for position, piece in enumerate(rng.permutation(16).tolist()):
            y, x = divmod(position, 4)
            shuffled[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide] = pieces[piece]
        in_pieces.append(shuffled)
    return {
        "background without a cell": np.stack(background),
        "cells in pieces": np.stack(in_pieces),
        "noise": rng.integers(0, 256, images.shape, dtype=np.uint8),
    }


def _feature_network(model: keras.Model) -> keras.Model:
    """uint8 images -> the features before each member's last layer, a list of (n, d), in the members' order."""
    images = keras.Input(model.input_shape[1:], dtype="uint8")
    members = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    before_last = [keras.Model(member.inputs[0], member.get_layer("logits").input) for member in members]
    return keras.Model(images, [network(images, training=False) for network in before_last])


def _features(network: keras.Model, images: Images) -> list[Floats]:
    return predict_outputs(network, images, batch_size=_BATCH_SIZE)


def _entropy(probabilities: Probabilities) -> Scores:
    entropy: Scores = -confidence_score(probabilities, "entropy")
    return entropy


def _unit(values: Scores) -> float:
    return max(float(np.quantile(values, _UNIT_QUANTILE)), _SMALLEST_VARIANCE)


def _scores(detector: OodDetector, mean_distance: Scores, entropy: Scores) -> Scores:
    return np.asarray(mean_distance / detector.distance_unit + entropy / detector.entropy_unit)


def _simulated_site_images(images: Images, rows: Rows, num_sites: int, *, seed: int) -> tuple[Images, Rows]:
    """Some images as simulated sites show them, and their rows."""
    shown = np.resize(rows, (num_sites, _IMAGES_PER_SITE))
    sites = draw_simulated_sites(num_sites, seed=seed)
    rendered = [site.render(images[of_site]) for site, of_site in zip(sites, shown, strict=True)]
    return np.concatenate(rendered), shown.reshape(-1)


def _mean_distances(spaces: Sequence[FeatureSpace], features: Sequence[Floats]) -> Scores:
    mean: Scores = np.mean([distances(space, part) for space, part in zip(spaces, features, strict=True)], axis=0)
    return mean


def _fit_space(features: Floats, labels: Labels) -> FeatureSpace:
    classes, class_of = np.unique(labels, return_inverse=True)
    means = np.stack([features[class_of == number].mean(axis=0) for number in range(len(classes))])
    within = (features - means[class_of]).astype(np.float64)
    _, lengths, directions = np.linalg.svd(within / np.sqrt(len(within)), full_matrices=False)
    kept = min(_PRINCIPAL_DIRECTIONS, len(lengths) - 1, features.shape[1] - 1)
    variances = np.maximum(lengths**2, _SMALLEST_VARIANCE)
    other = max(float(variances[kept:].sum()) / (features.shape[1] - kept), _SMALLEST_VARIANCE)
    return FeatureSpace(
        means=means.astype(np.float32),
        directions=directions[:kept].T.astype(np.float32),
        variances=variances[:kept].astype(np.float32),
        other_variance=other,
    )
