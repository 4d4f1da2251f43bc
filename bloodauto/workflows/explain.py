"""Explains an exported model's predictions: a picture of each image beside its saliency map."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bloodauto.data.load import load_images
from bloodauto.errors import DataError, UserError
from bloodauto.evaluation.saliency import SaliencyMethod, overlay, saliency_maps
from bloodauto.evaluation.tta import zoom_images
from bloodauto.export.model import Model, load_model
from bloodauto.printable import printable
from bloodauto.run.files import atomic_path, check_output_folder
from bloodauto.types import Image, Images, Strings

_METHODS: tuple[SaliencyMethod, ...] = ("grad_cam", "occlusion")
#: Each picture is enlarged to at least this height.
_PICTURE_HEIGHT_PX = 256
_GAP_PX = 8
_MAX_NAME_CHARACTERS = 80
#: The slower method's predictions of so many images take some minutes.
_MAX_IMAGES = 2000


@dataclass(frozen=True)
class Explanation:
    """One explained prediction.

    Attributes:
        name: of the image.
        label: the class with the highest probability.
        probability: of that class, 0-1.
        explained_label: the class whose score the map explains.
        path: the PNG file: the image, and beside it the image with its map.

    Example:
        >>> explanation = Explanation("cell.png", "monocyte", 0.93, "monocyte", Path("explained/cell.png"))
        >>> explanation.path.name
        'cell.png'
    """

    name: str
    label: str
    probability: float
    explained_label: str
    path: Path


def explain(
    model: str | Path,
    images: Sequence[str | Path],
    output: str | Path,
    *,
    method: SaliencyMethod = "grad_cam",
    label: str | None = None,
    magnification: float = 1.0,
) -> tuple[Explanation, ...]:
    """Writes a PNG for each image that shows which parts of it the prediction rests on.

    Args:
        model: A ``model.keras``, or the folder that holds it.
        images: Images, folders of them, ``.npz`` or ``.npy`` files; at most 2,000 images in all.
        output: The folder for the pictures; created if it is absent.
        method: ``grad_cam`` or ``occlusion``; see ``evaluation.saliency``. Occlusion works for any model and takes about 100
            predictions for each image.
        label: The class whose score is explained; None: the predicted one of each image.
        magnification: How many times larger cells are made before they are predicted.

    Returns:
        One entry for each image, in their order.

    Raises:
        UserError: No such model, images, method or class.
        RunError: ``grad_cam`` of a model without convolutions.

    Example:
        >>> import bloodauto
        >>> explanations = bloodauto.explain("runs/first/export", ["new_cells.npy"], "explained")
        >>> explanations[0].path.suffix
        '.png'
    """
    if method not in _METHODS:
        raise UserError(f"--method: expected {' or '.join(_METHODS)}, got {printable(str(method))!r}.")
    if not images:
        raise UserError("expected at least one image, folder or array file, got none.")
    check_output_folder(Path(output))
    loaded = load_model(model)
    pixels, names = _read(loaded, images)
    predicted = loaded.predict(pixels, magnification=magnification)
    labels = predicted.labels if label is None else np.full(len(pixels), _index_of(loaded, label))
    shown = zoom_images(pixels, magnification)
    pictures = _side_by_side(shown, overlay(shown, saliency_maps(loaded.network, shown, labels, method)))
    paths = [Path(output) / name for name in _file_names(names)]
    for path, picture in zip(paths, pictures, strict=True):
        _write_png(path, picture)
    return tuple(
        Explanation(
            name=str(name),
            label=loaded.class_names[int(row.argmax())],
            probability=float(row.max()),
            explained_label=loaded.class_names[int(explained)],
            path=path,
        )
        for name, row, explained, path in zip(names, predicted.probabilities, labels, paths, strict=True)
    )


def _read(model: Model, paths: Sequence[str | Path]) -> tuple[Images, Strings]:
    if model.height_px != model.width_px:
        raise UserError(
            f"{model.path}: expected a model of square images, got {model.height_px} x {model.width_px} px."
        )
    parts = [load_images(Path(path), model.height_px) for path in paths]
    count = sum(len(part) for part, _ in parts)
    if count > _MAX_IMAGES:
        raise DataError(f"expected at most {_MAX_IMAGES:,} images, got {count:,}. Give some of them.")
    return np.concatenate([part for part, _ in parts]), np.concatenate([names for _, names in parts])


def _index_of(model: Model, label: str) -> int:
    if label not in model.class_names:
        raise UserError(f"--class: expected one of {', '.join(model.class_names)}, got {printable(label)!r}.")
    return model.class_names.index(label)


def _file_names(names: Strings) -> list[str]:
    """A file name for each image, without folders: names inside array files come from others."""
    stems = [re.sub(r"[^\w.-]+", "_", Path(name).stem).strip(".")[:_MAX_NAME_CHARACTERS] for name in names.tolist()]
    seen: Counter[str] = Counter()
    result = []
    for stem in stems:
        name = stem if stem else "image"
        while seen[name]:
            seen[stem] += 1
            name = f"{stem}_{seen[stem]}"
        seen[name] += 1
        result.append(f"{name}.png")
    return result


def _side_by_side(images: Images, explained: Images) -> list[Image]:
    height, width = images.shape[1:3]
    scale = max(round(_PICTURE_HEIGHT_PX / height), 1)
    size = (width * scale, height * scale)
    gap = np.full((height * scale, _GAP_PX, 3), 255, np.uint8)
    return [
        np.hstack(
            [
                cv2.resize(image, size, interpolation=cv2.INTER_NEAREST),
                gap,
                cv2.resize(shown, size, interpolation=cv2.INTER_LINEAR),
            ]
        )
        for image, shown in zip(images, explained, strict=True)
    ]


def _write_png(path: Path, image: Image) -> None:
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
