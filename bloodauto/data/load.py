"""Loads images from a path: a folder per class, a CSV manifest or an array file; also images without labels."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodauto.config.validation import nearest_name
from bloodauto.data.arrays import load_image_array, load_npz, resize_images
from bloodauto.data.columns import MANIFEST_COLUMNS, standard_names
from bloodauto.data.dataset import CellDataset, FileProblem, check_trainable, check_unique_names
from bloodauto.data.decode import CommonSize, common_size, decode_files
from bloodauto.data.labels import class_names_for, integer_labels, labels_from_names
from bloodauto.data.walk import IMAGE_SUFFIXES, images_below, is_image, outside_of, visible_entries
from bloodauto.errors import DataError
from bloodauto.printable import printable
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
_SHOWN_NAMES = 12


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
        image_size_px: side of the square images. None: for files the median of their longer sides, for arrays their own
            longer side. Images that are not square get their outermost pixels repeated (``to_square``).

    Returns:
        At least two classes with at least two images each. Its ``problems`` name every file that was left out or converted,
        its ``notes`` what else was decided.

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
    path = expand_home(path)
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
    path = expand_home(path)
    if path.is_dir():
        files = list(images_below(path))
        if not files:
            raise DataError(f"{path}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), found none.")
        names = [_name_in(path, file) for file in files]
    else:
        _require_file(path)
        if path.suffix.lower() in (".npz", ".npy"):
            images, array_names = load_image_array(path)
            return resize_images(images, image_size_px), array_names
        if not is_image(path):
            raise DataError(
                f"{path}: expected a folder, an .npz, an .npy or an image ({', '.join(sorted(IMAGE_SUFFIXES))}), "
                f"got {path.suffix!r}."
            )
        files, names = [path], [printable(path.name)]
    decoded = decode_files(files, names, image_size_px)
    excluded = [f"{problem.name}: {problem.detail}" for problem in decoded.problems if problem.action == "excluded"]
    if len(decoded.kept) == 0:
        raise DataError(f"{path}: expected images, none of {len(files)} files can be read. First: {excluded[0]}.")
    if excluded:
        warnings.warn(
            f"{path}: {len(excluded)} of {len(files)} files excluded: {'; '.join(excluded[:5])}", stacklevel=2
        )
    return decoded.images, np.array(names)[decoded.kept]


def expand_home(path: Path) -> Path:
    """A user's path with ``~`` and ``~name`` replaced by the home folder; a name that nobody has stays as it is.

    Args:
        path: As it was typed.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _require_file(path: Path) -> None:
    if not path.is_file():
        near = nearest_name(path.name, _siblings(path))
        hint = "" if near is None else f" Did you mean {path.with_name(near)}?"
        raise DataError(f"{path}: expected a file or folder, found nothing there.{hint}")


def _siblings(path: Path) -> list[str]:
    try:
        return os.listdir(path.parent)  # noqa: PTH208 (names are all that is wanted)
    except OSError:
        return []


def _name_in(root: Path, file: Path) -> str:
    """The name of a file within a data set."""
    return printable(file.relative_to(root).as_posix())


def _load_folder(root: Path, image_size_px: int | None) -> CellDataset:
    entries = visible_entries(root)
    folders = [entry for entry in entries if entry.is_dir()]
    problems = [_unused(file, root) for file in entries if not file.is_dir()]
    files: list[_ListedFile] = []
    splits = {folder: _SPLIT_NAMES[folder.name.lower()] for folder in folders if _is_split(folder)}
    if splits:
        _check_only_splits(root, folders, splits)
        for folder, split in splits.items():
            _list_classes(folder, root, split, files, problems)
    else:
        _list_classes(root, root, "", files, problems)
    if not files:
        loose = sum(is_image(entry) for entry in entries)
        what = f"{loose} images that lie directly in it" if loose else "no images"
        raise DataError(
            f"{root}: expected one folder per class with images ({', '.join(sorted(IMAGE_SUFFIXES))}) in each, "
            f"found {what} and folders {_shown_names(folders)}. Sort the images into one folder per class, or list them in a "
            f".csv manifest with the columns path and label."
        )
    return _read_files(files, root, image_size_px, problems, expected_below=root)


def _shown_names(paths: Sequence[Path]) -> list[str]:
    return [printable(path.name) for path in paths][:_SHOWN_NAMES]


def _is_split(folder: Path) -> bool:
    """Whether a folder holds the classes of a split: it is called so, and its images lie in folders of their own."""
    if folder.name.lower() not in _SPLIT_NAMES:
        return False
    entries = visible_entries(folder)
    return not any(is_image(entry) for entry in entries) and any(entry.is_dir() for entry in entries)


