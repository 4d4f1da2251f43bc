"""The accelerator path: the chains a policy draws, applied by TensorFlow on its device instead of by OpenCV.

Worth it where the device is fast and images are large; :func:`choose_engine` measures both. The draws are the policy's
own, so the same generator gives the same images within a level or two. Chains with a step the device has no operation
for (JPEG, noise, grid mask, AugMix, the ``reflect_101`` and ``wrap`` borders) are applied by OpenCV before the upload;
images are independent of each other, so only those images are.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from bloodauto.transforms import filters, graph_stages, kernels
from bloodauto.transforms import lookup_tables as tables
from bloodauto.transforms.engine import Lookup, Stage, apply_stages, check_images, fuse, static_table
from bloodauto.transforms.policies import Policy
from bloodauto.transforms.steps import Adaptive, Border, Chain, Filter, Mix, Warp

_FILL_MODES = {"reflect": "REFLECT", "edge": "NEAREST", "fill": "CONSTANT"}
_WARPS = {mode: graph_stages.make_warp(name) for mode, name in _FILL_MODES.items()}
_KERNELS: dict[Callable[..., None], Callable[[Any], np.ndarray]] = {
    filters.apply_gaussian_blur: kernels.gaussian_kernel,
    filters.apply_defocus_blur: kernels.disc_kernel,
    filters.apply_motion_blur: lambda streak: kernels.streak_kernel(*streak),
    filters.apply_kernel: lambda kernel: kernel,
}
_ADAPTIVE_KINDS: dict[Callable[..., np.ndarray], int] = {
    tables.contrast: graph_stages.CONTRAST,
    tables.auto_contrast: graph_stages.AUTO_CONTRAST,
    tables.equalize: graph_stages.EQUALIZE,
}


def runs_on_device(stage: Stage) -> bool:
    """Whether the device has an operation for a stage."""
    if isinstance(stage, Filter):
        return stage.apply in _KERNELS or stage.apply is filters.apply_cutout
    if isinstance(stage, Warp):
        return stage.border is None or stage.border.mode in _FILL_MODES
    return True


def _group(stage: Stage) -> tuple[Any, ...]:
    """Stages of one group go through one graph operation together."""
    if isinstance(stage, Warp):
        return (Warp, stage.border if stage.border is not None else Border("reflect"))
    if isinstance(stage, Lookup):
        adaptive = any(isinstance(part, Adaptive) for part in stage.parts)
        return (Lookup, adaptive)
    if isinstance(stage, Filter):
        return (Filter, stage.apply is filters.apply_cutout)
    return (type(stage),)


def _table(values: np.ndarray) -> np.ndarray:
    table = tables.as_table(values)
    return np.repeat(table[:, None], 3, axis=1) if table.ndim == 1 else table


def _padded_kernels(stages: Sequence[Filter]) -> np.ndarray:
    """Kernels of different sizes -> float32 (m, k, k)."""
    kernels = [_KERNELS[stage.apply](stage.parameters) for stage in stages]
    size = max(kernel.shape[0] for kernel in kernels)
    return np.stack([np.pad(kernel, (size - kernel.shape[0]) // 2) for kernel in kernels])


def _adaptive_parts(stages: Sequence[Lookup]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tables (p, m, 256, 3), kinds (p, m) and strengths (p, m); shorter runs end with tables that change nothing."""
    shape = (max(len(stage.parts) for stage in stages), len(stages))
    given = np.tile(np.arange(256, dtype=np.float32)[:, None], (*shape, 1, 3))
    kinds = np.full(shape, graph_stages.GIVEN, np.int32)
    strengths = np.zeros(shape, np.float32)
    for column, stage in enumerate(stages):
        for row, part in enumerate(stage.parts):
            if isinstance(part, Adaptive):
                kinds[row, column] = _ADAPTIVE_KINDS[part.build]
                strengths[row, column] = part.strength
            else:
                given[row, column] = _table(part.values)
    return given, kinds, strengths


