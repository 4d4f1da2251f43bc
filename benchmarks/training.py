"""What augmentation costs a training: epochs with and without it, taking turns in one run.

    python benchmarks/training.py --images ../shared/data/pbc96            # two minutes on two cores
    python benchmarks/training.py --cores 1 --recipe small_mobilenet_025   # a trial of a search has one core
    python benchmarks/training.py --quick                                  # drawn cells, half a minute, rough

One network, that of the recipe with random weights, compiled as ``bloodauto train`` compiles it (precision and XLA as measured
on this machine) and fed by one augmenting thread, or by ``--processes``, trains an epoch with each augmentation in turn.
Printed are the medians of the epochs' lengths over that of the epoch without augmentation in the same turn, by the clock
and by core time (which other work on the machine disturbs less), and the fraction of an epoch that the network waited for
images. An epoch holds training steps alone: evaluation, which is the same with and without augmentation, is excluded.

    none          shuffling alone
    three         RandAugment of keras-cv's ten operations: three of them, magnitude 0.5
    declared      what the recipe says
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

if TYPE_CHECKING:
    from bloodauto.config.recipe import Recipe
    from bloodauto.transforms import BatchPipeline

SEED = 0


@dataclass(frozen=True)
class Epoch:
    """One epoch: its length by the clock, the time it took of all cores, and how long the network waited for images."""

    seconds: float
    core_seconds: float
    waiting_seconds: float


def load_images(folder: Path | None, count: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Images uint8 (count, h, w, 3), labels (count,) and the number of classes; drawn cells where no folder is given."""
    if folder is None:
        from bloodauto.data.synthetic.generator import synthesize

        dataset = synthesize(count, site="lab_a", seed=SEED, image_size_px=96)
    else:
        from bloodauto.data.load import load_dataset

        dataset = load_dataset(folder)
    rows = np.random.default_rng(SEED).permutation(len(dataset.images))[:count]
    return dataset.images[rows], dataset.labels[rows], len(dataset.class_names)


def build(recipe: Recipe, image_shape_px: tuple[int, int], num_classes: int) -> Any:
    """The recipe's network, compiled for its first stage as a training compiles it."""
    import keras

    from bloodauto.models.device import cached_device_settings
    from bloodauto.models.network import apply_unfreeze, build_network
    from bloodauto.training.fused_optimizer import FusedOptimizer
    from bloodauto.training.losses import AdjustableLoss

    choice = cached_device_settings(on_gpu=False)
    keras.config.set_dtype_policy(choice.precision)
    network = build_network(recipe, num_classes=num_classes, image_shape_px=image_shape_px, weights_file=None)
    apply_unfreeze(network, recipe.backbone, recipe.stages[0])
    network.compile(
        optimizer=FusedOptimizer(recipe.stages[0].optimizer),
        loss=AdjustableLoss(recipe.loss, num_classes),
        weighted_metrics=["accuracy"],
        jit_compile=choice.jit_compile,
    )
    return network


def pipelines_of(recipe: Recipe, images: np.ndarray, targets: np.ndarray, processes: int) -> dict[str, BatchPipeline]:
    """By name, what the epochs are fed by."""
    from bloodauto.config.recipe import RandAugmentSettings
    from bloodauto.training.augmentation import policy_of
    from bloodauto.transforms import BatchAugmenter, BatchPipeline, BatchWorkers, RandAugment

    policies = {
        "none": None,
        "three": RandAugment(RandAugmentSettings(num_ops=3, magnitude=0.5)),
        "declared": policy_of(recipe.augmentation),
    }
    return {
        name: BatchPipeline(
            images,
            targets,
            BatchAugmenter(policy, seed=SEED),
            batch_size=recipe.batch_size,
            workers=BatchWorkers(num_processes=0 if policy is None else processes),
        )
        for name, policy in policies.items()
    }


def core_seconds() -> float:
    """Of this process and of those it started that still run."""
    times = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(float(child.user + child.system) for child in times)


