"""Options, console and interrupts that several commands share."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

NewRun = Annotated[Path | None, typer.Option("--run", help="Directory of the run; default: a new one in runs/.")]
NoCleaning = Annotated[bool, typer.Option("--no-cleaning", help="Keep every image, whatever cleaning finds.")]
WeightsDir = Annotated[
    Path | None, typer.Option("--weights-dir", help="Folder of pre-trained weights, looked in first.")
]
Seed = Annotated[int, typer.Option("--seed", min=0)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Formats = Annotated[str, typer.Option("--format", help="Comma-separated: keras, codabench.")]
TestTimeAugmentation = Annotated[
    bool, typer.Option("--tta/--no-tta", help="Average over test-time transforms: slower, often a little better.")
]
Distill = Annotated[
    str | None,
    typer.Option(
        "--distill",
        help="Train one network on the ensemble's answers instead: a recipe, or 'smallest' of the run's own.",
    ),
]
StudentBudget = Annotated[
    str | None,
    typer.Option("--budget", help="For --distill: 5cpu-min, 1gpu-h, or 10min; default: what the search left."),
]
Images = Annotated[int | None, typer.Option("--images", help="At most so many, drawn evenly; default: all.", min=1)]
Budget = Annotated[
    str | None,
    typer.Option("--budget", help="For all trainings: 30cpu-min, 2gpu-h, or 1h (wall clock); default: none."),
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", help="Of each training, shared among its stages; needs --backbone.", min=1)
]
LearningRateFactor = Annotated[
    float,
    typer.Option("--learning-rate-factor", help="On every rate, up to 3e-3 (lion 5e-4); with --backbone.", min=0.01),
]


def make_console(*, quiet: bool = False) -> Any:
    """Of standard output, or with ``quiet`` of standard error, where it does not mix with what others read."""
    from rich.console import Console

    return Console(stderr=quiet, soft_wrap=True)


def run_directory(run: Path | None) -> Path:
    """What was given, or a folder named by the time."""
    return Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S") if run is None else run


def stop_on_interrupt() -> Callable[[], bool]:
    """Ctrl-C asks the training to save its state and end."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    return stop.is_set
