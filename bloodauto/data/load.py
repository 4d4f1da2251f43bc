"""Loads images from a path: a folder per class, a CSV manifest or an array file; also images without labels."""

from __future__ import annotations

import csv
import difflib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodauto.data.arrays import load_image_array, load_npz, resize_images
from bloodauto.data.columns import MANIFEST_COLUMNS, standard_names
from bloodauto.data.dataset import CellDataset, FileProblem, check_trainable, check_unique_names
from bloodauto.data.decode import IMAGE_SUFFIXES, decode_files, most_common_side
from bloodauto.data.labels import class_names_for, labels_from_names
from bloodauto.errors import DataError
from bloodauto.types import Images, Labels, Strings

_SPLIT_NAMES = {
    "": "",
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
#: Files that operating systems leave in any folder they show; they are not reported.
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})


@dataclass(frozen=True)
class _ListedFile:
    """One image file and what is known of it before it is read.

    Attributes:
        path: where it lies.
        name: its name within the data set.
        label: its class, as a word or a number.
        group: patient or slide; empty where unknown.
        site: acquisition site; empty where unknown.
        split: ``train``, ``validation``, ``test`` or empty.
    """

    path: Path
    name: str
    label: str
    group: str = ""
    site: str = ""
    split: str = ""


def load_dataset(path: Path, *, image_size_px: int | None = None) -> CellDataset:
    """Reads labelled images.

    Args:
        path: one of
            - a folder with one folder per class, named after it (JPEG, PNG, TIFF, BMP); or such a folder each in
              ``train``, ``validation`` and ``test``, which become predefined splits;
            - a ``.csv`` manifest with the columns path and label, and optionally group, site (or lab) and split; paths
              are relative to the manifest;
            - an ``.npz`` with ``images`` and ``labels``, optionally ``class_names``, ``names``, ``groups`` and ``sites``
              (or ``labs``);
            - an ``.npz`` of MedMNIST; its splits become predefined splits.
        image_size_px: side of the square images. None: for files the longer side of the most common size, for arrays
            their own longer side. Images that are not square get their outermost pixels repeated (``to_square``).

    Returns:
        At least two classes with at least two images each.

    Raises:
        DataError: nothing usable there; the message says what was expected, what came and how to mend it.

    Example:
        >>> from pathlib import Path
        >>> dataset = load_dataset(Path("cells.npz"), image_size_px=96)  # doctest: +SKIP
        >>> dataset.images.shape  # doctest: +SKIP
        (13759, 96, 96, 3)
    """
    return check_trainable(load_labelled_images(path, image_size_px=image_size_px))


