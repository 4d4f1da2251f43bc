"""Which label-free estimate holds at a target site of which there are unlabelled images?

    python benchmarks/training_overlap.py --save predictions.npz
    python benchmarks/target_estimates.py predictions.npz

For each external synthetic site: Spearman's correlation over the networks of each estimate with their true accuracy there, and
the mean absolute error of the estimate. Confidence optimal transport is what a search uses; the other estimates are its rivals.
The shift objective and clean accuracy, which use no target image, are controls.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import norm, spearmanr

from bloodauto.shift.target_estimators import estimate_by_transport
from bloodauto.types import Floats, Labels, Probabilities, Scores

#: Fractions of exactly 0 or 1 have no probit.
_MIN_FRACTION = 0.005


def _negative_entropy(probabilities: Probabilities) -> Scores:
    """In nats, float64 (n,): 0 for a confident prediction, less for a doubtful one."""
    values = probabilities.astype(np.float64)
    result: Scores = (values * np.log(np.maximum(values, 1e-12))).sum(axis=1)
    return result


def estimate_by_threshold(labels: Labels, labelled: Probabilities, target: Probabilities) -> float:
    """Average thresholded confidence (ATC with negative entropy; Garg et al., arXiv:2201.04234).

    The threshold is exceeded by as many labelled images as are predicted correctly; the estimate is the fraction of target
    images that exceed it.

    Args:
        labels: Of images that the network was not trained on, (n,).
        labelled: Predictions for them, (n, classes).
        target: Predictions for the target images, (m, classes).

    Returns:
        The estimated accuracy on the target images, 0-1.
    """
    scores = np.sort(_negative_entropy(labelled))
    num_wrong = int((labelled.argmax(axis=1) != labels).sum())
    if num_wrong == 0:
        return 1.0
    threshold = scores[num_wrong] if num_wrong < len(scores) else np.inf
    return float((_negative_entropy(target) >= threshold).mean())


def estimate_by_agreement(
    accuracies: Floats, labelled: Sequence[Probabilities], target: Sequence[Probabilities]
) -> Floats:
    """Agreement on the line (ALine-S; Baek et al., arXiv:2206.13089).

    In probits the networks' pairwise agreement on target images is a linear function of that on labelled images, and their
    accuracy follows the same line, which can be fitted without labels.

    Args:
        accuracies: On the labelled images, 0-1, (k,).
        labelled: Predictions of the k networks for them; k at least 3, so that a line can be fitted.
        target: Predictions of the k networks for the target images.

    Returns:
        Each network's estimated accuracy on the target images, float64 (k,).
    """
    pairs = np.triu_indices(len(labelled), k=1)
    x, y = (_probit(_agreement(predictions)[pairs]) for predictions in (labelled, target))
    spread = ((x - x.mean()) ** 2).sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread if spread > 0 else 1.0
    result: Floats = norm.cdf(y.mean() + slope * (_probit(accuracies) - x.mean()))
    return result


def _agreement(predictions: Sequence[Probabilities]) -> Floats:
    classes = np.stack([probabilities.argmax(axis=1) for probabilities in predictions])
    result: Floats = (classes[:, None] == classes[None]).mean(axis=2)
    return result


def _probit(fractions: Floats) -> Floats:
    result: Floats = norm.ppf(np.clip(fractions, _MIN_FRACTION, 1 - _MIN_FRACTION))
    return result


def main() -> None:
    """Prints one table row per site and estimate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("predictions", type=Path, help="what training_overlap.py --save wrote")
    with np.load(parser.parse_args().predictions, allow_pickle=False) as archive:
        saved = {name: archive[name] for name in archive.files}
    sites = [name.removeprefix("labels_") for name in saved if name.startswith("labels_")]
    clean, labels = saved["clean"], saved["labels"]
    both = np.concatenate([clean, saved["shifted"]], axis=1)
    both_labels = np.concatenate([labels, saved["shifted_labels"]])
    accuracy = (clean.argmax(axis=2) == labels).mean(axis=1)
    print(
        f"{len(clean)} networks\n\n| estimate | site | Spearman | mean absolute error, points |\n| --- | --- | --- | --- |"
    )
    for site in sites:
        target = saved[f"predictions_{site}"]
        truth = (target.argmax(axis=2) == saved[f"labels_{site}"]).mean(axis=1)
        estimates = {
            "clean accuracy, no target image": accuracy,
            "shift objective, no target image": saved["objective"],
            "mean confidence": target.max(axis=2).mean(axis=1),
            "thresholded confidence, from clean images": np.array(
                [estimate_by_threshold(labels, *pair) for pair in zip(clean, target, strict=True)]
            ),
            "thresholded confidence, from clean and shifted images": np.array(
                [estimate_by_threshold(both_labels, *pair) for pair in zip(both, target, strict=True)]
            ),
            "agreement on the line": estimate_by_agreement(accuracy, list(clean), list(target)),
            "confidence optimal transport": np.array(
                [estimate_by_transport(probabilities, np.bincount(labels)) for probabilities in target]
            ),
        }
        for name, values in estimates.items():
            error = 100 * np.abs(values - truth).mean()
            print(f"| {name} | {site} | {spearmanr(values, truth).statistic:.2f} | {error:.1f} |")


if __name__ == "__main__":
    main()
