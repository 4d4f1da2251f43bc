"""Sets that grow together: who is, through others, the same as whom."""

from __future__ import annotations

import numpy as np


class DisjointSets:
    """Union-find over 0..count-1 with path halving; a set is led by its smallest member."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, item: int) -> int:
        """The leader of the item's set."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def union(self, first: int, second: int) -> None:
        """Joins the sets of two items."""
        low, high = sorted((self.find(first), self.find(second)))
        self._parent[high] = low

    def leaders(self) -> np.ndarray:
        """The leader of every item, int64 (count,)."""
        return np.array([self.find(item) for item in range(len(self._parent))], np.int64)