def _apply_group(images: Any, group: tuple[Any, ...], rows: list[int], stages: Sequence[Any]) -> Any:
    index = np.array(rows, np.int32)
    if group[0] is Warp:
        transforms = np.stack([stage.matrix.ravel()[:8] for stage in stages]).astype(np.float32)
        border: Border = group[1]
        colour = np.array(border.colour if border.mode == "fill" else (0, 0, 0), np.float32)
        return _WARPS[border.mode](images, index, transforms, colour)
    if group == (Lookup, True):
        return graph_stages.look_up_adaptively(images, index, *_adaptive_parts(stages))
    if group == (Lookup, False):
        products = [_table(static_table(stage.parts)) for stage in stages]
        return graph_stages.look_up(images, index, np.stack(products).astype(np.float32))
    if group == (Filter, True):
        return graph_stages.paint_rectangles(images, index, np.array([s.parameters for s in stages], np.int32))
    if group[0] is Filter:
        return graph_stages.correlate(images, index, _padded_kernels(stages))
    matrices = np.stack([stage.matrix for stage in stages]).astype(np.float32)
    mix = graph_stages.mix_levels if group[0] is Mix else graph_stages.mix_densities
    return mix(images, index, matrices)


def apply_chains_on_device(images: Sequence[np.ndarray], chains: Sequence[Chain]) -> Any:
    """Applies to each image the steps drawn for it.

    Args:
        images: uint8 (height, width, 3) each, all of one size; not written.
        chains: one for each image.

    Returns:
        A uint8 tensor (n, height, width, 3) on TensorFlow's device.
    """
    fused = [fuse(chain) for chain in chains]
    upload = np.stack(list(images))
    for row, stages in enumerate(fused):
        if not all(map(runs_on_device, stages)):
            apply_stages(images[row], upload[row], np.empty_like(upload[row]), stages)
            fused[row] = []
    tensor = tf.cast(tf.constant(upload), tf.float32)
    for place in range(max(map(len, fused), default=0)):
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for row, stages in enumerate(fused):
            if place < len(stages):
                groups[_group(stages[place])].append(row)
        for group, rows in groups.items():
            tensor = _apply_group(tensor, group, rows, [fused[row][place] for row in rows])
    return tf.cast(tensor, tf.uint8)


@dataclass(frozen=True)
class OnDevice(Policy):
    """A policy whose draws are applied by TensorFlow.

    The batch pipeline leaves its images on the device, unless MixUp or CutMix, which are done on the CPU, follow.

    Attributes:
        policy: what is drawn.
    """

    policy: Policy

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        return self.policy.draw(count, height, width, rng)

    def batch(self, images: Sequence[np.ndarray], rng: np.random.Generator) -> Any:
        """Draws and applies; a uint8 tensor (n, height, width, 3)."""
        height, width = images[0].shape[:2]
        return apply_chains_on_device(images, self.draw(len(images), height, width, rng))

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_images(images, type(self).__name__)
        return self.batch(list(images), rng).numpy() if len(images) else images.copy()


@dataclass(frozen=True)
class EngineChoice:
    """Which engine augments faster, and what both take.

    Attributes:
        engine: ``opencv`` or ``tensorflow``.
        opencv_seconds_per_image, tensorflow_seconds_per_image: medians.
    """

    engine: Literal["opencv", "tensorflow"]
    opencv_seconds_per_image: float
    tensorflow_seconds_per_image: float


def _median_seconds(run: Callable[[], Any], repeats: int) -> float:
    run()  # TensorFlow builds its graphs, OpenCV and numpy warm up
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def choose_engine(policy: Policy, images: np.ndarray, seed: int, repeats: int = 5) -> EngineChoice:
    """Measures both engines on a batch of images as large as training will use.

    OpenCV's figure is that of one thread. The device's holds the upload, but not what the network loses while the
    device augments; so OpenCV is chosen unless the device takes less than half as long.

    Args:
        images: uint8 (n, height, width, 3), n at least 1.
        seed: of the draws; both engines get the same.
    """
    check_images(images, "choose_engine")
    sources = list(images)
    on_device = OnDevice(policy)
    opencv = _median_seconds(lambda: policy.batch(sources, np.random.default_rng(seed)), repeats)
    # The cast to numpy waits until the device has finished.
    tensorflow = _median_seconds(lambda: on_device.batch(sources, np.random.default_rng(seed)).numpy(), repeats)
    engine: Literal["opencv", "tensorflow"] = "tensorflow" if 2 * tensorflow < opencv else "opencv"
    return EngineChoice(engine, opencv / len(images), tensorflow / len(images))
