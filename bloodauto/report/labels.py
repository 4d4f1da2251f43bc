"""Numbers and names -> words, the same in the figures and in the page."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


@dataclass(frozen=True)
class TimeUnit:
    """A unit fit for a whole axis: ``label`` such as ``GPU-h``, and how many device-seconds it has."""

    label: str
    device_seconds: float


def time_unit(largest_device_seconds: float, device: str) -> TimeUnit:
    """The largest unit of which there are at least two (seconds, when there are not two of any).

    ``device``: ``cpu`` or ``gpu`` leads the label; nothing leads it where it is empty, as where an axis has named it.
    """
    prefix = f"{device.upper()}-" if device.lower() in ("cpu", "gpu") else "device-" if device else ""
    for label, seconds in _UNITS:
        if largest_device_seconds >= 2 * seconds:
            return TimeUnit(prefix + label, seconds)
    return TimeUnit(prefix + "s", 1.0)


def duration(device_seconds: float | None, device: str) -> str:
    """``5400, gpu`` -> ``90 GPU-min``; unknown -> an en dash."""
    if device_seconds is None:
        return "–"
    unit = time_unit(device_seconds, device)
    amount = device_seconds / unit.device_seconds
    return f"{amount:.3g} {unit.label}" if amount < 100 else f"{amount:,.0f} {unit.label}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """``0.9132`` -> ``91.3 %`` (a thin space that does not break); unknown -> an en dash."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}\u202f%"


def training_name(name: str) -> str:
    """``00001-fold0-seed3`` -> ``trial 1, refit seed 3``; a name that is none of a search's trainings stays as it is."""
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
    """A kind of shift as the reader sees it."""
    return "another laboratory, everything at once" if group == "combined" else group.replace("_", " ")


def short_names(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Dotted paths -> the fewest last parts that tell them apart (``optimizer.learning_rate``), at least two."""
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
    """At most ``length`` characters, the middle left out."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
