"""What test-time views change on images that were kept apart, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from bloodauto.data.dataset import Cells
from bloodauto.data.split import Splits
from bloodauto.ensemble.assemble import Looked, looked_again
from bloodauto.ensemble.record import Ensemble
from bloodauto.errors import RunError
from bloodauto.evaluation.fold_data import prepare, probabilities
from bloodauto.evaluation.tta import over_views
from bloodauto.export.keras_model import Member
from bloodauto.run.files import read_arrays
from bloodauto.shift.suite import ShiftSuite

_TIMED_IMAGES = 64
_TIMINGS = 3


@dataclass(frozen=True)
class ViewGain:
    """An ensemble with its views and without.

    Attributes:
        passes, passes_without: forward passes through networks that one image costs.
        time_ratio: measured, of the exported models on this machine.
        scores, scores_without: as in ``Ensemble``, each calibrated for itself, on images no member was trained on.
        images: how many of them are unchanged validation images.
    """

    passes: int
    passes_without: int
    time_ratio: float
    scores: Mapping[str, float]
    scores_without: Mapping[str, float]
    images: int

    @property
    def helps(self) -> bool:
        """Whether the shift score is higher with the views; differences of a point or less may be chance."""
        return self.scores["shift"] > self.scores_without["shift"]


def look_again(ensemble: Ensemble, members: Mapping[str, Member], cells: Cells, splits: Splits, *, seed: int) -> Looked:
    """Every network's answers for the images it was not trained on and their shifted views, averaged over its views.

    Args:
        members: by a training's name, its network and views.
        seed: of the run, from which its shifted views derive.

    Raises:
        RunError: the images or the seed are not those of the run.
    """
    looked = {}
    trained = [one for member in ensemble.members for one in member.networks]
    for fold in sorted({one.fold for one in trained}):
        material = prepare(cells, splits, ShiftSuite(seed=seed), fold=fold)
        for one in trained:
            if one.fold != fold:
                continue
            stored = read_arrays(one.folder / "predictions.npz")
            plan = material.plan
            expected = {
                "index": material.validation_index,
                "view_labels": material.view_labels,
                "view_families": plan.family_names,
                "view_severities": plan.severities,
            }
            if not all(np.array_equal(stored[name], value) for name, value in expected.items()):
                raise RunError(
                    f"{one.folder}: expected predictions for these validation images and views, got others. "
                    "Give the --seed and the images that it was trained with."
                )
            member = members[one.name]
            shares = {view.name: view.share for view in member.views}
            network = over_views(member.network, shares)
            looked[one.name] = {
                "clean": probabilities(network, cells.images, material.validation_index),
                "shifted": probabilities(network, material.views),
            }
    return looked


def view_gain(
    without: Ensemble,
    looked: Looked,
    members: Sequence[Member],
    models: tuple[keras.Model, keras.Model],
    images: np.ndarray,
) -> ViewGain:
    """Compares.

    Args:
        without: the ensemble without views; ``looked``: its members' answers with them.
        models: the exported model with views, and without.
        images: uint8 (n, h, w, 3), some to measure time on.
    """
    batch = np.resize(images, (_TIMED_IMAGES, *images.shape[1:]))
    with_views, plain = (_seconds(model, batch) for model in models)
    return ViewGain(
        passes=sum(member.passes for member in members),
        passes_without=len(members),
        time_ratio=with_views / plain,
        scores=looked_again(without, looked).scores,
        scores_without=without.scores,
        images=without.images,
    )


def _seconds(model: keras.Model, batch: np.ndarray) -> float:
    """The fastest of a few passes; others are disturbed by what else the machine does."""
    model.predict_on_batch(batch)
    taken = []
    for _ in range(_TIMINGS):
        started = time.perf_counter()
        model.predict_on_batch(batch)
        taken.append(time.perf_counter() - started)
    return min(taken)
