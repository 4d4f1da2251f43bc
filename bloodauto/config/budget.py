"""Budgets as people write them: ``40gpu-h``, ``30cpu-min``, ``2h``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from bloodauto.errors import BudgetError

_UNIT_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_FORM = re.compile(r"(?P<amount>\d+(?:\.\d+)?|\.\d+)\s*(?:(?P<device>cpu|gpu)-)?(?P<unit>s|min|h|d)")


@dataclass(frozen=True)
class Budget:
    """A budget.

    Attributes:
        text: As typed.
        kind: ``cpu`` and ``gpu`` count device-seconds (devices reserved x seconds reserved), ``wall`` counts seconds.
        seconds: The amount, in device-seconds or wall-clock seconds.
    """

    text: str
    kind: Literal["cpu", "gpu", "wall"]
    seconds: float

    def device_seconds(self, devices: float) -> float:
        """The budget in device-seconds.

        Args:
            devices: Devices that are reserved throughout.
        """
        return self.seconds * devices if self.kind == "wall" else self.seconds


def parse_budget(text: str) -> Budget:
    """Reads a budget.

    Args:
        text: An amount and a unit: ``s``, ``min``, ``h`` or ``d`` for wall-clock time, after ``cpu-`` or ``gpu-`` for device
            time.

    Raises:
        BudgetError: Not of this form, or nothing.

    Example:
        >>> parse_budget("1.5gpu-h").seconds, parse_budget("2h").device_seconds(4)
        (5400.0, 28800.0)
    """
    match = _FORM.fullmatch(text.strip().lower())
    if match is None:
        raise BudgetError(
            f"--budget: expected an amount with a unit such as 40gpu-h, 30cpu-min or 2h (wall clock), got {text!r}."
        )
    seconds = float(match["amount"]) * _UNIT_SECONDS[match["unit"]]
    if seconds <= 0:
        raise BudgetError(f"--budget: expected more than nothing, got {text!r}.")
    device = match["device"]
    kind: Literal["cpu", "gpu", "wall"] = "cpu" if device == "cpu" else "gpu" if device == "gpu" else "wall"
    return Budget(text.strip(), kind, seconds)
