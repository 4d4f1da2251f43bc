"""Out-of-fold predictions: class probabilities of a run's networks for images that were held out of their training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from bloodauto.errors import RunError
from bloodauto.evaluation.calibration import apply_calibration
from bloodauto.run.artifacts import (
    Calibration,
    Ensemble,
    SiteInfo,
    TrainedNetwork,
    TtaPredictions,
    ValidationPredictions,
)
from bloodauto.run.directory import RunDirectory
from bloodauto.types import Floats, Labels, Probabilities, Rows, Strings

#: More trials than the best few would mostly add selection bias.
_MAX_TRIALS = 8
#: Nothing is known of sites beside the labels.
NO_SITE_INFO = SiteInfo()
#: The fold whose images every network but those of the other folds' refits was held out from.
HOLDOUT_FOLD = 0

#: Predictions with test-time augmentation that take the place of the stored ones, by the name of the network.
TtaPredictionsByNetwork = Mapping[str, TtaPredictions]


@dataclass(frozen=True)
class GroundTruth:
    """What is known of the images that out-of-fold predictions are for.

    Attributes:
        index: Positions of the clean validation images in the data set, shape (n,), n at least 1.
        labels: Their labels, shape (n,).
        shifted_labels: Labels of the shifted images, shape (m,); m may be 0.
        shifted_groups: Group of corruption families of each shifted image, shape (m,).
        shifted_weights: Weight of each shifted image in the shift score, at least 0, shape (m,).
        held_out_sites: The fold, which is a site, of each clean image, shape (n,), where it is predicted by networks that
            were trained without images of that site; None where the images are in-domain.
        class_fractions: Expected fraction of each class in the target domain, shape (classes,), where there are unlabelled
            target images; otherwise None.
    """

    index: Rows
    labels: Labels
    shifted_labels: Labels
    shifted_groups: Strings
    shifted_weights: Floats
    held_out_sites: Rows | None = None
    class_fractions: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        assert self.labels.ndim == 1, f"labels: expected (n,), got {self.labels.shape}"
        assert len(self.labels), "labels: expected at least one clean image"
        assert self.index.shape == self.labels.shape, f"index: expected {self.labels.shape}, got {self.index.shape}"
        sites = self.held_out_sites
        assert sites is None or sites.shape == self.labels.shape, "held_out_sites: expected one for each label"
        shapes = (self.shifted_labels.shape, self.shifted_groups.shape, self.shifted_weights.shape)
        assert len(set(shapes)) == 1, f"shifted: labels, groups and weights of {shapes}"
        assert not len(self.shifted_weights) or self.shifted_weights.min() >= 0, "shifted: a negative weight"

    def has_same_images(self, other: GroundTruth) -> bool:
        """Whether another truth is of the same images in the same order; weights may differ."""
        return (
            np.array_equal(self.index, other.index)
            and np.array_equal(self.shifted_labels, other.shifted_labels)
            and np.array_equal(self.shifted_groups, other.shifted_groups)
        )


@dataclass(frozen=True)
class OutOfFoldPredictions:
    """Class probabilities of one model for images that were held out of its training.

    Attributes:
        truth: What is known of the images.
        clean: For the clean images, shape (n, classes).
        shifted: For the shifted images, shape (m, classes).
        target: For the unlabelled images of the target domain, shape (k, classes); k may be 0.
    """

    truth: GroundTruth
    clean: Probabilities
    shifted: Probabilities
    target: Probabilities

    @classmethod
    def load(
        cls,
        networks: Sequence[TrainedNetwork],
        site_info: SiteInfo,
        tta_predictions: TtaPredictionsByNetwork | None = None,
    ) -> Self:
        """Joins the predictions of networks that were trained on different folds.

        Args:
            networks: One network, or one for each fold. Each predicts the images of its own fold; the predictions for target
                images are averaged.
            site_info: What is known of sites.
            tta_predictions: Take the place of the stored predictions for clean and shifted images.

        Raises:
            RunError: A file of predictions is missing or damaged.
        """
        stored = [network.files.predictions.read() for network in networks]
        source: Sequence[ValidationPredictions | TtaPredictions] = (
            stored if tta_predictions is None else [tta_predictions[network.name] for network in networks]
        )
        index = np.concatenate([predictions.index for predictions in stored])
        order = np.argsort(index, kind="stable")
        folds = np.repeat([network.fold for network in networks], [len(predictions.index) for predictions in stored])
        target = np.asarray(np.mean([predictions.target for predictions in stored], axis=0))
        truth = GroundTruth(
            index=index[order],
            labels=np.concatenate([predictions.labels for predictions in stored])[order],
            shifted_labels=np.concatenate([predictions.shifted_labels for predictions in stored]),
            shifted_groups=np.concatenate([predictions.shifted_groups for predictions in stored]),
            shifted_weights=np.concatenate([predictions.shifted_weights for predictions in stored]),
            held_out_sites=folds[order] if site_info.folds_are_sites else None,
            class_fractions=site_info.class_fractions if len(target) else None,
        )
        clean = np.concatenate([predictions.clean for predictions in source])[order]
        shifted = np.concatenate([predictions.shifted for predictions in source])
        return cls(truth, clean, shifted, target)

    def calibrated(self, calibration: Calibration) -> Self:
        """The calibrated probabilities for the same images, float64."""
        return replace(
            self,
            clean=apply_calibration(self.clean, calibration),
            shifted=apply_calibration(self.shifted, calibration),
            target=apply_calibration(self.target, calibration),
        )


@dataclass(frozen=True)
class WeightedEnsemble:
    """The weighted average of several models' class probabilities, and its calibration.

    Attributes:
        weights: Weight of each model by its name, above 0, summing to 1.
        calibration: Of the average; None where it is not calibrated.

    Example:
        >>> ensemble = WeightedEnsemble({"a": 0.75, "b": 0.25})
        >>> ensemble.predict({"a": np.array([[1.0, 0.0]]), "b": np.array([[0.0, 1.0]])})
        array([[0.75, 0.25]])
    """

    weights: Mapping[str, float]
    calibration: Calibration | None = None

    @classmethod
    def of_members(cls, ensemble: Ensemble) -> Self:
        """The ensemble by the names of its members."""
        return cls({member.name: member.weight for member in ensemble.members}, ensemble.calibration)

    @classmethod
    def of_networks(cls, ensemble: Ensemble) -> Self:
        """The ensemble by the names of its networks: a member's weight is divided evenly among its networks."""
        weights = {
            network.name: member.weight / len(member.networks)
            for member in ensemble.members
            for network in member.networks
        }
        return cls(weights, ensemble.calibration)

    def average(self, probabilities: Mapping[str, Probabilities]) -> NDArray[np.float64]:
        """Averages class probabilities without calibration.

        Args:
            probabilities: Of every model in ``weights``, shape (n, classes) each.

        Returns:
            Shape (n, classes).
        """
        parts = [weight * probabilities[name].astype(np.float64) for name, weight in self.weights.items()]
        return np.asarray(sum(parts))

    def predict(self, probabilities: Mapping[str, Probabilities]) -> NDArray[np.float64]:
        """Averages and calibrates class probabilities.

        Args:
            probabilities: Of every model in ``weights``, shape (n, classes) each.

        Returns:
            Shape (n, classes).
        """
        average = self.average(probabilities)
        return average if self.calibration is None else apply_calibration(average, self.calibration)

    def predict_out_of_fold(self, predictions: Mapping[str, OutOfFoldPredictions]) -> OutOfFoldPredictions:
        """Averages and calibrates out-of-fold predictions for the same images.

        Args:
            predictions: Of every model in ``weights``.

        Raises:
            RunError: They are for different images.
        """
        members = [predictions[name] for name in self.weights]
        return OutOfFoldPredictions(
            truth=check_same_images(dict(zip(self.weights, members, strict=True))),
            clean=self.predict({name: predictions[name].clean for name in self.weights}),
            shifted=self.predict({name: predictions[name].shifted for name in self.weights}),
            target=self.predict({name: predictions[name].target for name in self.weights}),
        )


