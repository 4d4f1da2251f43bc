"""Images and labels that come as arrays: ``.npz`` and ``.npy``, never unpickled, never guessed at."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodauto.config.machine import available_memory_bytes
from bloodauto.data.columns import ARRAY_NAMES, SYNONYMS, standard_names
from bloodauto.data.dataset import COMPETITION_CLASSES, CellDataset, empty_column
from bloodauto.data.decode import check_memory, to_square
from bloodauto.data.labels import class_names_for, integer_labels, labels_from_names
from bloodauto.errors import DataError
from bloodauto.printable import printable
from bloodauto.types import Images, Strings

_BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError, NotImplementedError)
#: Prefix of MedMNIST's arrays -> the predefined split.
_MEDMNIST_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_SHOWN_NAMES = 12


def read_archive(path: Path, array_names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Reads arrays of an ``.npz``.

    Args:
        path: the archive.
        array_names: which to read; a synonym of ``columns.SYNONYMS`` in the file counts as its name.

    Returns:
        Those of the named arrays that the archive holds.

    Raises:
        DataError: no zip archive, a damaged one, arrays of Python objects, or more than fits into memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            stored = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            sizes = [info.file_size for info in archive.infolist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{path}: expected an .npz archive, got a damaged file or something else ({error}). "
            f"Copy or download it again, or write it with numpy.savez."
        ) from error
    names = standard_names(stored, str(path))
    needed = sum(size for name, size in zip(names, sizes, strict=True) if name in array_names)
    available = available_memory_bytes()
    if needed > available:
        raise DataError(
            f"{path}: its arrays unpack to {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB of memory are free. "
            f"Shrink the images before packing them, or use a machine with more memory."
        )
    arrays = {}
    try:
        opened = np.load(path, allow_pickle=False)
    except (*_BROKEN_ARCHIVE, MemoryError) as error:
        # A zip archive that does not begin as one, which numpy takes for a pickle.
        raise DataError(f"{path}: expected an .npz archive, got a damaged file. Copy or download it again.") from error
    with opened as archive:
        for name, stored_name in zip(names, stored, strict=True):
            if name not in array_names:
                continue
            try:
                array = archive[stored_name]
            except (*_BROKEN_ARCHIVE, MemoryError) as error:
                raise _broken_array(f"{path}: {stored_name}", error) from error
            if not isinstance(array, np.ndarray):
                raise DataError(
                    f"{path}: {stored_name}: expected an array, got other bytes. Write the file with numpy.savez."
                )
            arrays[name] = array
    return arrays


def _broken_array(where: str, error: BaseException) -> DataError:
    if "allow_pickle" in str(error) or "pickled" in str(error):
        return DataError(
            f"{where}: expected an array of numbers or text, got Python objects, which are never unpickled because "
            f"that would run code from the file. Save it with a plain dtype, e.g. numpy.stack(images).astype('uint8')."
        )
    return DataError(f"{where}: expected an array, got a damaged one ({error}). Copy or download the file again.")


def _stored_names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return sorted(info.filename.removesuffix(".npy") for info in archive.infolist())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return printable(", ".join(names[:_SHOWN_NAMES])) + more if names else "nothing"


def rgb_images(array: NDArray[Any], where: str) -> Images:
    """Converts an array of grey or RGB images.

    Whole numbers in 0-255 of any dtype are taken as they are. Fractions are refused: whether they mean 0-1, -1..1 or
    standardised values cannot be known, and a wrong guess trains silently on black images.

    Args:
        array: (n, height, width), (n, height, width, 1) or (n, height, width, 3).
        where: file and array, for messages.

    Returns:
        uint8, (n, height, width, 3), 0-255; a grey channel is repeated three times.

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


def _exact_uint8(array: NDArray[Any], where: str) -> Images:
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: expected pixel values 0-255 as uint8, got {array.dtype}.")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{where}: expected pixel values 0-255, got values that are not finite (NaN or infinity).")
    value_range = f"got {array.dtype} from {low:.6g} to {high:.6g}"
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        raise DataError(
            f"{where}: expected pixel values 0-255, {value_range}. If they are fractions of full brightness, save "
            f"(images * 255).round().astype('uint8')."
        )
    if low < 0 or high > 255:
        raise DataError(
            f"{where}: expected pixel values 0-255, {value_range}. Undo the scaling or standardising, then save them "
            f"as uint8."
        )
    as_bytes = array.astype(np.uint8)
    if not np.array_equal(as_bytes, array):
        raise DataError(
            f"{where}: expected whole pixel values 0-255, {value_range} with fractions. "
            f"Save images.round().astype('uint8')."
        )
    return as_bytes


def resize_images(images: Images, image_size_px: int | None) -> Images:
    """Makes images square and of one size; see ``decode.to_square``.

    Args:
        images: uint8, (n, height, width, 3).
        image_size_px: side of the result; None: the longer side of the images.

    Returns:
        uint8, (n, side, side, 3); the same array where nothing changes.

    Raises:
        DataError: the resized images do not fit into memory.
    """
    side = max(images.shape[1:3]) if image_size_px is None else image_size_px
    if images.shape[1:3] == (side, side):
        return images
    check_memory(len(images), side, "--image-size-px")
    result = np.empty((len(images), side, side, 3), np.uint8)
    for index, image in enumerate(images):
        result[index] = to_square(image, side)
    return result