def train_epoch(network: Any, pipeline: BatchPipeline, number: int) -> Epoch:
    waited, started, core_started = pipeline.wait_seconds, time.perf_counter(), core_seconds()
    batches = pipeline.epoch(number)
    network.fit(batches, steps_per_epoch=pipeline.batches_per_epoch, epochs=1, verbose=0, shuffle=False)
    return Epoch(time.perf_counter() - started, core_seconds() - core_started, pipeline.wait_seconds - waited)


def measure(network: Any, pipelines: dict[str, BatchPipeline], turns: int) -> dict[str, list[Epoch]]:
    """Turns of one epoch each; the first of all, in which TensorFlow traces and memory is touched, is not counted."""
    epochs: dict[str, list[Epoch]] = {name: [] for name in pipelines}
    for turn in range(turns + 1):
        for name, pipeline in pipelines.items():
            epoch = train_epoch(network, pipeline, turn)
            if turn > 0:
                epochs[name].append(epoch)
    return epochs


def report(epochs: dict[str, list[Epoch]], images_per_epoch: int) -> None:
    plain = epochs["none"]
    print(f"  {'':<10}{'images/s':>10}{'images/core-s':>15}{'time':>8}{'core time':>11}{'waiting':>9}")
    for name, trained in epochs.items():
        seconds = float(np.median([epoch.seconds for epoch in trained]))
        core_seconds = float(np.median([epoch.core_seconds for epoch in trained]))
        ratio = np.median([epoch.seconds / base.seconds for epoch, base in zip(trained, plain, strict=True)])
        core_ratio = np.median(
            [epoch.core_seconds / base.core_seconds for epoch, base in zip(trained, plain, strict=True)]
        )
        waiting = sum(epoch.waiting_seconds for epoch in trained) / sum(epoch.seconds for epoch in trained)
        print(f"  {name:<10}{images_per_epoch / seconds:>10,.0f}{images_per_epoch / core_seconds:>15,.0f}"
              f"{ratio:>7.2f}x{core_ratio:>10.2f}x{waiting:>8.1%}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=Path, help="a folder of images by class, or an archive; drawn cells when left out"
    )
    parser.add_argument("--recipe", default="small_mobilenet_025", help="a file, or the name of a shipped recipe")
    parser.add_argument("--count", type=int, default=2560, help="images in an epoch")
    parser.add_argument("--turns", type=int, default=6, help="epochs of each kind")
    parser.add_argument("--cores", type=int, help="all when left out")
    parser.add_argument("--processes", type=int, default=0, help="that augment; 0: one thread does")
    parser.add_argument("--quick", action="store_true", help="640 images, three turns")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores]
    os.sched_setaffinity(0, cores)

    from bloodauto.config.recipe import load_recipe
    from bloodauto.config.shipped import find_recipe_file
    from bloodauto.models.device import claim_device

    claim_device(cores=len(cores), gpu_fraction=0.0)
    recipe = load_recipe(find_recipe_file(arguments.recipe))
    count, turns = (640, 3) if arguments.quick else (arguments.count, arguments.turns)
    images, labels, num_classes = load_images(arguments.images, count)
    network = build(recipe, (images.shape[1], images.shape[2]), num_classes)
    pipelines = pipelines_of(recipe, images, np.eye(num_classes, dtype=np.float32)[labels], arguments.processes)
    steps = pipelines["none"].batches_per_epoch
    by = f"{arguments.processes} processes" if arguments.processes else "one thread"
    print(f"{recipe.name}: {recipe.backbone.label}, {images.shape[1]} px, batches of {recipe.batch_size}. "
          f"Cores: {len(cores)}. Augmented by {by}. Load before: {os.getloadavg()[0]:.1f}.")  # fmt: skip
    print(f"Epochs of {steps} steps, {turns} of each kind:")
    report(measure(network, pipelines, turns), steps * recipe.batch_size)


if __name__ == "__main__":
    main()
