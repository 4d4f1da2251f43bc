"""Is an image anything like those that were trained on, and is the answer sure? One rule of both, to mark the others.

Probabilities alone cannot tell: an empty field looks like nothing else, and gets a class without a doubt. Distances in the
networks' own feature spaces alone cannot either: a cell of a type that was never shown lies between the known ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from bloodauto.errors import RunError
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.metrics import auroc
from bloodauto.evaluation.selective import (
    DEFAULT_COVERAGE,
    SelectiveAccuracy,
    confidence_score,
    selective_accuracy,
)
from bloodauto.run.files import read_arrays, write_arrays
from bloodauto.shift.simulated_sites import draw_simulated_sites

OOD_FILE = "ood.npz"
_FIT_IMAGES, _HELD_OUT_IMAGES, _SYNTHETIC_OOD_IMAGES = 1024, 512, 128
#: Simulated laboratories, and images of each: known cells of another laboratory are not to look like something else.
_FIT_SITES, _HELD_OUT_SITES, _IMAGES_PER_SITE = 32, 48, 8
#: Both measures are counted in what this share of images that were not trained on stays below: where their tails begin, since a
#: sure ensemble's entropy is next to nothing for most images and large for some.
_UNIT_QUANTILE = 0.99
#: Directions in which a class varies that are told apart; in all others it is taken to vary alike.
_PRINCIPAL_DIRECTIONS = 16
_SMALLEST_VARIANCE = 1e-12
_BATCH = 64


@dataclass(frozen=True)
class FeatureSpace:
    """Where a network puts the classes, in the features (d,) that its last layer answers from.

    Attributes:
        means: float32 (c, d), of each class's training images.
        directions: float32 (d, k), orthonormal, those in which images of a class vary most.
        variances: float32 (k,), above 0, along these.
        other_variance: above 0, along any other direction.
        usual: median distance of images that were not trained on, above 0.
    """

    means: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    other_variance: float
    typical_distance: float = 1.0

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance to the nearest class, in units of ``usual``: float64 (n,), from features (n, d)."""
        nearest = np.full(len(features), np.inf)
        for mean in self.means:
            away = features.astype(np.float64) - mean
            along = (away @ self.directions) ** 2
            other = np.maximum((away**2).sum(axis=1) - along.sum(axis=1), 0)
            nearest = np.minimum(nearest, (along / self.variances).sum(axis=1) + other / self.other_variance)
        return nearest / self.typical_distance


@dataclass(frozen=True)
class OodDetector:
    """A rule for marking answers that are not sure, and what is none of the trained cells.

    Attributes:
        spaces: of the exported model's members, in their order.
        distance_unit, entropy_unit: what both measures are counted in, above 0: of a hundred images that were not trained on
            one is further, and one answered with more (nats).
        limit: images are marked whose OOD score is above this.
    """

    spaces: tuple[FeatureSpace, ...]
    distance_unit: float
    entropy_unit: float
    threshold: float


@dataclass(frozen=True)
class SyntheticOodResult:
    """How well pictures of one made kind are told from images that were not trained on.

    Attributes:
        kind: in a few words; images: how many.
        marked: the share that is marked, 0-1; auroc: how often one of them is stranger than an own image, 0-1.
    """

    kind: str
    images: int
    flagged: float
    auroc: float


@dataclass(frozen=True)
class OodEvaluation:
    """What a rule does.

    Attributes:
        own: to images of the training laboratory that were not trained on.
        elsewhere: to some of these, as simulated sites show them.
        found: to pictures made of them that are no cells.
    """

    in_domain: SelectiveAccuracy
    external: SelectiveAccuracy
    synthetic_ood: tuple[SyntheticOodResult, ...]


