"""Images a second of RandAugment, side by side in one run: this project, keras-cv, keras, plain OpenCV and a lower bound.

    python benchmarks/augment.py                                    # drawn images, 96 and 224 px, three operations
    python benchmarks/augment.py --images folder --repeats 5        # your own images
    python benchmarks/augment.py --cores 1 --sides 96 --num-ops 1 3 # one core, one and three operations

Every competitor gets the same cores, the same images in batches of 64, and the same window: its iterator is started, eight
batches are taken and not timed (graphs are traced, processes started, buffers filled), and the next 4,096 images are timed. The
competitors take turns. A figure is the median over the turns; a ratio is the median of the ratios within a turn, with its
smallest and largest value. keras-cv is left out, with a note, where it is not installed (``pip install keras-cv``). Magnitude
0.5, rate 1. keras' RandAugment has a fixed set of eleven operations; all others use keras-cv's ten.

    bloodauto      BatchPipeline with RandAugment and a process for each core (one thread on one core)
    one thread     the same with one thread, as a training on a few cores runs it
    step by step   as bloodauto, but each operation applied separately: what fusion gains
    plain OpenCV   as bloodauto, but RandAugment as it is commonly written with OpenCV (plain_opencv.py)
    lower bound    one OpenCV warp and one lookup for each image, nothing drawn, no pipeline, a thread for each core
    keras-cv       keras_cv.layers.RandAugment in a tf.data pipeline: parallel map, prefetch, in any order, as graphs; the
                   faster of mapping batches and mapping single images before they are batched
    keras          keras.layers.RandAugment, likewise

By the clock a figure holds on a quiet machine only: the load is printed. Core time is that of this process and the processes it
started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import psutil
from augment_policies import PlainOpenCV, StepByStep

from bloodauto.config.recipe import OperationStep, RandAugmentSettings, load_recipe
from bloodauto.config.shipped import find_recipe_file
from bloodauto.transforms import (
    ApplyOperation,
    BatchAugmenter,
    BatchPipeline,
    BatchPolicy,
    BatchWorkers,
    Policy,
    RandAugment,
    Sequence,
    Symmetries,
)
from bloodauto.types import Images

BATCH_SIZE = 64
WARM_UP_BATCHES = 8
MAGNITUDE = 0.5
#: A conventional stack of augmentations for cells, each of which is applied to every image.
STACK = ("rotate_any", "zoom", "stretch", "translate", "brightness", "contrast", "gamma")
SHIPPED_RECIPE = "small_mobilenet_025"

#: Starts a new iterator over the number of images of each batch.
Competitor: TypeAlias = Callable[[], Iterator[int]]


def synthetic_images(count: int, side: int) -> Images:
    """Discs on a textured ground, so that histograms and edges are not those of noise."""
    rng = np.random.default_rng(0)
    images = np.empty((count, side, side, 3), np.uint8)
    for image in images:
        ground = cv2.GaussianBlur(rng.standard_normal((side, side, 3)).astype(np.float32), (0, 0), side / 24)
        image[:] = np.clip(225 + 200 * ground, 0, 255)
        for _ in range(4):
            x, y = rng.integers(0, side, 2).tolist()
            red, green, blue = rng.integers(40, 220, 3).tolist()
            cv2.circle(image, (x, y), int(side * rng.uniform(0.08, 0.3)), (red, green, blue), -1, cv2.LINE_AA)
    return images


def read_images(folder: Path, count: int, side: int) -> Images:
    """Images below a folder, resized, evenly spread over the sorted names."""
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".bmp", ".tif"}
    )
    if not files:
        raise SystemExit(f"{folder}: expected images below this folder, found none.")
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, count).astype(int)]
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in chosen]
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])


def pipeline_of(images: Images, policy: BatchPolicy, num_batches: int, workers: BatchWorkers) -> Competitor:
    """Our pipeline; an epoch is as long as warm-up and window together, in shuffled order."""
    targets = np.ones((len(images), 1), np.float32)
    total = num_batches * BATCH_SIZE
    pipeline = BatchPipeline(
        images,
        targets,
        BatchAugmenter(policy, seed=0),
        batch_size=BATCH_SIZE,
        order=lambda epoch: np.resize(np.random.default_rng(epoch).permutation(len(images)), total),
        workers=workers,
    )
    numbers = iter(range(1, 10**9))

    def batches() -> Iterator[int]:
        try:
            yield from (len(batch.images) for batch in pipeline.epoch(next(numbers)))
        finally:
            pipeline.close()

    return batches


def lower_bound(images: Images, cores: int) -> Competitor:
    """One warp and one lookup for each image, prepared in advance."""
    cv2.setNumThreads(1)
    side = images.shape[1]
    rng = np.random.default_rng(0)
    warps = RandAugment(
        RandAugmentSettings(
            num_ops=1, magnitude=MAGNITUDE, operations=("shear_x", "shear_y", "translate_x", "translate_y")
        )
    )
    matrices = [chain[0].payload.matrix[:2] for chain in warps.draw(len(images), side, side, rng)]  # type: ignore[union-attr]
    tables = rng.integers(0, 256, (len(images), 1, 256, 3), dtype=np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def work(batch_index: int) -> int:
        out = np.empty((BATCH_SIZE, side, side, 3), np.uint8)
        scratch = np.empty((side, side, 3), np.uint8)
        rows = (batch_index * BATCH_SIZE + np.arange(BATCH_SIZE)) % len(images)
        for row, target in zip(rows.tolist(), out, strict=True):
            cv2.warpAffine(
                images[row], matrices[row], (side, side), dst=scratch, flags=flags, borderMode=cv2.BORDER_REFLECT
            )
            cv2.LUT(scratch, tables[row], dst=target)
        return len(out)

    def batches() -> Iterator[int]:
        with ThreadPoolExecutor(cores) as pool:
            ahead = [pool.submit(work, index) for index in range(cores + 2)]
            for index in range(cores + 2, 10**9):
                yield ahead.pop(0).result()
                ahead.append(pool.submit(work, index))

    return batches


def tensorflow_pipeline(images: Images, layer: Any, *, by_batch: bool) -> Competitor:
    """A layer in a tf.data pipeline, mapped over batches or over single images."""
    import tensorflow as tf

    with tf.device("cpu"):
        data = tf.data.Dataset.from_tensor_slices(images).repeat()

        def augment(images: Any) -> Any:
            return layer(images, training=True)

        if by_batch:
            data = data.batch(BATCH_SIZE).map(augment, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        else:
            data = data.map(augment, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False).batch(BATCH_SIZE)
        data = data.prefetch(tf.data.AUTOTUNE)
    return lambda: (int(batch.shape[0]) for batch in data)


def faster_tensorflow_pipeline(images: Images, layer: Any) -> tuple[Competitor, str]:
    """The faster form of a layer's pipeline, over eight batches, and its name."""
    forms = {
        name: tensorflow_pipeline(images, layer, by_batch=name == "batches") for name in ("batches", "single images")
    }
    seconds = {name: timed(form, 8).seconds for name, form in forms.items()}
    name = min(seconds, key=lambda name: seconds[name])
    return forms[name], name


