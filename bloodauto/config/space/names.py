"""Short names for the parameters of a study: what a person would say for a field, and no two the same.

A domain's path is exact and long: ``stages[list of 2].1.optimizer[adamw].learning_rate``. Its name is the field's own word
(``learning_rate``), with the word above it where the field's alone says little (``randaugment_magnitude``), and with as many
qualifiers as tell it apart from the other domains of the space: labels of the choices that it lies in, the innermost first,
then the number of its stage (``learning_rate_adamw_stage_2``), then the recipe's group. Names follow from the paths alone, so
that the same file gives the same names.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Fields whose own word says little without the one above.
_WEAK_WORDS = frozenset(
    {
        "alpha",
        "blocks",
        "depth",
        "filters",
        "fraction",
        "gamma",
        "layers",
        "magnitude",
        "num_ops",
        "operations",
        "rate",
        "size_px",
        "width",
    }
)
#: A field of this word is named by the one above alone.
_NAME = "name"
#: Words that people write otherwise.
_SPELLINGS = {"rand_augment": "randaugment", "trivial_augment": "trivialaugment", "aug_mix": "augmix"}
#: Lists whose items are numbered in names, with the word for one of them; numbers count from 1.
_LIST_ITEMS = {"stages": "stage", "steps": "step"}
_LONGEST_QUALIFIER = 24


@dataclass(frozen=True)
class PathPart:
    """One step of a domain's path.

    Attributes:
        word: The field, or the index of an item.
        label: Of the member that was chosen at this field; None where the path goes on without a choice.
        option: 1-based number of that member.
    """

    word: str
    label: str | None = None
    option: int = 0


DomainPath = tuple[PathPart, ...]


def dotted_path(parts: DomainPath) -> str:
    """The path as text, with the labels of chosen members in brackets.

    Example:
        >>> dotted_path((PathPart("loss", "focal", 2), PathPart("gamma")))
        'loss[focal].gamma'
    """
    return ".".join(part.word if part.label is None else f"{part.word}[{part.label}]" for part in parts)


def parameter_names(paths: Mapping[str, DomainPath]) -> dict[str, str]:
    """A name for each domain of a space.

    Args:
        paths: Steps of each domain's path, by the path.

    Returns:
        Names by path, all different.

    Example:
        >>> rate = (PathPart("stages"), PathPart("0"), PathPart("optimizer", "adamw", 1), PathPart("learning_rate"))
        >>> parameter_names({"stages.0.optimizer[adamw].learning_rate": rate})
        {'stages.0.optimizer[adamw].learning_rate': 'learning_rate'}
    """
    tokens = {path: (_field(parts), _qualifiers(parts)) for path, parts in paths.items()}
    lengths = dict.fromkeys(paths, 0)
    while True:
        names = {path: "_".join([field, *others[: lengths[path]]]) for path, (field, others) in tokens.items()}
        counts = Counter(names.values())
        longer = [path for path, name in names.items() if counts[name] > 1 and lengths[path] < len(tokens[path][1])]
        if not longer:
            return _with_paths(names)
        for path in longer:
            lengths[path] += 1


def _with_paths(names: dict[str, str]) -> dict[str, str]:
    """The names, with the path in place of one that is not unique: paths differ, words that were made of them may not."""
    while len(counts := Counter(names.values())) < len(names):
        names = {path: name if counts[name] == 1 else path for path, name in names.items()}
    return names


def _field(parts: DomainPath) -> str:
    """The words of the field itself."""
    tokens = [part.word for part in parts if not part.word.isdigit() and part.word not in _LIST_ITEMS]
    if not tokens:
        # The choice of a whole list.
        return parts[-1].word
    spelled = [_SPELLINGS.get(word, word) for word in tokens]
    if len(spelled) > 1 and tokens[-1] == _NAME:
        return spelled[-2]
    return "_".join(spelled[-2:] if tokens[-1] in _WEAK_WORDS else spelled[-1:])


def _qualifiers(parts: DomainPath) -> Sequence[str]:
    """What tells a domain from others with the same field: choices, the innermost first, items of lists, its group."""
    chosen = [part for part in reversed(parts[:-1]) if part.label is not None]
    field = _field(parts).split("_")
    labels = [word for part in chosen if part.word not in _LIST_ITEMS and (word := _label_word(part)) not in field]
    items = [
        f"{_LIST_ITEMS[above.word]}_{int(part.word) + 1}"
        for above, part in itertools.pairwise(parts)
        if part.word.isdigit() and above.word in _LIST_ITEMS
    ]
    group = [] if parts[0].word in _LIST_ITEMS else [parts[0].word]
    return [*labels, *items, *group, *(f"option_{part.option}" for part in chosen)]


def _label_word(part: PathPart) -> str:
    assert part.label is not None
    word = re.sub(r"[^0-9a-z]+", "_", part.label.lower()).strip("_")
    return word if word and len(word) <= _LONGEST_QUALIFIER else f"option_{part.option}"