def load_labelled_images(path: Path, *, image_size_px: int | None = None) -> CellDataset:
    """Reads labelled images that need not suffice for a training, such as a few cells of another site.

    Args:
        path: as in ``load_dataset``.
        image_size_px: as in ``load_dataset``.

    Returns:
        At least one image with a label; a class may have a single image, or none that can be read.

    Raises:
        DataError: nothing usable there, or two images with one name.
    """
    if image_size_px is not None and image_size_px < 1:
        raise DataError(f"image_size_px: expected at least 1, got {image_size_px}.")
    if path.is_dir():
        return check_unique_names(_load_folder(path, image_size_px))
    _require_file(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return check_unique_names(load_npz(path, image_size_px))
    if suffix == ".csv":
        return check_unique_names(_load_manifest(path, image_size_px))
    raise DataError(f"{path}: expected a folder with one folder per class, a .csv manifest or an .npz, got {suffix!r}.")


def load_images(path: Path, image_size_px: int) -> tuple[Images, Strings]:
    """Reads images without labels.

    Files that cannot be read are excluded, with one warning that counts and names them.

    Args:
        path: a folder (with all folders in it), one image file, an ``.npz`` or an ``.npy``.
        image_size_px: side of the square images; see ``to_square``.

    Returns:
        Images, uint8 (n, image_size_px, image_size_px, 3), RGB, and names, str (n,): the path within the folder, or
        ``images/00012``.

    Raises:
        DataError: nothing usable there.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if _is_image(file))
        if not files:
            raise DataError(f"{path}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), found none.")
        names = [file.relative_to(path).as_posix() for file in files]
    else:
        _require_file(path)
        if path.suffix.lower() in (".npz", ".npy"):
            images, array_names = load_image_array(path)
            return resize_images(images, image_size_px), array_names
        if not _is_image(path):
            raise DataError(
                f"{path}: expected a folder, an .npz, an .npy or an image ({', '.join(sorted(IMAGE_SUFFIXES))}), "
                f"got {path.suffix!r}."
            )
        files, names = [path], [path.name]
    decoded = decode_files(files, names, image_size_px)
    excluded = [f"{problem.name}: {problem.detail}" for problem in decoded.problems if problem.action == "excluded"]
    if len(decoded.kept) == 0:
        raise DataError(f"{path}: expected images, none of {len(files)} files can be read. First: {excluded[0]}.")
    if excluded:
        warnings.warn(
            f"{path}: {len(excluded)} of {len(files)} files excluded: {'; '.join(excluded[:5])}", stacklevel=2
        )
    return decoded.images, np.array(names)[decoded.kept]


def _require_file(path: Path) -> None:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, _siblings(path), n=1)
        hint = f" Did you mean {path.with_name(near[0])}?" if near else ""
        raise DataError(f"{path}: expected a file or folder, found nothing there.{hint}")


def _siblings(path: Path) -> list[str]:
    try:
        return os.listdir(path.parent)  # noqa: PTH208 (names are all that is wanted)
    except OSError:
        return []


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _visible(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith((".", "__MACOSX")) and entry.name.lower() not in _SYSTEM_FILES
    )


def _load_folder(root: Path, image_size_px: int | None) -> CellDataset:
    entries = _visible(root)
    folders = [entry for entry in entries if entry.is_dir()]
    splits = [_SPLIT_NAMES.get(folder.name.lower()) for folder in folders]
    problems = [_unused(file, root) for file in entries if not file.is_dir()]
    files: list[_ListedFile] = []
    if folders and all(splits):
        for folder, split in zip(folders, splits, strict=True):
            assert split is not None
            _list_classes(folder, root, split, files, problems)
    else:
        _list_classes(root, root, "", files, problems)
    if not files:
        loose = sum(_is_image(entry) for entry in entries)
        what = f"{loose} images that lie directly in it" if loose else "no images"
        raise DataError(
            f"{root}: expected one folder per class with images ({', '.join(sorted(IMAGE_SUFFIXES))}) in each, "
            f"found {what} and folders {[folder.name for folder in folders][:12]}. Sort the images into one folder per "
            f"class, or list them in a .csv manifest with the columns path and label."
        )
    return _read_files(files, str(root), image_size_px, problems)


def _list_classes(folder: Path, root: Path, split: str, files: list[_ListedFile], problems: list[FileProblem]) -> None:
    """Adds the images of each class folder in ``folder`` to ``files`` and whatever else lies there to ``problems``."""
    for class_folder in _visible(folder):
        if not class_folder.is_dir():
            if folder != root:
                problems.append(_unused(class_folder, root))
            continue
        count = len(files)
        for entry in _visible(class_folder):
            if _is_image(entry):
                files.append(_ListedFile(entry, entry.relative_to(root).as_posix(), class_folder.name, split=split))
            else:
                problems.append(_unused(entry, root))
        if len(files) == count:
            name = class_folder.relative_to(root).as_posix()
            problems.append(FileProblem(name, "empty_class_folder", "excluded", "no images in this folder"))


def _unused(path: Path, root: Path) -> FileProblem:
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return FileProblem(
            name, "nested_folder", "excluded", "folders within a class are not read; list them in a .csv manifest"
        )
    if _is_image(path):
        return FileProblem(name, "no_label", "excluded", "lies outside the class folders")
    return FileProblem(name, "not_an_image", "excluded", f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}")


def _read_files(
    files: Sequence[_ListedFile], source: str, image_size_px: int | None, problems: Sequence[FileProblem]
) -> CellDataset:
    side = most_common_side([file.path for file in files]) if image_size_px is None else image_size_px
    decoded = decode_files([file.path for file in files], [file.name for file in files], side)
    if len(decoded.kept) == 0:
        first = decoded.problems[0]
        raise DataError(
            f"{source}: expected images, none of {len(files)} files can be read. First: {first.name}: {first.detail}."
        )
    # The classes are those of the listed files: one whose files are all broken is an error and does not vanish.
    class_of_file = [file.label for file in files]
    if all(name.isdecimal() for name in class_of_file) and source.endswith(".csv"):
        labels: Labels = np.array([int(name) for name in class_of_file], np.int64)
        class_names = class_names_for(labels, None, source)
    else:
        labels, class_names = labels_from_names(class_of_file, None, source)
    kept = decoded.kept
    return CellDataset(
        images=decoded.images,
        labels=labels[kept],
        class_names=class_names,
        names=np.array([file.name for file in files])[kept],
        groups=np.array([file.group for file in files])[kept],
        sites=np.array([file.site for file in files])[kept],
        predefined_splits=np.array([file.split for file in files])[kept],
        source=source,
        problems=(*problems, *decoded.problems),
    )


def _load_manifest(path: Path, image_size_px: int | None) -> CellDataset:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = [] if reader.fieldnames is None else reader.fieldnames
            columns = standard_names([column.strip().lower() for column in header], str(path))
            reader.fieldnames = columns
            _check_columns(path, columns)
            files = [_listed_row(path, row, reader.line_num) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV table in UTF-8 ({error}).") from error
    if not files:
        raise DataError(f"{path}: expected one row for each image, found only the header.")
    missing = [file.name for file in files if not file.path.is_file()]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(files)} files are not there, first {missing[:3]}. "
            f"Paths are relative to the manifest's folder, {path.parent.resolve()}."
        )
    return _read_files(files, str(path), image_size_px, [])


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for required in ("path", "label"):
        if required not in columns:
            near = difflib.get_close_matches(required, columns, n=1, cutoff=0.5)
            hint = f" Rename {near[0]!r} to {required!r}." if near else ""
            if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
                hint = " Separate the columns by commas."
            raise DataError(f"{path}: expected the columns path and label, found {list(columns)}.{hint}")
    repeated = [column for column in MANIFEST_COLUMNS if columns.count(column) > 1]
    if repeated:
        raise DataError(f"{path}: expected each column once, found several named {repeated}.")


def _listed_row(path: Path, row: dict[str | None, str | None], line: int) -> _ListedFile:
    cells = {column: row.get(column) for column in MANIFEST_COLUMNS}
    # A short line leaves its last columns None.
    values = {column: "" if cell is None else cell.strip() for column, cell in cells.items()}
    if not values["path"] or not values["label"]:
        raise DataError(f"{path}:{line}: expected a path and a label, got {values['path']!r} and {values['label']!r}.")
    if None in row:
        raise DataError(f"{path}:{line}: expected as many values as columns, got more. Quote values that hold commas.")
    split = _SPLIT_NAMES.get(values["split"].lower())
    if split is None:
        raise DataError(f"{path}:{line}: expected split train, validation, test or empty, got {values['split']!r}.")
    return _ListedFile(
        path.parent / values["path"], values["path"], values["label"], values["group"], values["site"], split
    )
