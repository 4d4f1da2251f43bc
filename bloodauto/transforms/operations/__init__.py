"""All image operations, a module for each thing that they imitate. Importing this package registers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from bloodauto.config.recipe import OPERATION_SETS, OPERATION_SPECS
from bloodauto.transforms.operations import colour, geometry, occlusion, optics, pointwise, sensor
from bloodauto.transforms.registry import REGISTERED, Operation

__all__ = ["OPERATIONS", "colour", "geometry", "occlusion", "optics", "pointwise", "select_operations", "sensor"]

#: Every operation by its name, in the order of ``OPERATION_SPECS``.
OPERATIONS: Mapping[str, Operation] = MappingProxyType({name: REGISTERED[name] for name in OPERATION_SPECS})


def select_operations(operations: str | Sequence[str]) -> tuple[Operation, ...]:
    """The operations that a recipe draws from.

    Args:
        operations: The name of a set, or names of operations; a recipe has checked them.

    Returns:
        The operations; a name that occurs twice gives its operation twice.
    """
    names = OPERATION_SETS[operations] if isinstance(operations, str) else operations
    return tuple(OPERATIONS[name] for name in names)
