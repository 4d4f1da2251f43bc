"""Seconds from a trial's assignment to its second training step, in a new worker process and in one that has trained.

    python benchmarks/turnaround.py --weights-dir ../shared/weights             # four backbones, some minutes on one core
    python benchmarks/turnaround.py --backbones mobilenet_v2_0.35 --repeats 3
    python benchmarks/turnaround.py --weights-dir ../shared/weights --json

Each backbone has a process of its own, with one core, as a worker of a search has it. Before the clock starts the process has
imported its modules, claimed its device and prepared the fold. Then it trains recipes one after another with a
``TrainingSession``, each for two steps, on drawn cells of 96 px in batches of 64:

    cold          the first training of the process: AdamW, dropout 0.2
    warm          the same architecture with another recipe: Nadam, dropout 0.5, focal loss, clipping, rates by layer
    next stage    from the last step of its first stage to the second step of the next, which trains the same weights with
                  another optimizer; the evaluation between them included
    two steps     from the second step to the fourth: a part of every figure

The clock runs from the call of ``TrainingSession.epochs`` to the end of the second step. Medians over the warm trainings,
each with another recipe. ``--json`` prints one object: for each backbone wall seconds (``_seconds``) and seconds of the
process's cores (``_cpu_seconds``); the key without a name of a phase is the warm one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from bloodauto.config.recipe import Recipe
    from bloodauto.training.session import TrainingSession

BACKBONES = ("mobilenet_0.25", "mobilenet_1.0", "mobilenet_v2_0.35", "mobilenet_v2_1.0")
#: Of the data set; an epoch has about six steps.
NUM_IMAGES = 520
SEED = 0


class Moments:
    """Wall and core time at the end of each step, through ``should_stop``, which is called there."""

    def __init__(self, stop_after: int) -> None:
        self._stop_after = stop_after
        self.times = [(time.perf_counter(), time.process_time())]

    def __call__(self) -> bool:
        self.times.append((time.perf_counter(), time.process_time()))
        return len(self.times) > self._stop_after

    def between(self, start: int, end: int) -> tuple[float, float]:
        """Wall and core seconds from the end of one step to that of another; step 0 is the assignment."""
        (wall, cores), (later_wall, later_cores) = self.times[start], self.times[end]
        return later_wall - wall, later_cores - cores


def recipe_of(backbone: str, weights: str, number: int) -> Recipe:
    """The recipe of a process's training with a number; they differ in all but architecture and trained weights."""
    from bloodauto.config.recipe import parse_recipe

    optimizers: list[dict[str, Any]] = [
        {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.02},
        {"name": "nadam", "learning_rate": 5e-4, "clip_norm": 1.0},
        {"name": "lion", "learning_rate": 1e-4, "weight_decay": 0.5},
        {"name": "sgd", "learning_rate": 1e-2, "momentum": 0.8},
    ]
    losses: list[dict[str, Any]] = [
        {"label_smoothing": 0.05},
        {"name": "focal", "gamma": 1.0 + 0.1 * number, "class_weights": "balanced"},
    ]
    return parse_recipe(
        {
            "backbone": {"name": backbone, "weights": weights, "batch_norm": "train"},
            "input": {"size_px": 96, "filters": ["standardise"]},
            "head": {"dropout": 0.2 if number == 0 else 0.5},
            "loss": losses[number % 2],
            "augmentation": {"orientation": True, "framing": 0.3, "stain_jitter": 1.0 / (1 + number)},
            "batch_size": 64,
            "stages": [
                {
                    "epochs": 1,
                    "layer_decay": 1.0 if number == 0 else 0.8,
                    "optimizer": optimizers[number % len(optimizers)],
                    "weight_averaging": "none",
                },
                {"epochs": 1, "optimizer": optimizers[(number + 1) % len(optimizers)]},
            ],
        },
        origin="benchmark",
    )


def measure(backbone: str, weights_dir: Path | None, repeats: int) -> dict[str, tuple[float, float]]:
    """Wall and core seconds of one backbone, in this process."""
    from bloodauto.data.clean import clean
    from bloodauto.data.split import make_splits
    from bloodauto.data.synthetic.generator import synthesize
    from bloodauto.models.backbone_networks import find_weights
    from bloodauto.models.device import Device
    from bloodauto.shift.suite import ShiftSuite
    from bloodauto.training.session import TrainingData, TrainingSession
    from bloodauto.training.trainer import TrainOptions

    dataset = synthesize(NUM_IMAGES, site="lab_a", seed=SEED, image_size_px=96)
    splits = make_splits(dataset, clean(dataset, enabled=False), seed=SEED)
    weights = "none" if weights_dir is None else "imagenet"
    weights_file = None if weights_dir is None else find_weights(backbone, weights, weights_dir)
    data = TrainingData(dataset, splits, ShiftSuite(seed=SEED, num_images=64))
    with TrainingSession.open(data, device=Device(cores=1), dedicated_process=True) as session:
        steps = len(session.fold().train_index) // 64
        assert steps >= 4, f"expected an epoch of at least 4 steps, got {steps}"

        def train(number: int, stop_after: int) -> Moments:
            return run_training(
                session, recipe_of(backbone, weights, number), TrainOptions(weights_file=weights_file), stop_after
            )

        cold = train(0, steps + 2)
        memory_before = psutil.Process().memory_info().rss
        warm = [train(number, steps + 2) for number in range(1, repeats + 1)]
        memory_after = psutil.Process().memory_info().rss
        two_steps = [moments.between(2, 4) for moments in warm]
        stages = [moments.between(steps, steps + 2) for moments in warm]
    print(f"{backbone}: {(memory_after - memory_before) / 2**20:.0f} MiB more after warm trainings", file=sys.stderr)
    return {
        "cold": cold.between(0, 2),
        "warm": medians([moments.between(0, 2) for moments in warm]),
        "next_stage": medians(stages),
        "two_steps": medians(two_steps),
    }


def run_training(session: TrainingSession, recipe: Recipe, options: Any, stop_after: int) -> Moments:
    """Trains until a step; the time runs from the assignment."""
    with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
        should_stop = Moments(stop_after)
        for _ in session.epochs(recipe, Path(folder), seed=SEED, options=options, should_stop=should_stop):
            pass
        return should_stop


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """The median of each of the two."""
    wall, cores = zip(*pairs, strict=True)
    return statistics.median(wall), statistics.median(cores)


def measure_in_process(backbone: str, arguments: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """As ``measure``, in a new process."""
    command = [sys.executable, __file__, "--worker", backbone, "--repeats", str(arguments.repeats)]
    if arguments.weights_dir is not None:
        command += ["--weights-dir", str(arguments.weights_dir)]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, tuple[float, float]] = json.loads(process.stdout.splitlines()[-1])
    return result


def main(write: Callable[[str], object] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--weights-dir", type=Path, help="folder of pre-trained weights; left out: random weights")
    parser.add_argument("--repeats", type=int, default=3, help="warm trainings")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        write(json.dumps(measure(arguments.worker, arguments.weights_dir, arguments.repeats)))
        return
    values: dict[str, float] = {}
    for backbone in arguments.backbones:
        for name, (wall, cores) in measure_in_process(backbone, arguments).items():
            prefix = backbone if name == "warm" else f"{backbone}_{name}"
            values |= {f"{prefix}_seconds": round(wall, 2), f"{prefix}_cpu_seconds": round(cores, 2)}
            if not arguments.json:
                write(f"{backbone:<20}{name:<22}{wall:>8.2f} s{cores:>8.2f} core-s")
    if arguments.json:
        write(json.dumps(values))


if __name__ == "__main__":
    main()
