"""Fits the linear head of a site: logistic regression on frozen features beside the ensemble's own probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from bloodauto.adaptation.frozen_ensemble import EnsembleOutputs, SiteHead, log_prior
from bloodauto.types import Floats, Labels, Scores

_MAX_ITERATIONS = 60
_SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class HeadSettings:
    """What a head is fitted with.

    Attributes:
        penalty: of half the squared weights beside the mean loss of an image, above 0; features have about unit length then.
        source_weight: weight of all source images together, where those of the site together weigh 1.
        prior_weight: exponent of the ensemble's own probabilities, 0 or more.
    """

    penalty: float = 0.001
    source_weight: float = 0.5
    prior_weight: float = 1.0


@dataclass(frozen=True)
class LabelledOutputs:
    """Outputs of an ensemble for labelled images.

    Attributes:
        outputs: of n images.
        labels: int (n,).
        weights: float (n,), of each image in a fit.
    """

    outputs: EnsembleOutputs
    labels: Labels
    weights: Scores


def joined(parts: Sequence[LabelledOutputs]) -> LabelledOutputs:
    """Several sets of images as one."""
    return LabelledOutputs(
        EnsembleOutputs(
            np.concatenate([part.outputs.probabilities for part in parts]),
            np.concatenate([part.outputs.features for part in parts]),
        ),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


def fit_site_head(images: LabelledOutputs, settings: HeadSettings) -> SiteHead:
    """Fits what is to be added to the logarithm of the ensemble's probabilities.

    With a large penalty nothing is added: the adapted model then predicts as the ensemble does. Classes without images at
    the site keep what the ensemble and the source images say of them.

    Args:
        images: of the site and of the source site, at least one.
        settings: of the fit.
    """
    features = images.outputs.features.astype(np.float64)
    weights = images.weights / images.weights.sum()
    mean = weights @ features
    deviation = np.sqrt(np.maximum(weights @ (features - mean) ** 2, _SMALLEST_DEVIATION**2))
    # A feature that hardly varies among few images may vary at the next.
    deviation = np.maximum(deviation, float(np.median(deviation))) * np.sqrt(features.shape[1])
    standard = (features - mean) / deviation
    num_classes = images.outputs.probabilities.shape[1]
    one_hot = np.eye(num_classes)[images.labels]
    prior = settings.prior_weight * log_prior(images.outputs.probabilities)

    def loss(flat: Floats) -> tuple[float, Floats]:
        at = flat.reshape(-1, num_classes)
        log_p = log_softmax(standard @ at[:-1] + at[-1] + prior, axis=1)
        error = (np.exp(log_p) - one_hot) * weights[:, None]
        gradient = np.concatenate([standard.T @ error, error.sum(axis=0)[None]]) + settings.penalty * at
        value = settings.penalty / 2 * float((at**2).sum()) - float(weights @ (one_hot * log_p).sum(axis=1))
        return value, gradient.ravel()

    start = np.zeros((features.shape[1] + 1) * num_classes)
    # Matrices are small: a second thread costs more than it computes, most of all on a machine that others use.
    with threadpool_limits(limits=1):
        fitted = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _MAX_ITERATIONS})
    solution = fitted.x.reshape(-1, num_classes)
    scaled = solution[:-1] / deviation[:, None]
    return SiteHead(scaled, solution[-1] - mean @ scaled, settings.prior_weight)
