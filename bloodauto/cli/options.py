"""Options, console and interrupts that several commands share."""

from __future__ import annotations

import contextlib
import functools
import inspect
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodauto.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

DEBUG = "--debug"


def option(
    name: str,
    text: str,
    *,
    example: str,
    unit: str = "",
    default: str | None = None,
    min: float | None = None,  # Typer's own name
    short: str | None = None,
) -> Any:
    """Declares an option whose help says what it does, its unit, its default and an example.

    Args:
        name: ``--name``, or ``--name/--no-name`` for a flag with both forms.
        text: One or two sentences.
        example: The option as it is typed.
        unit: Unit of a number; empty for anything else.
        default: Text of the default where the parameter's own default does not say it; None shows the parameter's.
        min: Smallest number.
        short: A second, shorter form of the name; None: there is none.

    Returns:
        A Typer option.
    """
    unit_text = f" Unit: {unit}." if unit else ""
    default_text = f" Default: {default}." if default is not None else ""
    names = (name,) if short is None else (name, short)
    return typer.Option(
        *names, help=f"{text}{unit_text}{default_text} Example: {example}.", show_default=default is None, min=min
    )


def with_debug(command: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--debug`` to a command; ``main`` reads it.

    Args:
        command: A function that Typer can run.

    Returns:
        A function with one parameter more.
    """
    annotation = Annotated[bool, option(DEBUG, "Show the full traceback of any error.", default="off", example=DEBUG)]

    @functools.wraps(command)
    def run(*, debug: bool = False, **arguments: Any) -> None:
        command(**arguments)

    signature = inspect.signature(command, eval_str=True)
    parameter = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), parameter])  # type: ignore[attr-defined]
    run.__annotations__ = {**inspect.get_annotations(command, eval_str=True), "debug": annotation}
    return run


NewRun = Annotated[
    Path | None,
    option(
        "--run",
        "Directory of the run.",
        default="a new one in runs/, named by the time",
        example="--run runs/first",
    ),
]
Run = Annotated[Path, option("--run", "Directory of the run.", example="--run runs/first")]
Output = Annotated[Path, option("--output", "Folder to write to.", example="--output best")]
Data = Annotated[
    str,
    option(
        "--data",
        "Images and labels: a folder of class folders, a .csv manifest, an .npz file, or 'synthetic' for drawn cells.",
        example="--data cells.npz",
    ),
]
ImageSize = Annotated[
    int | None,
    option(
        "--image-size-px",
        "Side to which all images are resized.",
        unit="pixels",
        default="chosen from the images",
        example="--image-size-px 96",
        short="--image-size",
    ),
]
Cleaning = Annotated[
    bool,
    option(
        "--cleaning/--no-cleaning",
        "Exclude images that the data check finds broken, duplicated or mislabelled.",
        default="true",
        example="--no-cleaning",
    ),
]
WeightsDir = Annotated[
    Path | None,
    option(
        "--weights-dir",
        "Folder of pre-trained weights that is searched before Keras' own cache.",
        default="none",
        example="--weights-dir weights/",
    ),
]
Seed = Annotated[int, option("--seed", "Seed of splits, shifted images and trainings.", example="--seed 7", min=0)]
AsJson = Annotated[bool, option("--json", "Print one JSON object as the last line.", default="off", example="--json")]
Formats = Annotated[
    str,
    option("--format", "Formats to write, with commas: keras, codabench.", example="--format keras"),
]
TestTimeAugmentation = Annotated[
    bool,
    option(
        "--tta/--no-tta",
        "Average predictions over test-time transforms inside the model: slower, often a little better.",
        default="no-tta",
        example="--tta",
    ),
]
Images = Annotated[
    int | None,
    option(
        "--images",
        "Largest number of images, drawn with the classes' own proportions.",
        unit="images",
        default="all",
        example="--images 2000",
        min=1,
    ),
]
ComparisonBudget = Annotated[
    str | None,
    option(
        "--budget",
        "What all trainings together may spend.",
        unit="device time such as gpu-h or cpu-min, or wall-clock time such as h or min",
        default="no limit",
        example="--budget 30cpu-min",
    ),
]
Epochs = Annotated[
    int | None,
    option(
        "--epochs",
        "Epochs of each training, divided among its stages; needs --backbone.",
        unit="epochs",
        default="as declared",
        example="--epochs 10",
        min=1,
    ),
]
LearningRateFactor = Annotated[
    float,
    option(
        "--learning-rate-factor",
        "Multiplies every learning rate, up to 3e-3 (lion 5e-4, sgd 0.1); only with --backbone.",
        unit="factor",
        example="--learning-rate-factor 3",
        min=0.01,
    ),
]
TargetImages = Annotated[
    Path | None,
    option(
        "--target-images",
        "Unlabelled images of the site where the model will be used.",
        default="none",
        example="--target-images new_site/",
    ),
]


def max_members_option(default: str) -> Any:
    """``--max-members``, whose default differs between commands.

    Args:
        default: Text of the default.
    """
    text = "Largest number of ensemble members."
    return option("--max-members", text, unit="members", default=default, example="--max-members 1")


Magnification = Annotated[
    float | None,
    option(
        "--magnification",
        "How many times larger cells are made before they are predicted, for a site that shows them smaller.",
        unit="times, 0.25 to 4",
        default="1",
        example="--magnification 1.3",
    ),
]
MaxLatency = Annotated[
    float | None,
    option(
        "--max-latency-ms",
        "Longest time the ensemble may take for one image, as measured by the search.",
        unit="milliseconds per image",
        default="no limit",
        example="--max-latency-ms 5",
    ),
]


def make_console(*, stderr: bool = False) -> Console:
    """A console on standard output, or on standard error, where it does not mix with what programs read."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=True)


def new_run_directory(run: Path | None) -> Path:
    """The given directory, or a new one in ``runs/`` that is named by the time."""
    return Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S") if run is None else run


def split_names(text: str) -> tuple[str, ...]:
    """Names separated by commas; blanks around them do not count."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def split_numbers(text: str, option_name: str) -> list[float]:
    """Numbers separated by commas.

    Raises:
        UserError: A part is no number.
    """
    try:
        return [float(part) for part in split_names(text)]
    except ValueError as error:
        raise UserError(f"{option_name}: expected numbers such as 2,1, got {text!r}.") from error


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns True once the user pressed Ctrl-C; a training then saves its state and ends."""
    stop = threading.Event()
    previous = signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    try:
        yield stop.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


def import_workflows() -> None:
    """Imports TensorFlow without its messages; called before a workflow module is imported."""
    from bloodauto.models.tensorflow import import_tensorflow_quietly

    import_tensorflow_quietly()