def keras_cv_layer(num_ops: int) -> Any | None:
    """keras-cv's RandAugment; None where it is not installed."""
    try:
        import keras_cv
    except ImportError:
        return None
    return keras_cv.layers.RandAugment((0, 255), augmentations_per_image=num_ops, magnitude=MAGNITUDE, rate=1.0)


def keras_layer(num_ops: int) -> Any:
    """Keras' RandAugment."""
    import keras

    return keras.layers.RandAugment(value_range=(0, 255), num_ops=num_ops, factor=MAGNITUDE)


@dataclass(frozen=True)
class Turn:
    """One window of a competitor.

    Attributes:
        images: How many were timed.
        seconds: By the clock.
        core_seconds: Of this process and of those it started.
    """

    images: int
    seconds: float
    core_seconds: float


def core_seconds() -> float:
    """Of this process and of those it started that still run."""
    times = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(float(child.user + child.system) for child in times)


def timed(competitor: Competitor, num_batches: int) -> Turn:
    """Starts a competitor, takes the warm-up untimed, and times the batches after it."""
    batches = competitor()
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    started, core_started = time.perf_counter(), core_seconds()
    images = sum(next(batches) for _ in range(num_batches))
    turn = Turn(images, time.perf_counter() - started, core_seconds() - core_started)
    with contextlib.suppress(AttributeError):
        batches.close()  # type: ignore[attr-defined]
    return turn


def compare(competitors: dict[str, Competitor], title: str, num_batches: int, repeats: int) -> None:
    """Runs the competitors in turns and prints a table; ratios are to the first of them."""
    turns: dict[str, list[Turn]] = {name: [] for name in competitors}
    for _ in range(repeats):
        for name, competitor in competitors.items():
            turns[name].append(timed(competitor, num_batches))
    reference, *_ = competitors
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\n{title}. {num_batches * BATCH_SIZE:,} images, {repeats} turns. Load averages at the end: {load}.")
    print(f"  {'':<14}{'seconds':>9}{'core-s':>9}{'images/s':>11}{'images/core-s':>15}   {reference} is faster by")
    for name, windows in turns.items():
        seconds, cores = (
            float(np.median([getattr(turn, field) for turn in windows])) for field in ("seconds", "core_seconds")
        )
        ratios = [turn.seconds / base.seconds for turn, base in zip(windows, turns[reference], strict=True)]
        core_ratios = [
            turn.core_seconds / base.core_seconds for turn, base in zip(windows, turns[reference], strict=True)
        ]
        images = windows[0].images
        print(
            f"  {name:<14}{seconds:>9.2f}{cores:>9.2f}{images / seconds:>11,.0f}{images / cores:>15,.0f}   "
            f"{_ratio(ratios)} by the clock, {_ratio(core_ratios)} by core time"
        )


def _ratio(ratios: list[float]) -> str:
    return f"{np.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"


