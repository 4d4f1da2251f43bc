"""What a run records of its images: fingerprint, cleaning and splits."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import ClassVar, Self

from pydantic import ValidationError

from bloodauto.errors import RunError
from bloodauto.printable import csv_cell, csv_text
from bloodauto.run.artifacts.base import Artifact, Count, Record, problems_text
from bloodauto.run.files import write_text
from bloodauto.run.yaml_files import VERSION_KEY

#: Findings that say that nothing was found, or that nothing was searched for.
_NO_FINDINGS = ("none", "not_cleaned")


class Fingerprint(Artifact):
    """``fingerprint.json``: which images a run was started with.

    Attributes:
        source: where they came from, for people.
        images: how many were loaded.
        height_px: of every image.
        width_px: of every image.
        classes: images of each class, in the order of the label numbers.
        sites: images of each site that the data name; empty when they name none.
        excluded: images that cleaning excluded.
        digest: SHA-256 of pixels, labels and names.
    """

    FILE = "fingerprint.json"

    source: str
    images: Count
    height_px: Count
    width_px: Count
    classes: dict[str, Count]
    sites: dict[str, Count]
    excluded: Count
    digest: str


class CleaningRow(Record):
    """What cleaning found in one image or file.

    Attributes:
        name: of the image or file.
        label: the class's name; empty for a file that could not be loaded.
        finding: ``none`` where nothing was found.
        action: ``keep``, ``excluded`` or ``converted``.
        cluster: images with one number are the same photograph; None for a file that could not be loaded.
        reason: one sentence; empty where nothing was found.
    """

    name: str
    label: str
    finding: str
    action: str
    cluster: int | None
    reason: str

    @property
    def has_finding(self) -> bool:
        """Whether anything was found."""
        return self.is_finding(self.finding)

    @staticmethod
    def is_finding(finding: str) -> bool:
        """Whether a finding says that something was found."""
        return finding not in _NO_FINDINGS


#: The fields of a row, and the version of the table.
_CLEANING_COLUMNS = (*CleaningRow.model_fields, VERSION_KEY)


class CleaningReport(Record):
    """``cleaning.csv``: one row for each image, then one for each file that could not be loaded.

    A table for people. Its last column, ``format_version``, has the same number in every row.
    """

    FILE: ClassVar[str] = "cleaning.csv"
    FORMAT_VERSION: ClassVar[int] = 1

    rows: tuple[CleaningRow, ...]

    def write(self, path: Path) -> None:
        """Writes the table atomically."""
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_CLEANING_COLUMNS)
        for row in self.rows:
            writer.writerow([*("" if value is None else csv_cell(str(value)) for _, value in row), self.FORMAT_VERSION])
        write_text(path, stream.getvalue())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the table.

        Raises:
            RunError: absent, with other columns, of another format version, or with a row that is incomplete.
        """
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                table = csv.reader(stream)
                header = next(table, [])
                if header != list(_CLEANING_COLUMNS):
                    raise RunError(
                        f"{path}:1: expected the columns {', '.join(_CLEANING_COLUMNS)}, got {', '.join(header)}: "
                        "the file was written by another version of bloodauto or edited. Restore it or start a new run."
                    )
                return cls(rows=tuple(cls._row(cells, path, table.line_num) for cells in table))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise RunError(
                f"{path}: expected a table of text, could not read it ({error}). Restore the file."
            ) from error

    @classmethod
    def _row(cls, cells: list[str], path: Path, line: int) -> CleaningRow:
        columns = _CLEANING_COLUMNS
        if len(cells) != len(columns):
            raise RunError(f"{path}:{line}: expected {len(columns)} columns, got {len(cells)}. Restore the file.")
        values: dict[str, str | int | None] = dict(zip(columns, map(csv_text, cells), strict=True))
        version = values.pop(VERSION_KEY)
        if version != str(cls.FORMAT_VERSION):
            raise RunError(
                f"{path}:{line}: {VERSION_KEY}: expected {cls.FORMAT_VERSION}, got {version}: the file was written by "
                "another version of bloodauto. Start a new run."
            )
        cluster = str(values["cluster"])
        values["cluster"] = None if not cluster else int(cluster) if cluster.isdecimal() else cluster
        try:
            return CleaningRow.model_validate(values)
        except ValidationError as error:
            raise RunError(f"{path}:{line}: {problems_text(error)} Restore the file.") from error


class SplitPart(Record):
    """The images of one part.

    Attributes:
        part: 0 and above for folds, negative for the held-out test set and excluded images; see ``data.split``.
        name: for people.
        images: their names.
    """

    part: int
    name: str
    images: tuple[str, ...]


class SplitsFile(Artifact):
    """``splits.json``: the part of every image.

    Attributes:
        dataset_sha256: digest of the images that were split.
        seed: of the split.
        num_folds: how many folds there are.
        notes: what is thin about the parts, one sentence each.
        parts: every image is in exactly one.
    """

    FILE = "splits.json"

    dataset_sha256: str
    seed: int
    num_folds: Count
    notes: tuple[str, ...]
    parts: tuple[SplitPart, ...]
