"""Searches for three CPU-minutes on synthetic cells and predicts with the exported model.

Writes runs/quickstart and predictions.csv into the current folder.
"""

from __future__ import annotations

from pathlib import Path

import bloodauto
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset


def main() -> None:
    """Runs the example."""
    result = bloodauto.search("synthetic", budget="3cpu-min", run_dir="runs/quickstart", space="tiny")
    print(f"spent {result.spent_device_seconds:.0f} of {result.budget_device_seconds:.0f} device-seconds")
    print(f"accuracy on validation images: {result.ensemble['accuracy']:.3f}")
    print(f"accuracy on shifted validation images: {result.ensemble['shifted_accuracy']:.3f}")

    # Cells of another synthetic site; their labels are used only to print the accuracy.
    cells = synthesize(40, site="lab_b", seed=1, image_size_px=96)
    assert result.export is not None
    predictions = bloodauto.load_model(result.export).predict(cells.images)
    correct = predictions.labels == cells.labels
    print(f"accuracy at another site: {correct.mean():.3f}; abstained from {predictions.abstained.mean():.0%}")

    # The same from files.
    write_dataset(cells, Path("new_cells"))
    table = bloodauto.predict(result.export, "new_cells", "predictions.csv")
    print(table.read_text(encoding="utf-8").partition("\n")[0])


if __name__ == "__main__":
    main()
