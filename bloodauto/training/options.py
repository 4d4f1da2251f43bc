"""How to train, as opposed to what."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bloodauto.config.objectives import Objective

if TYPE_CHECKING:
    from bloodauto.training.distillation import Teacher

#: A training that starts late keeps so much of its time.
MIN_TIME_LIMIT_FRACTION = 0.3


@dataclass(frozen=True)
class TrainOptions:
    """How to train, as opposed to what.

    Attributes:
        objective: which score decides which epoch is kept and when patience ends.
        weights_file: pre-trained weights of the backbone; None: random.
        start_weights: weights of the whole network to start from (a finished trial of the same network), or None.
        jit_compile, precision: as Keras knows them; chosen by measurement (``trial/device.py``).
        num_threads: threads that prepare images.
        num_processes: processes that do so in their place; see ``num_augmentation_processes``.
        time_limit_seconds: the schedule runs by whichever is further, its share of the steps or its share of this time,
            so that a training that is given an hour ends within it with its learning rate fully decayed (Li et al.,
            arXiv:1905.04753). It limits training time, not start-up. None: by steps alone.
        train_until: on the clock of ``time.monotonic``; the time limit then is what is left until there when the first batch
            begins, so that a start that was slower or quicker than foreseen does not move the end. None: as it was given.
        average_last_epochs: whether the average of the last epochs' weights is kept where it is better than the best epoch,
            in stages that may gain by it (``may_gain_from_averaging``). A search does so; a training by itself follows its recipe.
        teacher: its answers take the place of the labels that are learnt from; see ``DistillationBatches``. None: the labels.
    """

    objective: Objective = "shift"
    weights_file: Path | None = None
    start_weights: Path | None = None
    jit_compile: bool = False
    precision: str = "float32"
    num_threads: int = 1
    num_processes: int = 0
    time_limit_seconds: float | None = None
    train_until: float | None = None
    average_last_epochs: bool = False
    teacher: Teacher | None = None

    def remaining_time_limit_seconds(self) -> float | None:
        """The time limit of a training whose first batch begins now, in seconds; None: none.

        No less than ``MIN_TIME_LIMIT_FRACTION`` of what was foreseen: with less the training would be worth nothing.
        """
        if self.time_limit_seconds is None or self.train_until is None:
            return self.time_limit_seconds
        return max(self.train_until - time.monotonic(), MIN_TIME_LIMIT_FRACTION * self.time_limit_seconds)
