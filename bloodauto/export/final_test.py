"""Evaluates the exported ensemble on the held-out test set, once: clean, shifted, and at simulated sites."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.metrics import (
    compute_metrics,
    confusion_matrix,
    expected_calibration_error,
    wilson_interval,
)
from bloodauto.evaluation.shift_score import score_shift
from bloodauto.run.artifacts import HeldOutTest, SimulatedSiteResult
from bloodauto.run.directory import RunDirectory
from bloodauto.shift.corruptions import GROUPS
from bloodauto.shift.external_estimate import SiteOutcome, estimate_external_performance
from bloodauto.shift.simulated_sites import draw_simulated_sites
from bloodauto.shift.suite import ShiftSuite
from bloodauto.types import Images, Labels, Probabilities

_PREDICT_BATCH = 128
#: Simulated sites at least, and at most where there is time left: more of them narrow the interval of the external estimate.
_MIN_SITES = 96
_MAX_SITES = 400
#: A batch of sites may take so many times the seconds of the slowest before it.
_SLOWDOWN_MARGIN = 1.5
#: Images shown at each site. What so few miss by chance is told apart from how sites differ, so that more sites are worth
#: more than more images.
_IMAGES_PER_SITE = 12
#: Most and fewest images that the shift suite shows. Between them they grow with the number of training images, as the
#: evaluation after a training does: the budget reserves for this end what such evaluations have taken.
_MAX_SUITE_IMAGES, _MIN_SUITE_IMAGES = 128, 64
_TRAIN_IMAGES_PER_SUITE_IMAGE = 16


@dataclass(frozen=True)
class EvaluationTime:
    """The wall seconds that the evaluation of the held-out test set may take.

    Attributes:
        seconds: the limit. When the evaluation would probably take longer, it does not begin, and a later export does it;
            when it takes less, more sites are simulated. Infinite: no limit, and no more sites.
        reserved_seconds: of these, what additional sites must leave unused.
    """

    seconds: float = math.inf
    reserved_seconds: float = 0.0


def evaluate_held_out_test(
    run: RunDirectory,
    model: keras.Model,
    ensemble_id: str,
    dataset: CellDataset,
    splits: Splits,
    *,
    seed: int,
    time: EvaluationTime = EvaluationTime(),
    clock: Clock = SYSTEM_CLOCK,
) -> Probabilities | None:
    """Evaluates a model on the held-out test set and writes ``test.json``.

    Does nothing where that file exists: the test set is evaluated on once, whatever is exported later.

    Args:
        run: gets the file.
        model: the exported ensemble without test-time augmentation.
        ensemble_id: of the ensemble, which the file names.
        dataset: all images.
        splits: which of them are held out.
        seed: of the run. The shifted images are drawn with another one, so that the search has not seen their shifts.
        time: what it may take.
        clock: measures it.

    Returns:
        What the model predicts for the held-out test images, (n, classes); None where nothing was evaluated.
    """
    start = clock.now()
    index = splits.test_index()
    if run.held_out_test.exists or len(index) == 0:
        return None
    if time.seconds < math.inf and time.seconds < _predicted_seconds(model, dataset, splits, clock):
        return None
    labels, images = dataset.labels[index], dataset.images[index]
    probabilities = predict_batches(model, images)
    plan = ShiftSuite(seed=seed + 1, num_images=_num_suite_images(splits)).plan(labels)
    shifted = predict_batches(model, plan.render(images))
    sites = tuple(
        _simulated_sites(
            model,
            labels,
            images,
            min(_IMAGES_PER_SITE, len(labels)),
            seed=seed,
            more_until=start + time.seconds - time.reserved_seconds if time.seconds < math.inf else -math.inf,
            clock=clock,
        )
    )
    external = estimate_external_performance([SiteOutcome(site.groups, site.correct, site.images) for site in sites])
    predicted, shifted_labels = probabilities.argmax(axis=1), labels[plan.image_index]
    low, high = wilson_interval(int((predicted == labels).sum()), len(labels))
    metrics = compute_metrics(labels, probabilities)
    confusion = confusion_matrix(labels, predicted, len(dataset.class_names))
    run.held_out_test.write(
        HeldOutTest(
            ensemble=ensemble_id,
            images=len(labels),
            accuracy=metrics.accuracy,
            accuracy_low=low,
            accuracy_high=high,
            balanced_accuracy=metrics.balanced_accuracy,
            macro_f1=metrics.macro_f1,
            loss=metrics.loss,
            ece=expected_calibration_error(labels, probabilities),
            ece_shifted=expected_calibration_error(shifted_labels, shifted),
            confusion=tuple(tuple(row) for row in confusion.tolist()),
            classes=dataset.class_names,
            shift={group.name: group.accuracy for group in score_shift(labels, probabilities, plan, shifted).groups},
            shifted_accuracy=float((shifted.argmax(axis=1) == shifted_labels).mean()),
            shifted_images=len(plan),
            external=external,
            simulated_sites=sites,
        )
    )
    return probabilities


def read_held_out_test(run: RunDirectory, ensemble_id: str) -> HeldOutTest | None:
    """The evaluation of an ensemble on the held-out test set; None where there is none, or one of another ensemble."""
    test = run.held_out_test.read_if_exists()
    return test if test is not None and test.ensemble == ensemble_id else None


def predict_batches(model: keras.Model, images: Images) -> Probabilities:
    """Class probabilities of the exported model, float32 (n, classes)."""
    return predict_outputs(model, images, batch_size=_PREDICT_BATCH)[0]


def _num_suite_images(splits: Splits) -> int:
    """How many test images the shift suite shows."""
    proportional = len(splits.train_index(0)) // _TRAIN_IMAGES_PER_SUITE_IMAGE
    return min(max(proportional, _MIN_SUITE_IMAGES), _MAX_SUITE_IMAGES)


def _predicted_seconds(model: keras.Model, dataset: CellDataset, splits: Splits, clock: Clock) -> float:
    """Of the whole evaluation, from one batch that is predicted twice, the second time measured."""
    index = splits.test_index()
    batch = dataset.images[np.resize(index, _PREDICT_BATCH)]
    predict_batches(model, batch)
    start = clock.now()
    predict_batches(model, batch)
    seconds_per_image = (clock.now() - start) / _PREDICT_BATCH
    # Rendering a shifted image takes about as long as predicting it.
    rendered = len(GROUPS) * _num_suite_images(splits) + _MIN_SITES * _IMAGES_PER_SITE
    return seconds_per_image * (len(index) + 2 * rendered)


def _simulated_sites(
    model: keras.Model,
    labels: Labels,
    images: Images,
    images_per_site: int,
    *,
    seed: int,
    more_until: float,
    clock: Clock,
) -> Iterator[SimulatedSiteResult]:
    """The model's result at each simulated site; all sites see the same number of images, others where there are enough.

    Beyond ``_MIN_SITES`` no batch of sites is begun that would probably end after ``more_until`` on the clock.
    """
    order = np.random.default_rng([seed, 40]).permutation(len(labels))
    sites_per_batch = max(_PREDICT_BATCH // images_per_site, 1)
    sites = draw_simulated_sites(_MAX_SITES, seed=seed + 1)
    first, slowest = 0, 0.0
    while first < len(sites):
        start = clock.now()
        if first >= _MIN_SITES and start + _SLOWDOWN_MARGIN * slowest > more_until:
            return
        last = min(first + sites_per_batch, _MIN_SITES if first < _MIN_SITES else len(sites))
        rows = [
            order[(np.arange(images_per_site) + number * images_per_site) % len(labels)]
            for number in range(first, last)
        ]
        rendered = [site.render(images[shown]) for site, shown in zip(sites[first:last], rows, strict=True)]
        predicted = predict_batches(model, np.concatenate(rendered)).argmax(axis=1)
        is_correct = (predicted == labels[np.concatenate(rows)]).reshape(len(rows), images_per_site)
        for site, correct in zip(sites[first:last], is_correct.sum(axis=1).tolist(), strict=True):
            yield SimulatedSiteResult(
                families=tuple(family.name for family in site.families),
                groups=site.groups,
                severity=site.mean_severity,
                correct=correct,
                images=images_per_site,
            )
        first, slowest = last, max(slowest, clock.now() - start)