def compare_rand_augment(
    images: Images, num_ops: int, cores: int, num_batches: int, repeats: int, only: list[str] | None
) -> None:
    """RandAugment by everybody, or by bloodauto and those that ``only`` names."""
    policy = RandAugment(RandAugmentSettings(num_ops=num_ops, magnitude=MAGNITUDE))
    total = WARM_UP_BATCHES + num_batches
    every_core = BatchWorkers(num_processes=cores if cores > 1 else 0)
    competitors = {"bloodauto": pipeline_of(images, policy, total, every_core)}
    if cores > 1:
        competitors["one thread"] = pipeline_of(images, policy, total, BatchWorkers())
    competitors |= {
        "step by step": pipeline_of(images, StepByStep(policy), total, every_core),
        "plain OpenCV": pipeline_of(images, PlainOpenCV(num_ops, MAGNITUDE), total, every_core),
        "lower bound": lower_bound(images, cores),
    }
    competitors = {name: run for name, run in competitors.items() if only is None or name in ("bloodauto", *only)}
    forms = []
    for name, layer in (("keras-cv", keras_cv_layer(num_ops)), ("keras", keras_layer(num_ops))):
        if layer is not None and (only is None or name in only):
            competitors[name], form = faster_tensorflow_pipeline(images, layer)
            forms.append(f"{name} maps {form}")
    title = (
        f"{images.shape[1]} px, {num_ops} operation{'s' if num_ops > 1 else ''}, {_named(cores)}; {'; '.join(forms)}"
    )
    compare(competitors, title, num_batches, repeats)


def _named(cores: int) -> str:
    return "one core" if cores == 1 else f"{cores} cores"


def stacks() -> dict[str, Policy]:
    """Policies that apply many operations to each image: a conventional one, and that of a shipped recipe."""
    from bloodauto.training.augmentation import policy_of

    steps = (ApplyOperation(OperationStep(operation=name, magnitude=0.3)) for name in STACK)
    return {
        f"symmetries and {', '.join(STACK)}": Sequence((Symmetries(), *steps)),
        f"the recipe {SHIPPED_RECIPE}": policy_of(load_recipe(find_recipe_file(SHIPPED_RECIPE)).augmentation),
    }


def compare_stack(images: Images, name: str, policy: Policy, cores: int, num_batches: int, repeats: int) -> None:
    """What fusion gains where many operations are applied to each image."""
    total = WARM_UP_BATCHES + num_batches
    workers = BatchWorkers(num_processes=cores if cores > 1 else 0)
    competitors = {
        "fused": pipeline_of(images, policy, total, workers),
        "step by step": pipeline_of(images, StepByStep(policy), total, workers),
    }
    compare(competitors, f"{images.shape[1]} px, {name}, {_named(cores)}", num_batches, repeats)


def measure(arguments: argparse.Namespace) -> None:
    """Everything on the requested cores."""
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores]
    # Before TensorFlow starts threads, which keep the cores they began with.
    os.sched_setaffinity(0, cores)
    print(f"\n=== {_named(len(cores))}. OpenCV {cv2.__version__}. Load before: {os.getloadavg()[0]:.1f}.", flush=True)
    if keras_cv_layer(1) is None:
        print("keras-cv is not installed here and is left out.")
    num_batches = -(-arguments.count // BATCH_SIZE)
    for side in arguments.sides:
        folder, distinct = arguments.images, arguments.distinct
        images = synthetic_images(distinct, side) if folder is None else read_images(folder, distinct, side)
        for num_ops in arguments.num_ops:
            compare_rand_augment(images, num_ops, len(cores), num_batches, arguments.repeats, arguments.only)
        if arguments.stacks:
            for name, policy in stacks().items():
                compare_stack(images, name, policy, len(cores), num_batches, arguments.repeats)


def main() -> None:
    """Parses the options; without ``--cores`` everything is measured on one core and then on all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images; drawn ones when left out")
    parser.add_argument("--count", type=int, default=4096, help="images in each window (default: 4096)")
    parser.add_argument("--distinct", type=int, default=1024, help="different images among them (default: 1024)")
    parser.add_argument("--sides", type=int, nargs="+", default=[96, 224], help="pixels (default: 96 224)")
    parser.add_argument("--num-ops", type=int, nargs="+", default=[3], help="operations an image (default: 3)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each competitor (default: 5)")
    parser.add_argument("--only", nargs="+", help="competitors to run beside bloodauto, by name; all when left out")
    parser.add_argument("--stacks", action="store_true", help="measure fusion on stacks of operations as well")
    parser.add_argument("--cores", type=int, help="how many cores everybody gets; first one, then all, when left out")
    arguments = parser.parse_args()
    if arguments.cores is not None:
        measure(arguments)
        return
    # Each in a process of its own: TensorFlow's threads cannot be moved to other cores later.
    for cores in sorted({1, len(os.sched_getaffinity(0))}):
        subprocess.run([sys.executable, *sys.argv, "--cores", str(cores)], check=True)


if __name__ == "__main__":
    main()
