"""The one look at the held-out test: how good the ensemble is at home, under simulated shifts, and what follows for elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.ensemble.record import Ensemble
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.metrics import (
    compute_metrics,
    confusion_matrix,
    expected_calibration_error,
    wilson_interval,
)
from bloodauto.evaluation.shift_score import score_shift
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_json, write_json
from bloodauto.shift.corruptions import GROUPS
from bloodauto.shift.external_estimate import SiteOutcome, estimate_external_performance
from bloodauto.shift.simulated_sites import draw_simulated_sites
from bloodauto.shift.suite import ShiftSuite

_PREDICT_BATCH = 128
#: Drawn laboratories at least, and at most where there is time left: they narrow the interval of what to expect.
_MIN_SITES = 96
_MAX_SITES = 400
#: A batch of laboratories may be so much slower than any before it.
_SLOWDOWN_MARGIN = 1.5
#: Images shown in each laboratory. What so few miss by chance is told apart from what laboratories differ by, so that more
#: laboratories are worth more than more images.
_IMAGES_PER_SITE = 12
#: Most and fewest images shown in views of the suite. Between them they grow with what there was to learn from, as what is
#: judged after a training does: the budget keeps for this end what such judgements have taken.
_SUITE_IMAGES = (128, 64)
_TRAIN_IMAGES_PER_SUITE_IMAGE = 16


def predict_batches(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Probabilities of the exported model, float32 (n, c)."""
    return predict_outputs(model, images, batch_size=_PREDICT_BATCH)[0]


def _predicted_seconds(model: keras.Model, dataset: CellDataset, splits: Splits) -> float:
    """Of all that follows, from one batch that is answered twice, the second time on the clock."""
    index = splits.test_index()
    batch = dataset.images[np.resize(index, _PREDICT_BATCH)]
    predict_batches(model, batch)
    started = time.perf_counter()
    predict_batches(model, batch)
    per_image = (time.perf_counter() - started) / _PREDICT_BATCH
    # A view is rendered, too, for about what it costs to answer for it.
    return per_image * (len(index) + 2 * (len(GROUPS) * _suite_images(splits) + _MIN_SITES * _IMAGES_PER_SITE))


def _suite_images(splits: Splits) -> int:
    """How many test images the suite shows."""
    most, fewest = _SUITE_IMAGES
    return min(max(len(splits.train_index(0)) // _TRAIN_IMAGES_PER_SUITE_IMAGE, fewest), most)


def evaluate_held_out_test(
    run: RunDirectory,
    model: keras.Model,
    ensemble: Ensemble,
    dataset: CellDataset,
    splits: Splits,
    *,
    seed: int,
    seconds: float = math.inf,
    reserved_seconds: float = 0.0,
) -> None:
    """Judges the model of an ensemble without test-time transforms on the held-out test images and writes ``test.json``.

    Does nothing when that was done: the test is opened once, whatever is exported later.

    Args:
        seconds: wall seconds it may take; when it would probably take longer it stays closed, for a later export to open.
            When it takes less, more laboratories are drawn. Infinite: as many as it takes, and no more laboratories.
        reserved_seconds: of these, what more laboratories leave alone.
    """
    started = time.perf_counter()
    index = splits.test_index()
    if run.held_out_test.path.is_file() or len(index) == 0:
        return
    if seconds < math.inf and seconds < _predicted_seconds(model, dataset, splits):
        return
    labels, images = dataset.labels[index], dataset.images[index]
    probabilities = predict_batches(model, images)
    answers = probabilities.argmax(axis=1)
    # Other draws than the search's own suite, so that the views themselves are new too.
    plan = ShiftSuite(seed=seed + 1, num_images=_suite_images(splits)).plan(labels)
    shifted = predict_batches(model, plan.render(images))
    shifted_labels = labels[plan.image_index]
    score = score_shift(labels, probabilities, plan, shifted)
    correct = int((answers == labels).sum())
    low, high = wilson_interval(correct, len(labels))
    metrics = compute_metrics(labels, probabilities)
    more_until = started + seconds - reserved_seconds if seconds < math.inf else started
    simulated_sites = list(
        _simulated_sites(model, labels, images, min(_IMAGES_PER_SITE, len(labels)), seed=seed, more_until=more_until)
    )
    outcomes = [SiteOutcome(tuple(one["groups"]), one["correct"], one["images"]) for one in simulated_sites]
    external = estimate_external_performance(outcomes)
    write_json(
        run.held_out_test.path,
        {
            "ensemble": ensemble.ensemble_id,
            "images": len(labels),
            "accuracy": metrics.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "balanced_accuracy": metrics.balanced_accuracy,
            "macro_f1": metrics.macro_f1,
            "loss": metrics.loss,
            "ece": expected_calibration_error(labels, probabilities),
            "ece_shifted": expected_calibration_error(shifted_labels, shifted),
            "confusion": confusion_matrix(labels, answers, len(dataset.class_names)).tolist(),
            "classes": list(dataset.class_names),
            "shift": {group.name: group.accuracy for group in score.groups},
            "shifted_accuracy": float((shifted.argmax(axis=1) == shifted_labels).mean()),
            "shifted_images": len(plan),
            "external": None if external is None else asdict(external),
            "simulated_sites": simulated_sites,
        },
    )


def read_held_out_test(run: RunDirectory, ensemble: Ensemble) -> dict[str, Any] | None:
    """What the held-out test said of this ensemble; None where it has not been opened, or was opened for another one."""
    if not run.held_out_test.path.is_file():
        return None
    test: dict[str, Any] = read_json(run.held_out_test.path)
    return test if test.get("ensemble") == ensemble.ensemble_id else None


def _simulated_sites(
    model: keras.Model, labels: np.ndarray, images: np.ndarray, count: int, *, seed: int, more_until: float
) -> Iterator[dict[str, Any]]:
    """How the model does in each of the drawn laboratories, each of which sees ``count`` images, others as far as they go.

    Beyond ``_LABORATORIES`` of them, no batch is begun that would probably end after ``more_until``.
    """
    order = np.random.default_rng([seed, 40]).permutation(len(labels))
    per_batch = max(_PREDICT_BATCH // count, 1)
    shifts = draw_simulated_sites(_MAX_SITES, seed=seed + 1)
    start, slowest = 0, 0.0
    while start < len(shifts):
        begins = time.perf_counter()
        if start >= _MIN_SITES and begins + _SLOWDOWN_MARGIN * slowest > more_until:
            return
        end = min(start + per_batch, _MIN_SITES if start < _MIN_SITES else len(shifts))
        some = shifts[start:end]
        rows = [order[(np.arange(count) + (start + place) * count) % len(labels)] for place in range(len(some))]
        rendered = np.concatenate([one.render(images[own]) for one, own in zip(some, rows, strict=True)])
        right = predict_batches(model, rendered).argmax(axis=1) == labels[np.concatenate(rows)]
        for place, one in enumerate(some):
            yield {
                "families": [family.name for family in one.families],
                "groups": list(one.groups),
                "severity": one.mean_severity,
                "correct": int(right[place * count : (place + 1) * count].sum()),
                "images": count,
            }
        start, slowest = end, max(slowest, time.perf_counter() - begins)
