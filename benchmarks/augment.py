"""Images a second of RandAugment, side by side in one run: this project, keras-cv, keras, unfused OpenCV and the floor.

    python benchmarks/augment.py                                   # drawn images, 96 and 224 px, 1 to 3 operations
    python benchmarks/augment.py --images folder --repeats 7       # your own images
    python benchmarks/augment.py --cores 1 --sides 96 --num-ops 3  # what a trial of a search has; half a minute

Without ``--cores`` everything is measured on one core and then, from the start, on all. keras-cv is left out, with a note,
where it is not installed (``pip install keras-cv``). Everybody gets the same images, batches of 64, the same cores and a
warm-up; the contenders take turns, and each figure is the median of its turns. Magnitude 0.5, rate 1. keras' RandAugment
has a fixed set of eleven operations; all others use keras-cv's ten.

    bloodauto   BatchPipeline with RandAugment: one thread on one core, else a process for each core
    one by one  the same pipeline, draws and kernels, but each operation applied on its own: what fusion alone brings
    plain       RandAugment as it is commonly written with OpenCV (plain_opencv.py), in the same pipeline
    floor       one OpenCV warp and one lookup for each image, nothing drawn, no pipeline, a thread for each core
    keras-cv    keras_cv.layers.RandAugment in a tf.data pipeline with parallel map and prefetch
    keras       keras.layers.RandAugment, likewise

By the clock a figure holds on a quiet machine only: the load before the start is printed. Core time is that of this process
and the processes it started.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil
from contenders import OneByOne, Plain

from bloodauto.config.recipe import load_recipe
from bloodauto.config.recipe.experiments import find_recipe_file
from bloodauto.transforms import BatchPipeline, BatchPolicy, Policy, RandAugment, Symmetries
from bloodauto.transforms.policies import Apply, Sequence

BATCH_SIZE = 64
MAGNITUDE = 0.5
#: A conventional stack of augmentations for cells, each of which is applied to every image.
STACK = ("rotate_any", "zoom", "stretch", "translate", "brightness", "contrast", "gamma")
DECLARED = "small_mobilenet_025"
_SECONDS_PER_TURN = 0.4


def synthetic_images(count: int, side: int) -> np.ndarray:
    """Discs on a textured ground, so that histograms and edges are not those of noise."""
    rng = np.random.default_rng(0)
    images = np.empty((count, side, side, 3), np.uint8)
    for image in images:
        ground = cv2.GaussianBlur(rng.standard_normal((side, side, 3)).astype(np.float32), (0, 0), side / 24)
        image[:] = np.clip(225 + 200 * ground, 0, 255)
        for _ in range(4):
            middle = tuple(int(v) for v in rng.integers(0, side, 2))
            shade = tuple(int(v) for v in rng.integers(40, 220, 3))
            cv2.circle(image, middle, int(side * rng.uniform(0.08, 0.3)), shade, -1, cv2.LINE_AA)
    return images


def read_images(folder: Path, count: int, side: int) -> np.ndarray:
    """Images below a folder, resized, evenly spread over the sorted names."""
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".bmp", ".tif"}
    )
    if not files:
        raise SystemExit(f"{folder}: expected images below this folder, found none.")
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, count).astype(int)]
    pictures = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in chosen]
    return np.stack([cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) for picture in pictures])


def pipeline_run(images: np.ndarray, policy: BatchPolicy, cores: int, open_operations: ExitStack) -> Callable[[], int]:
    targets = np.ones((len(images), 1), np.float32)
    processes = cores if cores > 1 else 0
    pipeline = BatchPipeline(images, targets, batch_size=BATCH_SIZE, policy=policy, seed=0, num_processes=processes)
    open_operations.callback(pipeline.close)
    epochs: Iterator[int] = iter(range(10**9))
    return lambda: sum(len(batch.images) for batch in pipeline.epoch(next(epochs)))


def lower_bound_run(images: np.ndarray, cores: int) -> Callable[[], int]:
    """One warp and one lookup for each image, prepared beforehand."""
    cv2.setNumThreads(1)
    side = images.shape[1]
    rng = np.random.default_rng(0)
    warps = RandAugment(1, MAGNITUDE, operations=("shear_x", "shear_y", "translate_x", "translate_y"))
    matrices = [chain[0].payload.matrix[:2] for chain in warps.draw(len(images), side, side, rng)]
    tables = rng.integers(0, 256, (len(images), 1, 256, 3), dtype=np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def work(start: int) -> int:
        out = np.empty((BATCH_SIZE, side, side, 3), np.uint8)
        scratch = np.empty((side, side, 3), np.uint8)
        rows = range(start, min(start + BATCH_SIZE, len(images)))
        for row, target in zip(rows, out, strict=False):
            cv2.warpAffine(
                images[row], matrices[row], (side, side), dst=scratch, flags=flags, borderMode=cv2.BORDER_REFLECT
            )
            cv2.LUT(scratch, tables[row], dst=target)
        return len(rows)

    def run() -> int:
        with ThreadPoolExecutor(cores) as pool:
            return sum(pool.map(work, range(0, len(images), BATCH_SIZE)))

    return run


def tensorflow_run(images: np.ndarray, layer: Callable) -> Callable[[], int]:
    import tensorflow as tf

    with tf.device("cpu"):
        data = tf.data.Dataset.from_tensor_slices(images).batch(BATCH_SIZE)
        data = data.map(lambda batch: layer(batch, training=True), num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
    return lambda: sum(int(batch.shape[0]) for batch in data)


def keras_cv_layer(num_ops: int) -> Callable | None:
    try:
        import keras_cv
    except ImportError:
        return None
    return keras_cv.layers.RandAugment((0, 255), augmentations_per_image=num_ops, magnitude=MAGNITUDE, rate=1.0)


def keras_layer(num_ops: int) -> Callable:
    import keras

    return keras.layers.RandAugment(value_range=(0, 255), num_ops=num_ops, factor=MAGNITUDE)


@dataclass(frozen=True)
class Rate:
    """Medians over turns.

    Attributes:
        per_second: images a second by the clock.
        per_core_second: images for each second of a core's time; not disturbed by what else the machine does.
    """

    per_second: float
    per_core_second: float


def core_seconds() -> float:
    """Of this process and of those it started that still run."""
    times = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(one.user + one.system for one in times)


def rates_of(contenders: dict[str, Callable[[], int]], repeats: int) -> dict[str, Rate]:
    """Contenders take turns, so that a busy moment of the machine hits all alike."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()  # graphs are traced, caches filled, processes started
    for _ in range(repeats):
        for name, run in contenders.items():
            count = 0
            started, core_started = time.perf_counter(), core_seconds()
            while (seconds := time.perf_counter() - started) < _SECONDS_PER_TURN:
                count += run()
            samples[name].append((count / seconds, count / (core_seconds() - core_started)))
    return {name: Rate(*np.median(values, axis=0).tolist()) for name, values in samples.items()}