def check_same_images(predictions: Mapping[str, OutOfFoldPredictions]) -> GroundTruth:
    """Checks that all predictions are for the same images in the same order.

    Args:
        predictions: By the name of the model, at least one.

    Returns:
        What is known of these images, by the first.

    Raises:
        RunError: They are for different images.
    """
    (first_name, first), *others = predictions.items()
    for name, other in others:
        if not first.truth.has_same_images(other.truth):
            raise RunError(
                f"training {name}: expected the validation images of training {first_name}, but it was validated on others. "
                "Train both on the same images with the same --seed."
            )
    return first.truth


@dataclass(frozen=True)
class Candidate:
    """A model that may become a member of the ensemble.

    Attributes:
        name: Unique among candidates.
        networks: One network, or one for each fold; at least one.
        predictions: Out of fold.
        parameters: Of all its networks; of equals, the smaller candidate wins.
        latency_ms: Milliseconds for one image; that of the ensemble is the sum over its members. 0 where no cap needs it.
    """

    name: str
    networks: tuple[TrainedNetwork, ...]
    predictions: OutOfFoldPredictions
    parameters: int
    latency_ms: float = 0.0

    @classmethod
    def load(
        cls,
        name: str,
        networks: Iterable[TrainedNetwork],
        site_info: SiteInfo,
        tta_predictions: TtaPredictionsByNetwork | None = None,
    ) -> Self:
        """Reads predictions and results of a candidate's networks.

        Args:
            name: Of the candidate.
            networks: See ``OutOfFoldPredictions.load``.
            site_info: What is known of sites.
            tta_predictions: See ``OutOfFoldPredictions.load``.

        Raises:
            RunError: A file is missing or damaged.
        """
        networks = tuple(networks)
        predictions = OutOfFoldPredictions.load(networks, site_info, tta_predictions)
        parameters = sum(network.files.result.read().parameters for network in networks)
        return cls(name, networks, predictions, parameters)


