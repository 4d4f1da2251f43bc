"""The one way in which folders of images are walked: what counts as an image, what is passed over, how links are followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: Extensions that are read as images, in lower case.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
#: Files that operating systems leave in any folder they show; they are not reported.
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})
#: Prefixes of what is hidden, and of what archives of another system carry beside each file.
_HIDDEN_PREFIXES = (".", "__MACOSX")


def is_image(path: Path) -> bool:
    """Whether a path is a file that is read as an image: by its extension, and no pipe or device.

    Args:
        path: Any path. A symbolic link counts as what it points to.
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(_HIDDEN_PREFIXES) and path.is_file()


def visible_entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted, without hidden ones and without what operating systems leave behind.

    Args:
        folder: A folder.

    Raises:
        OSError: The folder may not be read.
    """
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(_HIDDEN_PREFIXES) and entry.name.lower() not in _SYSTEM_FILES
    )


def images_below(folder: Path) -> Iterator[Path]:
    """All images in a folder and the folders in it, in sorted order; a folder that links lead back to is entered once.

    Args:
        folder: A folder.

    Raises:
        OSError: A folder may not be read.
    """
    return _images_below(folder, set())


def _images_below(folder: Path, entered: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in entered:
        return
    entered.add(real)
    for entry in visible_entries(folder):
        if entry.is_dir():
            yield from _images_below(entry, entered)
        elif is_image(entry):
            yield entry


def outside_of(folder: Path, files: list[Path]) -> list[Path]:
    """The files that lie outside of a folder once links and ``..`` are resolved.

    Args:
        folder: A folder.
        files: Paths of files.
    """
    root = folder.resolve()
    # Most files share few parents, and resolving one asks the system about each part of its path.
    parents = {parent: parent.resolve() for parent in {file.parent for file in files}}
    outside = []
    for file in files:
        real = file.resolve() if file.is_symlink() else parents[file.parent] / file.name
        if not real.is_relative_to(root):
            outside.append(file)
    return outside