def _text_column(array: NDArray[Any], count: int, where: str) -> Strings:
    """An array of text, bytes or whole numbers -> str (n,)."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,):
        raise DataError(f"{where}: expected one value for each of the {count} images, got shape {array.shape}.")
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: expected text in UTF-8, got the bytes {error.object[:40]!r}. If they are Latin-1, save "
                f"numpy.char.decode(array, 'latin-1')."
            ) from error
    if array.dtype.kind not in "Uiu":
        raise DataError(f"{where}: expected text or whole numbers, got {array.dtype}.")
    return np.array([printable(text) for text in array.astype(np.str_).tolist()], np.str_)


def load_npz(path: Path, image_size_px: int | None) -> CellDataset:
    """Reads a ``.npz`` with ``images`` and ``labels``, or one of MedMNIST with its own splits.

    Args:
        path: the archive; its arrays are those of ``columns.ARRAY_NAMES``.
        image_size_px: see ``resize_images``.

    Raises:
        DataError: neither of the two, or arrays that cannot be used.
    """
    arrays = read_archive(path, ARRAY_NAMES)
    if "images" in arrays and "labels" in arrays:
        dataset = _labelled_arrays(path, arrays, image_size_px)
        used = set(arrays)
    else:
        dataset = _load_medmnist(path, image_size_px)
        used = {f"{prefix}_{kind}" for prefix in _MEDMNIST_SPLITS for kind in ("images", "labels")}
    unused = sorted(set(_stored_names(path)) - used - {synonym for synonym, name in SYNONYMS.items() if name in used})
    if not unused:
        return dataset
    return replace(dataset, notes=(*dataset.notes, f"arrays that are not used: {_listed(unused)}"))


def _load_medmnist(path: Path, image_size_px: int | None) -> CellDataset:
    arrays = read_archive(path, [f"{prefix}_{kind}" for prefix in _MEDMNIST_SPLITS for kind in ("images", "labels")])
    present = [prefix for prefix in _MEDMNIST_SPLITS if {f"{prefix}_images", f"{prefix}_labels"} <= arrays.keys()]
    if not present:
        raise DataError(
            f"{path}: expected arrays images and labels, or train_images, train_labels, ... as in MedMNIST; "
            f"found {_listed(_stored_names(path))}."
        )
    images, labels, names, splits = [], [], [], []
    for prefix in present:
        split = _MEDMNIST_SPLITS[prefix]
        part = rgb_images(arrays.pop(f"{prefix}_images"), f"{path}: {prefix}_images")
        images.append(resize_images(part, image_size_px))
        labels.append(integer_labels(arrays[f"{prefix}_labels"], len(part), f"{path}: {prefix}_labels"))
        names += [f"{split}/{index:05d}" for index in range(len(part))]
        splits += [split] * len(part)
    sizes = {part.shape[1] for part in images}
    if len(sizes) > 1:
        raise DataError(f"{path}: expected one image size, got {sorted(sizes)} px. Give the size you want.")
    all_labels = np.concatenate(labels)
    # The set's own name is all that says what its numbers mean; other sets of MedMNIST have eight classes too.
    known_names = COMPETITION_CLASSES if path.stem.lower().startswith("bloodmnist") else None
    return CellDataset(
        images=np.concatenate(images),
        labels=all_labels,
        class_names=class_names_for(all_labels, known_names, str(path)),
        names=np.array(names),
        groups=empty_column(len(names)),
        sites=empty_column(len(names)),
        predefined_splits=np.array(splits),
        source=str(path),
    )


def _labelled_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], image_size_px: int | None) -> CellDataset:
    images = rgb_images(arrays["images"], f"{path}: images")
    count = len(images)

    def column(name: str, default: Strings) -> Strings:
        return _text_column(arrays[name], count, f"{path}: {name}") if name in arrays else default

    class_names: tuple[str, ...] | None = None
    if "class_names" in arrays:
        stored = arrays["class_names"]
        class_names = tuple(_text_column(stored, stored.size, f"{path}: class_names").tolist())
    if arrays["labels"].dtype.kind in "US":
        class_of_image = _text_column(arrays["labels"], count, f"{path}: labels")
        labels, class_names = labels_from_names(class_of_image.tolist(), class_names, f"{path}: labels")
    else:
        labels = integer_labels(arrays["labels"], count, f"{path}: labels")
        class_names = class_names_for(labels, class_names, f"{path}: labels")
    return CellDataset(
        images=resize_images(images, image_size_px),
        labels=labels,
        class_names=class_names,
        names=column("names", _numbered_names(count)),
        groups=column("groups", empty_column(count)),
        sites=column("sites", empty_column(count)),
        predefined_splits=empty_column(count),
        source=str(path),
    )


def _numbered_names(count: int) -> Strings:
    return np.array([f"images/{index:05d}" for index in range(count)])


def load_image_array(path: Path) -> tuple[Images, Strings]:
    """Reads unlabelled images of an ``.npz`` (array ``images``) or an ``.npy``.

    Returns:
        Images, uint8 (n, height, width, 3), and their names, ``images/00000``, ``images/00001``, ... An ``.npy`` of one
        picture, (height, width) or (height, width, channels), is a stack of one.

    Raises:
        DataError: no such array, or one that does not hold images.
    """
    if path.suffix.lower() == ".npz":
        arrays = read_archive(path, ("images",))
        if "images" not in arrays:
            raise DataError(f"{path}: expected an array images, found {_listed(_stored_names(path))}.")
        images = rgb_images(arrays["images"], f"{path}: images")
        return images, _numbered_names(len(images))
    try:
        array = np.load(path, allow_pickle=False)
    except (*_BROKEN_ARCHIVE, MemoryError) as error:
        raise _broken_array(str(path), error) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: expected one array, got an archive of several. Name it .npz.")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        # One picture: a stack of grey ones would be three pixels wide.
        array = array[np.newaxis]
    images = rgb_images(array, str(path))
    return images, _numbered_names(len(images))
