"""What trainings of a run answered for images that they had not seen: the candidates for its ensemble, and their scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bloodauto.ensemble.record import TrainedNetwork
from bloodauto.ensemble.scoring import EnsembleMetric, Scorer, SiteInfo, Truth
from bloodauto.evaluation.metrics import compute_metrics, expected_calibration_error
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_arrays, read_json

#: Trials beyond the best few only make the selection overfit.
_MAX_TRIALS = 8
#: What a training has left that can be a member.
_REQUIRED_FILES = ("recipe.yaml", "best.npz", "predictions.npz", "result.json")


#: By a training's name what it answers when it looks otherwise than the search did: ``clean`` and ``shifted``, in the order
#: of its ``predictions.npz``.
TtaPredictions = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class OofPredictions:
    """One candidate's networks and their joined out-of-fold predictions.

    Attributes:
        labels, left_out_sites: (n,); the laboratory, by its fold's number, None where folds are none.
        clean: float32 (n, c), each row of the network that had not learnt from the image.
        shifted_labels, shifted_groups, shifted_weights: (m,); shifted: float32 (m, c).
        target: float32 (k, c), on unlabelled target images, the mean of the networks; k may be 0.
        places: what they are scored by.
    """

    networks: tuple[TrainedNetwork, ...]
    labels: np.ndarray
    left_out_sites: np.ndarray | None
    clean: np.ndarray
    shifted_labels: np.ndarray
    shifted_groups: np.ndarray
    shifted_weights: np.ndarray
    shifted: np.ndarray
    target: np.ndarray
    parameters: int
    site_info: SiteInfo

    @property
    def truth(self) -> Truth:
        return Truth(
            self.labels,
            self.shifted_labels,
            self.shifted_groups,
            self.shifted_weights,
            self.left_out_sites,
            self.site_info.class_fractions if len(self.target) else None,
        )


def find_trained_networks(
    run: RunDirectory, completed: Sequence[tuple[int, float]], pruned: Sequence[int] = ()
) -> list[TrainedNetwork]:
    """The trainings that can be members.

    Args:
        completed: number and objective of the completed trials.
        stopped: numbers of trials that did not, and were judged nevertheless.
    """
    best_first = sorted(completed, key=lambda trial: (-trial[1], trial[0]))[:_MAX_TRIALS]
    found = [TrainedNetwork(f"{number:05d}", "trial", number, 0, run.trial(number).root) for number, _ in best_first]
    found += [TrainedNetwork(f"{number:05d}", "pruned trial", number, 0, run.trial(number).root) for number in pruned]
    refits = run.root / "refits"
    for folder in sorted(refits.iterdir()) if refits.is_dir() else []:
        number, fold, _ = folder.name.split("-")
        found.append(TrainedNetwork(folder.name, "refit", int(number), int(fold.removeprefix("fold")), folder))
    return [one for one in found if all((one.folder / name).is_file() for name in _REQUIRED_FILES)]


def join_predictions(
    networks: Sequence[TrainedNetwork], site_info: SiteInfo, tta_predictions: TtaPredictions | None = None
) -> OofPredictions:
    """Joins what networks answered for the folds they left out.

    Raises:
        RunError: predictions that are missing or damaged.
    """
    arrays = [read_arrays(one.folder / "predictions.npz") for one in networks]
    if tta_predictions is not None:
        arrays = [{**array, **tta_predictions[one.name]} for array, one in zip(arrays, networks, strict=True)]
    joined = {name: np.concatenate([array[name] for array in arrays]) for name in arrays[0] if name != "target"}
    order = np.argsort(joined["index"], kind="stable")
    folds = np.repeat([one.fold for one in networks], [len(array["index"]) for array in arrays])
    return OofPredictions(
        networks=tuple(networks),
        labels=joined["labels"][order],
        left_out_sites=folds[order] if site_info.folds_are_sites else None,
        clean=joined["clean"][order],
        shifted_labels=joined["shifted_labels"],
        shifted_groups=joined["shifted_groups"],
        shifted_weights=joined["shifted_weights"],
        shifted=joined["shifted"],
        target=np.mean([array["target"] for array in arrays], axis=0),
        parameters=sum(int(read_json(one.folder / "result.json")["parameters"]) for one in networks),
        site_info=site_info,
    )


def candidates_of(
    trained: Sequence[TrainedNetwork], num_folds: int, site_info: SiteInfo
) -> tuple[dict[str, OofPredictions], dict[str, OofPredictions]]:
    """Candidates known on fold 0, and candidates known on all folds."""
    holdout = {one.name: join_predictions([one], site_info) for one in trained if one.fold == 0}
    by_trial: dict[int, dict[int, TrainedNetwork]] = defaultdict(dict)
    for one in trained:
        if one.kind == "refit":
            by_trial[one.trial][one.fold] = one
    folds = {
        f"{trial:05d}-folds": join_predictions([members[fold] for fold in sorted(members)], site_info)
        for trial, members in by_trial.items()
        if len(members) == num_folds > 1
    }
    return holdout, folds


def scores_of(answers: OofPredictions, clean: np.ndarray, shifted: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Scores by name of probabilities for a candidate's images; ``target_estimate`` only where there are target images."""
    metrics = compute_metrics(answers.labels, clean)
    scorer = _scorer(answers, "shift", class_count=clean.shape[1])
    rows = scorer.rows(clean, shifted, target)
    metric = scorer.score(rows).metric
    scores = {
        "accuracy": metrics.accuracy,
        "balanced_accuracy": metrics.balanced_accuracy,
        "macro_f1": metrics.macro_f1,
        "loss": metrics.loss,
        "shift": metric,
        "shifted_accuracy": float((shifted.argmax(axis=1) == answers.shifted_labels).mean()),
        "ece": expected_calibration_error(answers.labels, clean),
        "ece_shifted": expected_calibration_error(answers.shifted_labels, shifted),
    }
    if answers.truth.target_class_priors is not None:
        estimate = scorer.estimate_target(rows[: scorer.image_count], rows[scorer.image_count :])
        scores.update(shift=2 * metric - estimate, target_estimate=estimate)
    return scores


def uncalibrated_scores(answers: OofPredictions) -> dict[str, float]:
    """A candidate's scores by itself, not calibrated."""
    return scores_of(answers, answers.clean, answers.shifted, answers.target)


def metric_of(
    answers: OofPredictions, metric: EnsembleMetric, clean: np.ndarray, shifted: np.ndarray, target: np.ndarray
) -> float:
    """What an ensemble is chosen by, of probabilities for a candidate's images."""
    scorer = _scorer(answers, metric, class_count=clean.shape[1])
    return scorer.score(scorer.rows(clean, shifted, target)).metric


def _scorer(answers: OofPredictions, metric: EnsembleMetric, *, class_count: int) -> Scorer:
    return Scorer(answers.truth, metric=metric, class_count=class_count, log_loss_weight=0.0)