def _check_only_splits(root: Path, folders: Sequence[Path], splits: Mapping[Path, str]) -> None:
    """No folder of images stands beside those of the splits, and no split has two folders."""
    strays = [folder for folder in folders if folder not in splits and next(images_below(folder), None) is not None]
    if strays:
        raise DataError(
            f"{root}: expected folders of splits alone or folders of classes alone, found the splits "
            f"{_shown_names(list(splits))} beside {_shown_names(strays)}, which hold images too. Move one kind elsewhere, or "
            "list the images in a .csv manifest."
        )
    if len(set(splits.values())) < len(splits):
        raise DataError(
            f"{root}: expected one folder for each split, found {_shown_names(list(splits))}, two of which mean the same. "
            "Move the images of one into the other."
        )


def _list_classes(folder: Path, root: Path, split: str, files: list[_ListedFile], problems: list[FileProblem]) -> None:
    """Adds the images of each class folder in ``folder`` to ``files`` and whatever else lies there to ``problems``."""
    for class_folder in visible_entries(folder):
        if not class_folder.is_dir():
            if folder != root:
                problems.append(_unused(class_folder, root))
            continue
        entries = visible_entries(class_folder)
        images = [entry for entry in entries if is_image(entry)]
        label = printable(class_folder.name)
        files.extend(_ListedFile(image, _name_in(root, image), label, split=split) for image in images)
        if label != class_folder.name:
            problems.append(
                FileProblem(label, "class_name_escaped", "converted", "its folder's name is not printable UTF-8 text")
            )
        problems.extend(_unused(entry, root) for entry in entries if not is_image(entry))
        if images:
            continue
        nested = [entry for entry in entries if entry.is_dir() and next(images_below(entry), None) is not None]
        if nested:
            raise DataError(
                f"{class_folder}: expected the images of this class directly in its folder, found them one folder deeper, in "
                f"{_shown_names(nested)}. Move them up, make each of these a class, or list the images in a .csv manifest."
            )
        problems.append(
            FileProblem(_name_in(root, class_folder), "empty_class_folder", "excluded", "no images in this folder")
        )


def _unused(path: Path, root: Path) -> FileProblem:
    name = _name_in(root, path)
    if path.is_dir():
        count = sum(1 for _ in images_below(path))
        detail = f"folders within a class are not read, {count} images lie in it; list them in a .csv manifest"
        return FileProblem(name, "nested_folder", "excluded", detail)
    if is_image(path):
        return FileProblem(name, "no_label", "excluded", "lies outside the class folders")
    return FileProblem(name, "not_an_image", "excluded", f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}")


def _read_files(
    files: Sequence[_ListedFile],
    source: Path,
    image_size_px: int | None,
    problems: Sequence[FileProblem],
    *,
    expected_below: Path,
) -> CellDataset:
    paths = [file.path for file in files]
    size = common_size(paths, str(source)) if image_size_px is None else CommonSize(image_size_px, "")
    decoded = decode_files(paths, [file.name for file in files], size.side_px)
    if len(decoded.kept) == 0:
        first = decoded.problems[0]
        raise DataError(
            f"{source}: expected images, none of {len(files)} files can be read. First: {first.name}: {first.detail}."
        )
    notes = [size.note] if size.note else []
    if outside := outside_of(expected_below, paths):
        names = ", ".join(printable(path) for path in outside[:3])
        notes.append(
            f"{len(outside)} of the files lie outside of {expected_below}, by links or by their paths: {names}"
        )
    # The classes are those of the listed files: one whose files are all broken is an error and does not vanish.
    class_of_file = [file.label for file in files]
    if source != expected_below and all(_is_number(name) for name in class_of_file):
        labels: Labels = integer_labels(np.array([int(name) for name in class_of_file]), len(files), str(source))
        class_names = class_names_for(labels, None, str(source))
    else:
        labels, class_names = labels_from_names(class_of_file, None, str(source))
    kept = decoded.kept
    return CellDataset(
        images=decoded.images,
        labels=labels[kept],
        class_names=class_names,
        names=np.array([file.name for file in files])[kept],
        groups=np.array([file.group for file in files])[kept],
        sites=np.array([file.site for file in files])[kept],
        predefined_splits=np.array([file.split for file in files])[kept],
        source=str(source),
        problems=(*problems, *decoded.problems),
        notes=tuple(notes),
    )


def _is_number(text: str) -> bool:
    """Whether a label is a whole number in the way in which Python writes it: 01 and 1 are two words."""
    return text.isascii() and text.isdecimal() and len(text) < 10 and str(int(text)) == text


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
    missing = [file.name for file in files if not _is_file(file.path)]
    if missing:
        raise DataError(
            f"{path}: expected {len(files)} files, {len(missing)} of them are not there or may not be read, first "
            f"{missing[:3]}. "
            f"Paths are relative to the manifest's folder, {path.parent.resolve()}."
        )
    return _read_files(files, path, image_size_px, [], expected_below=path.parent)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Folders that may not be entered, names that are too long or hold a zero byte.
        return False


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for required in ("path", "label"):
        if required not in columns:
            near = nearest_name(required, columns, cutoff=0.5)
            hint = "" if near is None else f" Rename {near!r} to {required!r}."
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
    name, label, group, site = (printable(values[column]) for column in ("path", "label", "group", "site"))
    return _ListedFile(path.parent / values["path"], name, label, group, site, split)
