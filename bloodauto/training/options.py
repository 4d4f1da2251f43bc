"""How to train, as opposed to what."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bloodauto.config.objectives import Objective
from bloodauto.training.limits import TimeLimits

if TYPE_CHECKING:
    from bloodauto.training.distillation import Teacher


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
        limits: until when the training may run, on its clock.
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
    limits: TimeLimits = field(default_factory=TimeLimits)
    average_last_epochs: bool = False
    teacher: Teacher | None = None
