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
from bloodauto.evaluation.fold_data import answers_of
from bloodauto.evaluation.selective import ANSWERED_SHARE, Part, auroc, part_answered, sureness
from bloodauto.run.files import read_arrays, write_arrays
from bloodauto.shift.simulated_sites import draw_compound_shifts

FILE_NAME = "familiar.npz"
_FIT_IMAGES, _HELD_OUT_IMAGES, _MADE_IMAGES = 1024, 512, 128
#: Simulated laboratories, and images of each: known cells of another laboratory are not to look like something else.
_FIT_PLACES, _HELD_OUT_PLACES, _IMAGES_PER_PLACE = 32, 48, 8
#: Both measures are counted in what this share of images that were not trained on stays below: where their tails begin, since a
#: sure ensemble's entropy is next to nothing for most images and large for some.
_UNIT_SHARE = 0.99
#: Directions in which a class varies that are told apart; in all others it is taken to vary alike.
_DIRECTIONS = 16
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
    usual: float = 1.0

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance to the nearest class, in units of ``usual``: float64 (n,), from features (n, d)."""
        nearest = np.full(len(features), np.inf)
        for mean in self.means:
            away = features.astype(np.float64) - mean
            along = (away @ self.directions) ** 2
            other = np.maximum((away**2).sum(axis=1) - along.sum(axis=1), 0)
            nearest = np.minimum(nearest, (along / self.variances).sum(axis=1) + other / self.other_variance)
        return nearest / self.usual


@dataclass(frozen=True)
class Familiarity:
    """A rule for marking answers that are not sure, and what is none of the trained cells.

    Attributes:
        spaces: of the exported model's members, in their order.
        distance_unit, entropy_unit: what both measures are counted in, above 0: of a hundred images that were not trained on
            one is further, and one answered with more (nats).
        limit: images are marked whose strangeness is above this.
    """

    spaces: tuple[FeatureSpace, ...]
    distance_unit: float
    entropy_unit: float
    limit: float


@dataclass(frozen=True)
class Found:
    """How well pictures of one made kind are told from images that were not trained on.

    Attributes:
        kind: in a few words; images: how many.
        marked: the share that is marked, 0-1; auroc: how often one of them is stranger than an own image, 0-1.
    """

    kind: str
    images: int
    marked: float
    auroc: float


@dataclass(frozen=True)
class Measured:
    """What a rule does.

    Attributes:
        own: to images of the training laboratory that were not trained on.
        elsewhere: to some of these, as simulated laboratories show them.
        found: to pictures made of them that are no cells.
    """

    own: Part
    elsewhere: Part
    found: tuple[Found, ...]


def mean_distances(rule: Familiarity, model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Distance to the trained classes, a mean over the members of a model of ``build_export``: float64 (n,).

    Raises:
        RunError: the rule is that of another model.
    """
    network = _feature_network(model)
    found, wanted = [output.shape[-1] for output in network.outputs], [space.means.shape[1] for space in rule.spaces]
    if found != wanted:
        raise RunError(
            f"{FILE_NAME}: expected features of {found} numbers, as this model's members have, got {wanted}. The two files do "
            "not belong together; export again."
        )
    return _mean_distances(rule.spaces, _features(network, images))


