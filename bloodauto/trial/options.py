"""How to train, as opposed to what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Objective = Literal["shift", "accuracy", "balanced_accuracy", "macro_f1"]


@dataclass(frozen=True)
class TrainOptions:
    """How to train, as opposed to what.

    Attributes:
        objective: which score decides which epoch is kept and when patience ends.
        weights_file: pre-trained weights of the backbone; None: random.
        start_weights: weights of the whole network to start from (a finished trial of the same network), or None.
        jit_compile, precision: as Keras knows them; chosen by measurement (``trial/device.py``).
        augmentation_engine: ``opencv``, or ``tensorflow`` on its device; chosen by measurement as well.
        num_threads: threads that prepare images.
        time_limit_seconds: the schedule runs by whichever is further, its share of the steps or its share of this time,
            so that a training that is given an hour ends within it with its learning rate fully decayed (Li et al.,
            arXiv:1905.04753). It limits training time, not start-up. None: by steps alone.
    """

    objective: Objective = "shift"
    weights_file: Path | None = None
    start_weights: Path | None = None
    jit_compile: bool = False
    precision: str = "float32"
    augmentation_engine: str = "opencv"
    num_threads: int = 1
    time_limit_seconds: float | None = None