def mean_distances(rule: OodDetector, model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Distance to the trained classes, a mean over the members of a model of ``build_export``: float64 (n,).

    Raises:
        RunError: the rule is that of another model.
    """
    network = _feature_network(model)
    synthetic_ood, wanted = (
        [output.shape[-1] for output in network.outputs],
        [space.means.shape[1] for space in rule.spaces],
    )
    if synthetic_ood != wanted:
        raise RunError(
            f"{OOD_FILE}: expected features of {synthetic_ood} numbers, as this model's members have, got {wanted}. The two files do "
            "not belong together; export again."
        )
    return _mean_distances(rule.spaces, _features(network, images))


def ood_score(rule: OodDetector, model: keras.Model, images: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Distance and entropy, each over its unit, added: float64 (n,), larger is stranger.

    What is somewhat far *and* somewhat unsure is strange, too, as cells of a type that was never shown are.

    Args:
        images: uint8 (n, h, w, 3); probabilities: (n, c), what the model answers for them.

    Raises:
        RunError: the rule is that of another model.
    """
    return _ood_score(rule, mean_distances(rule, model, images), _entropy(probabilities))


def fit_ood_detector(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray, *, seed: int
) -> tuple[OodDetector, OodEvaluation]:
    """Measures where a model puts its training images, and sets the limit by images that it was not trained on.

    Lee et al., arXiv:1807.03888: class means and one covariance for all classes. Ours is the mean over several networks,
    looks at the last features alone, and the covariance has some directions of its own and one variance for the rest: that
    needs fewer images than there are features. Some of the training images are added as simulated sites would show
    them, one for every four: more would hide empty fields, fewer would take other laboratories for something else.

    Args:
        model: of ``build_export``.
        images: uint8 (n, h, w, 3); labels: int (n,).
        train, held_out: int, rows of ``images``; at most 1,024 and 512 of them are looked at.

    Returns:
        The rule, which leaves an answer to 95 % of the images held out, and what it does to them.
    """
    rng = np.random.default_rng([seed, 60])
    train, held_out = rng.permutation(train)[:_FIT_IMAGES], rng.permutation(held_out)[:_HELD_OUT_IMAGES]
    network = _feature_network(model)
    views, shown = _simulated_site_images(images, train, _FIT_SITES, seed=int(rng.integers(2**31)))
    learnt = [
        np.concatenate(both) for both in zip(_features(network, images[train]), _features(network, views), strict=True)
    ]
    kept_out = _features(network, images[held_out])
    spaces = []
    for of_learnt, of_kept_out in zip(learnt, kept_out, strict=True):
        space = _space_of(of_learnt, labels[np.concatenate([train, shown])])
        spaces.append(replace(space, typical_distance=float(np.median(space.distances(of_kept_out)))))
    distances, answers = _mean_distances(spaces, kept_out), predict_outputs(model, images[held_out])[0]
    distance_unit, entropy_unit = (
        max(float(np.quantile(one, _UNIT_QUANTILE)), _SMALLEST_VARIANCE) for one in (distances, _entropy(answers))
    )
    rule = OodDetector(tuple(spaces), distance_unit, entropy_unit, threshold=0.0)
    in_domain = _ood_score(rule, distances, _entropy(answers))
    rule = replace(rule, threshold=float(np.quantile(in_domain, DEFAULT_COVERAGE)))

    def evaluated(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = predict_outputs(model, pictures)[0]
        return _ood_score(rule, _mean_distances(spaces, _features(network, pictures)), _entropy(given)), given

    views, shown = _simulated_site_images(images, held_out, _HELD_OUT_SITES, seed=int(rng.integers(2**31)))
    strange, given = evaluated(views)
    of_own = selective_accuracy(-in_domain, answers.argmax(axis=1) == labels[held_out], -rule.threshold)
    of_views = selective_accuracy(-strange, given.argmax(axis=1) == labels[shown], -rule.threshold)
    synthetic_ood = []
    for kind, made in make_synthetic_ood(images[held_out[:_SYNTHETIC_OOD_IMAGES]], rng).items():
        strange, _ = evaluated(made)
        synthetic_ood.append(
            SyntheticOodResult(kind, len(made), float((strange > rule.threshold).mean()), auroc(-in_domain, -strange))
        )
    return rule, OodEvaluation(of_own, of_views, tuple(synthetic_ood))


def make_synthetic_ood(images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Pictures that are no cells, by their kind: uint8 (n, h, w, 3) each, as many and as large as the images.

    The background is the least varied corner, a quarter of the side long, mirrored until it fills the frame; the pieces are
    the sixteen parts of an image in another order.
    """
    height, width = images.shape[1:3]
    tall, wide = max(height // 4, 2), max(width // 4, 2)
    empty, mixed = [], []
    for image in images:
        corners = [
            image[rows, columns]
            for rows in (slice(tall), slice(-tall, None))
            for columns in (slice(wide), slice(-wide, None))
        ]
        flattest = min(corners, key=lambda corner: float(corner.std(axis=(0, 1)).sum()))
        empty.append(np.pad(flattest, ((0, height - tall), (0, width - wide), (0, 0)), mode="reflect"))
        pieces = [image[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide] for y in range(4) for x in range(4)]
        mixed_image = image.copy()
        for place, piece in enumerate(rng.permutation(16).tolist()):
            y, x = divmod(place, 4)
            mixed_image[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide] = pieces[piece]
        mixed.append(mixed_image)
    return {
        "background without a cell": np.stack(empty),
        "cells in pieces": np.stack(mixed),
        "noise": rng.integers(0, 256, images.shape, dtype=np.uint8),
    }


def write_ood_detector(path: Path, rule: OodDetector) -> None:
    """Writes the rule as plain arrays, atomically."""
    arrays = {name: np.array(getattr(rule, name)) for name in ("distance_unit", "entropy_unit", "threshold")}
    for number, space in enumerate(rule.spaces):
        arrays |= {f"{name}_{number}": np.asarray(getattr(space, name)) for name in space.__dataclass_fields__}
    write_arrays(path, **arrays)


def read_ood_detector(path: Path) -> OodDetector:
    """Reads what ``write_ood_detector`` wrote.

    Raises:
        RunError: it is no such file.
    """
    arrays = read_arrays(path)
    try:
        spaces = tuple(
            FeatureSpace(
                arrays[f"means_{number}"],
                arrays[f"directions_{number}"],
                arrays[f"variances_{number}"],
                float(arrays[f"other_variance_{number}"]),
                float(arrays[f"typical_distance_{number}"]),
            )
            for number in range(sum(name.startswith("means_") for name in arrays))
        )
        return OodDetector(
            spaces, float(arrays["distance_unit"]), float(arrays["entropy_unit"]), float(arrays["threshold"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path}: expected the features of known cells, something is missing or wrong ({error!r}). Export again, or remove "
            "the file to have images marked by their probabilities alone."
        ) from None


def _feature_network(model: keras.Model) -> keras.Model:
    """uint8 images -> what each member's last layer answers from, a list of (n, d), in the members' order."""
    images = keras.Input(model.input_shape[1:], dtype="uint8")
    members = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    before_last = [keras.Model(member.inputs[0], member.get_layer("logits").input) for member in members]
    return keras.Model(images, [network(images, training=False) for network in before_last])


def _features(network: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    return predict_outputs(network, images, batch_size=_BATCH)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -confidence_score(probabilities, "entropy")


def _ood_score(rule: OodDetector, distances: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    return np.asarray(distances / rule.distance_unit + entropy / rule.entropy_unit)


def _simulated_site_images(
    images: np.ndarray, rows: np.ndarray, places: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Some images as simulated sites show them, and their rows."""
    shown = np.resize(rows, (places, _IMAGES_PER_SITE))
    shifts = draw_simulated_sites(places, seed=seed)
    views = [shift.render(images[some]) for shift, some in zip(shifts, shown, strict=True)]
    return np.concatenate(views), shown.reshape(-1)


def _mean_distances(spaces: Sequence[FeatureSpace], features: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean([space.distances(one) for space, one in zip(spaces, features, strict=True)], axis=0)


def _space_of(features: np.ndarray, labels: np.ndarray) -> FeatureSpace:
    classes, class_of = np.unique(labels, return_inverse=True)
    means = np.stack([features[class_of == number].mean(axis=0) for number in range(len(classes))])
    within = (features - means[class_of]).astype(np.float64)
    _, lengths, directions = np.linalg.svd(within / np.sqrt(len(within)), full_matrices=False)
    kept = min(_PRINCIPAL_DIRECTIONS, len(lengths) - 1, features.shape[1] - 1)
    variances = np.maximum(lengths**2, _SMALLEST_VARIANCE)
    other = max(float(variances[kept:].sum()) / (features.shape[1] - kept), _SMALLEST_VARIANCE)
    return FeatureSpace(means, directions[:kept].T.astype(np.float32), variances[:kept].astype(np.float32), other)
