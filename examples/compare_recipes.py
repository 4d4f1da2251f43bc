"""Trains two variants of a recipe on the same images and prints their accuracies with intervals.

Writes runs/dropout into the current folder.
"""

from __future__ import annotations

import bloodauto


def main() -> None:
    """Runs the example."""
    comparison = bloodauto.ablate(
        "tiny_cnn",
        run_dir="runs/dropout",
        vary=["head.dropout=0.5"],
        settings=bloodauto.ComparisonSettings(images=400),
    )
    assert comparison is not None
    for row in comparison.rows:
        assert row.scored is not None
        interval = row.scored.accuracy_interval
        print(f"{row.name:<20} {row.scored.accuracy:.3f} ({interval.low:.3f}-{interval.high:.3f})")


if __name__ == "__main__":
    main()
