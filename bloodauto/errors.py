"""Every error that bloodauto raises on purpose.

    BloodautoError              exit code 1
    ├── UserError               exit code 2   something the user can mend
    │   ├── DataError           exit code 2   images, labels, manifests, downloads
    │   ├── RecipeError         exit code 2   a recipe or a search space that does not follow the grammar
    │   ├── WeightsError        exit code 2   pre-trained weights that are missing or do not fit
    │   ├── BudgetError         exit code 2   a budget that cannot be read, or is too small for anything
    │   └── RunError            exit code 2   a run directory in the wrong state, or settings that differ
    └── TrialFailure            exit code 1   a training ended without a result
        ├── TrialRejected       exit code 1   the recipe cannot work: no retry
        ├── TrialInterrupted    exit code 1   the process or the machine failed
        └── TrialAbort          exit code 1   the data or our code is wrong: stop the search

A message says what was expected, what was received, where, and how to mend it. Every other exception is a fault of the program
and keeps its traceback.
"""

from __future__ import annotations

from typing import Self


class BloodautoError(Exception):
    """Base of every error that is raised on purpose.

    Example:
        >>> import bloodauto
        >>> try:
        ...     bloodauto.load_recipe("nowhere.yaml")
        ... except bloodauto.BloodautoError as error:
        ...     print(type(error).__name__, error.exit_code)
        RecipeError 2
    """

    exit_code = 1


class UserError(BloodautoError):
    """Something the user can mend; the command line prints it without a traceback."""

    exit_code = 2


class DataError(UserError):
    """Images, labels, manifests or downloads cannot be used."""


class RecipeError(UserError):
    """A recipe or a search space does not follow the grammar."""


class WeightsError(UserError):
    """Pre-trained weights are missing or do not fit the network."""


class BudgetError(UserError):
    """A budget cannot be read, or is too small for anything."""


class RunError(UserError):
    """A run directory is in the wrong state, or its settings differ from those that were requested."""


class TrialFailure(BloodautoError):
    """A training ended without a result. Raise one of the subclasses: they say whether it is tried again.

    Args:
        reason: A short machine-readable word that is stored with the trial, for example ``nan``.
        message: A sentence for people.

    Attributes:
        reason: The same.

    Example:
        >>> try:
        ...     raise TrialRejected("nan", "the loss is nan after epoch 3")
        ... except TrialFailure as failure:
        ...     print(failure.reason, "-", failure)
        nan - the loss is nan after epoch 3
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        # Exceptions with more than one argument do not survive pickling between processes on their own.
        return type(self), (self.reason, str(self))


class TrialRejected(TrialFailure):
    """The recipe cannot work on this machine: a loss that is not finite, an impossible shape. The trial is not retried."""


class TrialInterrupted(TrialFailure):
    """The process or the machine failed: a worker died, a device was lost, a disk was full.

    A training whose process dies is restarted from its checkpoint before the trial counts as interrupted.
    """


class TrialAbort(TrialFailure):
    """The data or our code is wrong, so that every trial would fail. The search stops."""
