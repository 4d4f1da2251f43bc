"""Numbers and names as text, the same in figures and page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Stands for what is unknown.
DASH = "–"
_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


@dataclass(frozen=True)
class TimeUnit:
    """A unit for a whole axis.

    Attributes:
        label: for example ``GPU-h``.
        device_seconds: how many device-seconds it has.
    """

    label: str
    device_seconds: float


def time_unit(largest_device_seconds: float, device: str) -> TimeUnit:
    """The largest unit of which there are at least two; seconds when there are not two of any.

    Args:
        largest_device_seconds: the largest value that is shown.
        device: ``cpu`` or ``gpu``, which becomes part of the label; empty where the axis already names it.

    Example:
        >>> time_unit(7200.0, "gpu")
        TimeUnit(label='GPU-h', device_seconds=3600.0)
    """
    prefix = f"{device.upper()}-" if device in ("cpu", "gpu") else "device-" if device else ""
    for label, seconds in _UNITS:
        if largest_device_seconds >= 2 * seconds:
            return TimeUnit(prefix + label, seconds)
    return TimeUnit(prefix + "s", 1.0)


def duration(device_seconds: float | None, device: str) -> str:
    """A duration in the unit that fits it.

    Example:
        >>> duration(5400, "gpu")
        '90 GPU-min'
        >>> duration(None, "gpu")
        '–'
    """
    if device_seconds is None:
        return DASH
    unit = time_unit(device_seconds, device)
    amount = device_seconds / unit.device_seconds
    return f"{amount:.3g} {unit.label}" if amount < 100 else f"{amount:,.0f} {unit.label}"


def percent(fraction: float | None, digits: int = 1) -> str:
    r"""A fraction of 0-1 in percent, with a thin space that does not break.

    Example:
        >>> percent(0.9132)
        '91.3\u202f%'
    """
    return DASH if fraction is None else f"{100 * fraction:.{digits}f}\u202f%"


def count(number: int | None) -> str:
    """A whole number with separators.

    Example:
        >>> count(5930000)
        '5,930,000'
    """
    return DASH if number is None else f"{number:,}"


def score(name: str, value: float | None) -> str:
    """A score as percent; a loss, which has no upper bound, as a number.

    Example:
        >>> score("loss", 0.25)
        '0.250'
    """
    if value is None:
        return DASH
    return f"{value:.3f}" if name == "loss" else percent(value)


def objective_value(name: str, value: float | None) -> str:
    """A value of a search's objective, in its unit.

    Example:
        >>> objective_value("latency", 1.5), objective_value("parameters", 3e6)
        ('1.50 ms', '3,000,000')
    """
    if value is None:
        return DASH
    if name == "latency":
        return f"{value:.2f} ms"
    return f"{value:,.0f}" if name == "parameters" else percent(value)


def spaced(name: str) -> str:
    """A name with spaces for underscores.

    Example:
        >>> spaced("balanced_accuracy")
        'balanced accuracy'
    """
    return name.replace("_", " ")


def training_name(name: str) -> str:
    """The name of a training for readers; any other name stays as it is.

    Example:
        >>> training_name("00001-fold0-seed3")
        'trial 1, refit seed 3'
    """
    match = re.fullmatch(r"(\d{5,})(?:-fold(\d+)-seed(\d+)|(-folds))?", name)
    if match is None:
        return name
    number, fold, seed, folds = match.groups()
    trial = f"trial {int(number)}"
    if folds is not None:
        return f"{trial}, refit on every fold"
    if seed is None:
        return trial
    return f"{trial}, refit seed {seed}" + (f" fold {fold}" if fold != "0" else "")


def shift_name(group: str) -> str:
    """The name of a corruption group for readers.

    Example:
        >>> shift_name("combined")
        'combined shift (simulated site)'
    """
    return "combined shift (simulated site)" if group == "combined" else spaced(group)


def short_names(paths: Sequence[str]) -> tuple[str, ...]:
    """The fewest last parts of dotted paths that tell them apart, at least two.

    Example:
        >>> short_names(["stages.0.optimizer.name", "stages.1.optimizer.name", "head.dropout"])
        ('0.optimizer.name', '1.optimizer.name', 'head.dropout')
    """
    shortened = []
    for path in paths:
        parts = path.split(".")
        for kept in range(min(2, len(parts)), len(parts) + 1):
            tail = ".".join(parts[-kept:])
            if sum(other == tail or other.endswith("." + tail) for other in paths) == 1:
                break
        shortened.append(tail)
    return tuple(shortened)


def shorten(text: str, length: int) -> str:
    """At most ``length`` characters: both ends with an ellipsis between them.

    Example:
        >>> shorten("efficientnetv2-b0", 9)
        'effi…2-b0'
    """
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
