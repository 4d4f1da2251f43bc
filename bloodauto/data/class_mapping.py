"""Maps the class names of another site to those of a model: by name, by abbreviation, or as the user says."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodauto.errors import DataError, UserError

#: What laboratories call the usual cells, in the form of ``_normalised``; the first name is that of most data sets.
_SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("basophil", "baso", "bas", "ba", "bno", "basophilicgranulocyte"),
    ("eosinophil", "eosino", "eos", "eo", "eosinophilicgranulocyte"),
    ("erythroblast", "ebo", "erb", "erythro", "nrbc", "normoblast", "nucleatedredcell", "nucleatedredbloodcell"),
    ("ig", "immaturegranulocyte", "imm", "immature"),
    ("lymphocyte", "lymph", "lym", "lymphoid", "ly", "lyt", "typicallymphocyte"),
    ("monocyte", "mono", "mon", "mo", "mmz"),
    ("neutrophil", "neutro", "neut", "neu", "ne", "pmn", "polymorph", "segmentedneutrophil", "seg", "ngs"),
    ("platelet", "thrombocyte", "plt", "pl", "thrombo"),
)
_NEAREST_CUTOFF = 0.6
#: Written instead of a class of the model: it has none for these cells.
NO_CLASS = "-"


@dataclass(frozen=True)
class ClassMapping:
    """Which class of a model each class of another site is.

    Attributes:
        target_of: the site's name -> the model's name; None where the model has no such class.
        unconfirmed: names of the site whose class was proposed by nearness, so that a person has to confirm it.
    """

    target_of: Mapping[str, str | None]
    unconfirmed: tuple[str, ...] = ()

    def as_option(self) -> str:
        """The mapping as ``--map`` takes it.

        Example:
            >>> ClassMapping({"PMN": "neutrophil", "smudge": None}).as_option()
            'PMN=neutrophil,smudge=-'
        """
        return ",".join(f"{name}={NO_CLASS if target is None else target}" for name, target in self.target_of.items())


def map_classes(
    site_names: Sequence[str], model_names: Sequence[str], requested: Mapping[str, str | None] | None = None
) -> ClassMapping:
    """Maps each class of a site to a class of the model.

    A name that differs in case, spaces or a plural only is the same name. Abbreviations and nearest names are proposals,
    and so is that the model lacks a class.

    Args:
        site_names: classes of the site's images.
        model_names: classes of the model.
        requested: of ``parse_mapping``; it overrides everything else.

    Returns:
        A mapping of all names of the site.

    Raises:
        UserError: ``requested`` names a class that the site or the model does not have.

    Example:
        >>> map_classes(["Neutrophils", "Mo"], ["monocyte", "neutrophil"])
        ClassMapping(target_of={'Neutrophils': 'neutrophil', 'Mo': 'monocyte'}, unconfirmed=('Mo',))
    """
    stated = {} if requested is None else dict(requested)
    _check_requested(stated, site_names, model_names)
    exact = {_normalised(name): name for name in model_names}
    target_of: dict[str, str | None] = {}
    unconfirmed = []
    for name in site_names:
        if name in stated:
            target_of[name] = stated[name]
        elif (same := exact.get(_normalised(name))) is not None:
            target_of[name] = same
        else:
            target_of[name] = _nearest(_normalised(name), exact)
            unconfirmed.append(name)
    return ClassMapping(target_of, tuple(unconfirmed))


def parse_mapping(text: str) -> dict[str, str | None]:
    """Reads what ``--map`` was given: pairs with commas between them, or a file.

    Args:
        text: ``PMN=neutrophil,Mo=monocyte``, or the path of a text file with one such pair on each line (empty lines and
            lines that begin with ``#`` are skipped), or of a CSV with the columns site_class and model_class. ``-`` or
            nothing after the equals sign: the model has no such class.

    Raises:
        UserError: a pair without an equals sign, a name twice, or a file that cannot be read.

    Example:
        >>> parse_mapping("PMN=neutrophil, smudge=-")
        {'PMN': 'neutrophil', 'smudge': None}
    """
    path = Path(text)
    if "=" not in text or path.suffix.lower() in (".csv", ".txt"):
        return _read_mapping(path)
    return _pairs(text.split(","), "--map")


def _read_mapping(path: Path) -> dict[str, str | None]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f'--map: expected pairs such as "PMN=neutrophil,Mo=monocyte" or a file of them, got {str(path)!r} ({error}).'
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    if path.suffix.lower() == ".csv":
        rows = list(csv.reader(lines))
        if not rows or [cell.strip().lower() for cell in rows[0]] != ["site_class", "model_class"]:
            raise UserError(f"{path}: expected the columns site_class and model_class, got {rows[0] if rows else []}.")
        lines = ["=".join(row) for row in rows[1:]]
    return _pairs([line for line in lines if not line.startswith("#")], str(path))


def _pairs(texts: Sequence[str], where: str) -> dict[str, str | None]:
    pairs: dict[str, str | None] = {}
    for text in texts:
        if not text.strip():
            continue
        name, sign, target = (part.strip() for part in text.partition("="))
        if not sign or not name:
            raise UserError(f"{where}: expected a pair such as PMN=neutrophil, got {text.strip()!r}.")
        if name in pairs:
            raise UserError(f"{where}: expected each class once, got {name!r} twice.")
        pairs[name] = None if target in ("", NO_CLASS) else target
    if not pairs:
        raise UserError(f"{where}: expected pairs such as PMN=neutrophil, got none.")
    return pairs


def _check_requested(
    requested: Mapping[str, str | None], site_names: Sequence[str], model_names: Sequence[str]
) -> None:
    for name, target in requested.items():
        if name not in site_names:
            raise UserError(f"--map: expected classes of the images ({', '.join(site_names)}), got {name!r}.")
        if target is not None and target not in model_names:
            raise UserError(
                f"--map: {name}: expected a class of the model ({', '.join(model_names)}) or {NO_CLASS}, got {target!r}."
            )


def require_confirmed(mapping: ClassMapping, where: str) -> None:
    """Checks that no class was proposed by nearness alone.

    Args:
        mapping: of ``map_classes``.
        where: the images, for the message.

    Raises:
        DataError: a class that nobody confirmed; the message has the option that confirms the proposal.
    """
    if mapping.unconfirmed:
        raise DataError(
            f"{where}: expected the model's class names, got {', '.join(mapping.unconfirmed)}. Say which classes they are; "
            f'if this proposal is right, with --map "{mapping.as_option()}" ({NO_CLASS}: the model has no such class).'
        )


def _normalised(name: str) -> str:
    """Lower case without marks, digits at the front (``01_neutrophil``) and the plural's s."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    stripped = letters.lstrip("0123456789")
    letters = stripped if stripped else letters
    return letters[:-1] if len(letters) > 3 and letters.endswith("s") else letters


def _nearest(name: str, model_names: Mapping[str, str]) -> str | None:
    """The model's class for a normalised name: by abbreviation, then by nearness; None where nothing is near."""
    for synonyms in _SYNONYMS:
        if name in synonyms:
            matches = [model_names[synonym] for synonym in synonyms if synonym in model_names]
            return matches[0] if matches else None
    near = difflib.get_close_matches(name, list(model_names), n=1, cutoff=_NEAREST_CUTOFF)
    return model_names[near[0]] if near else None