def find_trained_networks(
    run: RunDirectory, completed: Sequence[tuple[int, float]], pruned: Sequence[int] = ()
) -> list[TrainedNetwork]:
    """Finds the networks of a run that have all files that a member of an ensemble needs.

    Args:
        run: The run.
        completed: Number and objective of the completed trials; the best few are used.
        pruned: Numbers of pruned trials that were evaluated nevertheless.
    """
    best_first = sorted(completed, key=lambda trial: (-trial[1], trial[0]))[:_MAX_TRIALS]
    networks = [_trial_network(run, number, "trial") for number, _ in best_first]
    networks += [_trial_network(run, number, "pruned trial") for number in pruned]
    for refit in run.refits():
        number_text, fold, _ = refit.root.name.split("-")
        networks.append(
            TrainedNetwork(
                name=refit.root.name,
                kind="refit",
                trial=int(number_text),
                fold=int(fold.removeprefix("fold")),
                folder=refit.root,
            )
        )
    return [network for network in networks if network.files.has_candidate_files]


def _trial_network(run: RunDirectory, number: int, kind: Literal["trial", "pruned trial"]) -> TrainedNetwork:
    folder = run.trial(number).root
    return TrainedNetwork(name=folder.name, kind=kind, trial=number, fold=HOLDOUT_FOLD, folder=folder)


def holdout_candidates(networks: Iterable[TrainedNetwork], site_info: SiteInfo) -> dict[str, Candidate]:
    """Each network that fold 0 was held out from as a candidate of its own, by name.

    Raises:
        RunError: A file is missing or damaged.
    """
    return {
        network.name: Candidate.load(network.name, [network], site_info)
        for network in networks
        if network.fold == HOLDOUT_FOLD
    }


def fold_candidates(networks: Iterable[TrainedNetwork], num_folds: int, site_info: SiteInfo) -> dict[str, Candidate]:
    """Each trial that was refitted on every fold as a candidate, by name.

    Raises:
        RunError: A file is missing or damaged.
    """
    by_trial: dict[int | None, dict[int, TrainedNetwork]] = defaultdict(dict)
    for network in networks:
        if network.kind == "refit":
            by_trial[network.trial][network.fold] = network
    candidates = {}
    for trial, by_fold in by_trial.items():
        if len(by_fold) == num_folds > 1:
            name = f"{trial:05d}-folds"
            candidates[name] = Candidate.load(name, [by_fold[fold] for fold in sorted(by_fold)], site_info)
    return candidates
