"""Images and labels that come as arrays: ``.npz`` and ``.npy``, never unpickled, never guessed at."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from bloodauto.data.dataset import CellDataset
from bloodauto.data.decode import to_square
from bloodauto.data.labels import class_names_for, integer_labels, labels_from_names, make_dataset
from bloodauto.errors import DataError

_BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError, NotImplementedError)
_MEDMNIST_SPLITS = (("train", "train"), ("val", "validation"), ("test", "test"))


def read_archive(path: Path, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads those of the ``wanted`` arrays that a ``.npz`` holds.

    Raises:
        DataError: no zip archive, a damaged one, arrays of Python objects, or more than fits into memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in wanted]
            needed = sum(info.file_size for info in members)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{path}: expected an .npz archive, got a damaged file or something else ({error}). "
            f"Copy or download it again, or write it with numpy.savez."
        ) from None
    available = psutil.virtual_memory().available
    if needed > available:
        raise DataError(
            f"{path}: its arrays unpack to {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB of memory are free. "
            f"Shrink the images before packing them, or use a machine with more memory."
        )
    arrays = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in wanted:
            if name not in archive.files:
                continue
            try:
                arrays[name] = archive[name]
            except (*_BROKEN_ARCHIVE, MemoryError) as error:
                raise _broken_array(f"{path}: {name}", error) from None
            if not isinstance(arrays[name], np.ndarray):
                raise DataError(f"{path}: {name}: expected an array, got other bytes. Write the file with numpy.savez.")
    return arrays


def _broken_array(where: str, error: BaseException) -> DataError:
    if "allow_pickle" in str(error) or "pickled" in str(error):
        return DataError(
            f"{where}: expected an array of numbers or text, got Python objects, which are never unpickled because "
            f"that would run code from the file. Save it with a plain dtype, e.g. numpy.stack(images).astype('uint8')."
        )
    return DataError(f"{where}: the array is damaged ({error}). Copy or download the file again.")


def _array_names(path: Path) -> str:
    with np.load(path, allow_pickle=False) as archive:
        names = sorted(archive.files)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) + more) if names else "nothing"


def rgb_images(array: np.ndarray, where: str) -> np.ndarray:
    """Whatever stands for images -> uint8 (n, height, width, 3), 0-255; grey is repeated three times.

    Whole numbers in 0-255 of any dtype are taken as they are. Fractions are refused: whether they mean 0-1, -1..1 or
    something standardised can not be known, and a wrong guess trains without a word on black images.

    Raises:
        DataError: another shape, a value outside 0-255, fractions, or values that are not finite.
    """
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        hint = ""
        if array.ndim == 4 and array.shape[1] in (1, 3):
            hint = " The channels seem to come first: save images.transpose(0, 2, 3, 1)."
        elif array.ndim == 4 and array.shape[3] == 4:
            hint = " Drop the alpha channel: save images[..., :3]."
        raise DataError(
            f"{where}: expected images of shape (n, height, width), (n, height, width, 1) or (n, height, width, 3), "
            f"got {array.shape}.{hint}"
        )
    if 0 in array.shape:
        raise DataError(f"{where}: expected at least one image with at least one pixel, got shape {array.shape}.")
    if array.dtype != np.uint8:
        array = _exact_uint8(array, where)
    return np.repeat(array, 3, axis=3) if array.shape[3] == 1 else array


def _exact_uint8(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: expected pixel values 0-255 as uint8, got {array.dtype}.")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{where}: expected pixel values 0-255, got values that are not finite (NaN or infinity).")
    got = f"got {array.dtype} from {low:.6g} to {high:.6g}"
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        raise DataError(
            f"{where}: expected pixel values 0-255, {got}. If they are fractions of full brightness, save "
            f"(images * 255).round().astype('uint8')."
        )
    if low < 0 or high > 255:
        raise DataError(
            f"{where}: expected pixel values 0-255, {got}. Undo the scaling or standardising, then save them as uint8."
        )
    as_bytes = array.astype(np.uint8)
    if not np.array_equal(as_bytes, array):
        raise DataError(
            f"{where}: expected whole pixel values 0-255, {got} with fractions. Save images.round().astype('uint8')."
        )
    return as_bytes


def resize_images(images: np.ndarray, image_size_px: int | None) -> np.ndarray:
    """uint8 (n, h, w, 3) -> squares of ``image_size_px``, or of the longer side when that is None."""
    side = max(images.shape[1:3]) if image_size_px is None else image_size_px
    if images.shape[1:3] == (side, side):
        return images
    result = np.empty((len(images), side, side, 3), np.uint8)
    for index, image in enumerate(images):
        result[index] = to_square(image, side)
    return result


def text_column(array: np.ndarray | None, count: int, where: str) -> np.ndarray | None:
    """An array of text, bytes or whole numbers -> str (n,); None stays None."""
    if array is None:
        return None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,):
        raise DataError(f"{where}: expected one value for each of the {count} images, got shape {array.shape}.")
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    if array.dtype.kind not in "Uiu":
        raise DataError(f"{where}: expected text or whole numbers, got {array.dtype}.")
    return array.astype(np.str_)


def load_npz(path: Path, image_size_px: int | None) -> CellDataset:
    """A ``.npz`` with ``images`` and ``labels``, or one of MedMNIST with its own splits."""
    arrays = read_archive(path, ("images", "labels", "class_names", "names", "groups", "sites"))
    if "images" in arrays and "labels" in arrays:
        return _labelled_arrays(path, arrays, image_size_px)
    medmnist = read_archive(
        path, [f"{prefix}_{kind}" for prefix, _ in _MEDMNIST_SPLITS for kind in ("images", "labels")]
    )
    present = [(p, s) for p, s in _MEDMNIST_SPLITS if f"{p}_images" in medmnist and f"{p}_labels" in medmnist]
    if not present:
        raise DataError(
            f"{path}: expected arrays images and labels, or train_images, train_labels, ... as in MedMNIST; "
            f"found {_array_names(path)}."
        )
    images, labels, names, splits = [], [], [], []
    for prefix, split in present:
        part = rgb_images(medmnist.pop(f"{prefix}_images"), f"{path}: {prefix}_images")
        images.append(resize_images(part, image_size_px))
        labels.append(integer_labels(medmnist[f"{prefix}_labels"], len(part), f"{path}: {prefix}_labels"))
        names += [f"{split}/{index:05d}" for index in range(len(part))]
        splits += [split] * len(part)
    sizes = {part.shape[1] for part in images}
    if len(sizes) > 1:
        raise DataError(f"{path}: expected one image size, got {sorted(sizes)} px. Give the size you want.")
    joined = np.concatenate(labels)
    return make_dataset(
        images=np.concatenate(images),
        labels=joined,
        class_names=class_names_for(joined, None, str(path)),
        names=np.array(names),
        predefined_splits=np.array(splits),
        source=str(path),
    )


def _labelled_arrays(path: Path, arrays: dict[str, np.ndarray], image_size_px: int | None) -> CellDataset:
    images = rgb_images(arrays["images"], f"{path}: images")
    count = len(images)
    given = arrays.get("class_names")
    class_names = None if given is None else tuple(text_column(given, given.size, f"{path}: class_names").tolist())  # type: ignore[union-attr]
    if arrays["labels"].dtype.kind in "US":
        words = text_column(arrays["labels"], count, f"{path}: labels")
        assert words is not None
        labels, class_names = labels_from_names(words.tolist(), class_names, f"{path}: labels")
    else:
        labels = integer_labels(arrays["labels"], count, f"{path}: labels")
        class_names = class_names_for(labels, class_names, f"{path}: labels")
    names = text_column(arrays.get("names"), count, f"{path}: names")
    return make_dataset(
        images=resize_images(images, image_size_px),
        labels=labels,
        class_names=class_names,
        names=np.array([f"images/{index:05d}" for index in range(count)]) if names is None else names,
        groups=text_column(arrays.get("groups"), count, f"{path}: groups"),
        sites=text_column(arrays.get("sites"), count, f"{path}: labs"),
        source=str(path),
    )


def load_image_array(path: Path) -> np.ndarray:
    """Unlabelled images of an ``.npz`` (array ``images``) or an ``.npy``: uint8 (n, h, w, 3)."""
    if path.suffix.lower() == ".npz":
        arrays = read_archive(path, ("images",))
        if "images" not in arrays:
            raise DataError(f"{path}: expected an array images, found {_array_names(path)}.")
        return rgb_images(arrays["images"], f"{path}: images")
    try:
        array = np.load(path, allow_pickle=False)
    except (*_BROKEN_ARCHIVE, MemoryError) as error:
        raise _broken_array(str(path), error) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: expected one array, got an archive of several. Name it .npz.")
    return rgb_images(array, str(path))