def strangeness(rule: Familiarity, model: keras.Model, images: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Distance and entropy, each over its unit, added: float64 (n,), larger is stranger.

    What is somewhat far *and* somewhat unsure is strange, too, as cells of a type that was never shown are.

    Args:
        images: uint8 (n, h, w, 3); probabilities: (n, c), what the model answers for them.

    Raises:
        RunError: the rule is that of another model.
    """
    return _strangeness(rule, mean_distances(rule, model, images), _entropy(probabilities))


def fit_familiarity(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray, *, seed: int
) -> tuple[Familiarity, Measured]:
    """Measures where a model puts its training images, and sets the limit by images that it was not trained on.

    Lee et al., arXiv:1807.03888: class means and one covariance for all classes. Ours is the mean over several networks,
    looks at the last features alone, and the covariance has some directions of its own and one variance for the rest: that
    needs fewer images than there are features. Some of the training images are added as simulated laboratories would show
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
    views, shown = _elsewhere(images, train, _FIT_PLACES, seed=int(rng.integers(2**31)))
    learnt = [
        np.concatenate(both) for both in zip(_features(network, images[train]), _features(network, views), strict=True)
    ]
    kept_out = _features(network, images[held_out])
    spaces = []
    for of_learnt, of_kept_out in zip(learnt, kept_out, strict=True):
        space = _space_of(of_learnt, labels[np.concatenate([train, shown])])
        spaces.append(replace(space, usual=float(np.median(space.distances(of_kept_out)))))
    distances, answers = _mean_distances(spaces, kept_out), answers_of(model, images[held_out])[0]
    distance_unit, entropy_unit = (
        max(float(np.quantile(one, _UNIT_SHARE)), _SMALLEST_VARIANCE) for one in (distances, _entropy(answers))
    )
    rule = Familiarity(tuple(spaces), distance_unit, entropy_unit, limit=0.0)
    own = _strangeness(rule, distances, _entropy(answers))
    rule = replace(rule, limit=float(np.quantile(own, ANSWERED_SHARE)))

    def judged(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = answers_of(model, pictures)[0]
        return _strangeness(rule, _mean_distances(spaces, _features(network, pictures)), _entropy(given)), given

    views, shown = _elsewhere(images, held_out, _HELD_OUT_PLACES, seed=int(rng.integers(2**31)))
    strange, given = judged(views)
    of_own = part_answered(-own, answers.argmax(axis=1) == labels[held_out], -rule.limit)
    of_views = part_answered(-strange, given.argmax(axis=1) == labels[shown], -rule.limit)
    found = []
    for kind, made in made_of(images[held_out[:_MADE_IMAGES]], rng).items():
        strange, _ = judged(made)
        found.append(Found(kind, len(made), float((strange > rule.limit).mean()), auroc(-own, -strange)))
    return rule, Measured(of_own, of_views, tuple(found))


def made_of(images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
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


def write_familiarity(path: Path, rule: Familiarity) -> None:
    """Writes the rule as plain arrays, atomically."""
    arrays = {name: np.array(getattr(rule, name)) for name in ("distance_unit", "entropy_unit", "limit")}
    for number, space in enumerate(rule.spaces):
        arrays |= {f"{name}_{number}": np.asarray(getattr(space, name)) for name in space.__dataclass_fields__}
    write_arrays(path, **arrays)


def read_familiarity(path: Path) -> Familiarity:
    """Reads what ``write_familiarity`` wrote.

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
                float(arrays[f"usual_{number}"]),
            )
            for number in range(sum(name.startswith("means_") for name in arrays))
        )
        return Familiarity(
            spaces, float(arrays["distance_unit"]), float(arrays["entropy_unit"]), float(arrays["limit"])
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
    return answers_of(network, images, batch_size=_BATCH)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -sureness(probabilities, "entropy")


def _strangeness(rule: Familiarity, distances: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    return np.asarray(distances / rule.distance_unit + entropy / rule.entropy_unit)


def _elsewhere(images: np.ndarray, rows: np.ndarray, places: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some images as simulated laboratories show them, and their rows."""
    shown = np.resize(rows, (places, _IMAGES_PER_PLACE))
    shifts = draw_compound_shifts(places, seed=seed)
    views = [shift.render(images[some]) for shift, some in zip(shifts, shown, strict=True)]
    return np.concatenate(views), shown.reshape(-1)


def _mean_distances(spaces: Sequence[FeatureSpace], features: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean([space.distances(one) for space, one in zip(spaces, features, strict=True)], axis=0)


def _space_of(features: np.ndarray, labels: np.ndarray) -> FeatureSpace:
    classes, class_of = np.unique(labels, return_inverse=True)
    means = np.stack([features[class_of == number].mean(axis=0) for number in range(len(classes))])
    within = (features - means[class_of]).astype(np.float64)
    _, lengths, directions = np.linalg.svd(within / np.sqrt(len(within)), full_matrices=False)
    kept = min(_DIRECTIONS, len(lengths) - 1, features.shape[1] - 1)
    variances = np.maximum(lengths**2, _SMALLEST_VARIANCE)
    other = max(float(variances[kept:].sum()) / (features.shape[1] - kept), _SMALLEST_VARIANCE)
    return FeatureSpace(means, directions[:kept].T.astype(np.float32), variances[:kept].astype(np.float32), other)