def compare(images: np.ndarray, num_ops: int, cores: int, repeats: int) -> None:
    policy = RandAugment(num_ops, MAGNITUDE)
    # Fewer images for those that are slow; whole batches, so that no graph is traced twice, and two for each core.
    few = images[: 2 * cores * BATCH_SIZE]
    with ExitStack() as open_operations:
        contenders = {
            "bloodauto": pipeline_run(images, policy, cores, open_operations),
            "one by one": pipeline_run(images, OneByOne(policy), cores, open_operations),
            "plain": pipeline_run(images, Plain(num_ops, MAGNITUDE), cores, open_operations),
            "floor": lower_bound_run(images, cores),
        }
        layer = keras_cv_layer(num_ops)
        if layer is not None:
            contenders["keras-cv"] = tensorflow_run(few, layer)
        contenders["keras"] = tensorflow_run(few, keras_layer(num_ops))
        rates = rates_of(contenders, repeats)
    ours = rates["bloodauto"]
    print(f"\n{images.shape[1]} px, {num_ops} operation{'s' if num_ops > 1 else ''}, {named(cores)}")
    print(f"  {'':<12}{'images/s':>10}{'images/core-s':>15}   bloodauto is faster by")
    for name, rate in rates.items():
        print(f"  {name:<12}{rate.per_second:>10,.0f}{rate.per_core_second:>15,.0f}   "
              f"{ours.per_second / rate.per_second:.2f}x by the clock, "
              f"{ours.per_core_second / rate.per_core_second:.2f}x by core time")  # fmt: skip


def named(cores: int) -> str:
    return "one core" if cores == 1 else f"{cores} cores"


def stacks() -> dict[str, Policy]:
    """Policies that apply many operations to each image: a conventional one, and that of the recipe for few cores."""
    from bloodauto.training.augmentation import policy_of

    return {
        f"symmetries and {', '.join(STACK)}": Sequence((Symmetries(), *(Apply(name, 0.3) for name in STACK))),
        f"what {DECLARED} declares": policy_of(load_recipe(find_recipe_file(DECLARED)).augmentation),
    }


def compare_stack(images: np.ndarray, name: str, policy: Policy, cores: int, repeats: int) -> None:
    with ExitStack() as open_operations:
        contenders = {
            "fused": pipeline_run(images, policy, cores, open_operations),
            "one by one": pipeline_run(images, OneByOne(policy), cores, open_operations),
        }
        rates = rates_of(contenders, repeats)
    fused, separate = rates["fused"], rates["one by one"]
    print(f"\n{images.shape[1]} px, {name}, all on every image, {named(cores)}:")
    print(f"  fused {fused.per_second:,.0f} images/s, {fused.per_core_second:,.0f} images/core-s; "
          f"{fused.per_second / separate.per_second:.2f}x one by one by the clock, "
          f"{fused.per_core_second / separate.per_core_second:.2f}x by core time")  # fmt: skip


def memory(images: np.ndarray, cores: int) -> None:
    me = psutil.Process()
    held: list[float] = []
    with ExitStack() as open_operations:
        run = pipeline_run(images, RandAugment(3, MAGNITUDE), cores, open_operations)
        for _ in range(40):
            run()
            held.append(sum(process.memory_info().rss for process in (me, *me.children())) / 2**20)
    print(f"\nMemory of all processes: {held[4]:,.0f} MB after epoch 5, {held[-1]:,.0f} MB after epoch 40.")


def measure(arguments: argparse.Namespace) -> None:
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores]
    # Before TensorFlow starts threads, which keep the cores they began with.
    os.sched_setaffinity(0, cores)
    print(f"\n=== {named(len(cores))}. OpenCV {cv2.__version__}. Turns: {arguments.repeats}. "
          f"Load before: {os.getloadavg()[0]:.1f}.")  # fmt: skip
    if keras_cv_layer(1) is None:
        print("keras-cv is not installed here and is left out.")
    for side in arguments.sides:
        count = arguments.count
        images = (
            synthetic_images(count, side) if arguments.images is None else read_images(arguments.images, count, side)
        )
        for num_ops in arguments.num_ops:
            compare(images, num_ops, len(cores), arguments.repeats)
        for name, policy in stacks().items():
            compare_stack(images, name, policy, len(cores), arguments.repeats)
        memory(images, len(cores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images; drawn ones when left out")
    parser.add_argument("--count", type=int, default=1024, help="images")
    parser.add_argument("--sides", type=int, nargs="+", default=[96, 224], help="pixels")
    parser.add_argument("--num-ops", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--repeats", type=int, default=5)
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
