"""Every error the project raises on purpose.

    BloodautoError                     exit code 1
    ├── UserError                      exit code 2: something the user can mend
    │   ├── DataError                  images, labels, manifests, downloads
    │   ├── RecipeError                a recipe or a space that does not say what it must
    │   ├── WeightsError               pre-trained weights that are missing or do not fit
    │   ├── BudgetError                a budget that cannot be read, or too small for anything
    │   └── RunError                   a run directory in the wrong state, settings that differ
    └── TrialFailure                   one trial ended without a result
        ├── TrialRejected              cannot work, whatever is tried: no retry
        └── TrialAbort                 the data or our code is wrong: stop the search

A message says what was expected, what came, where, and how to mend it.
"""

from __future__ import annotations


class BloodautoError(Exception):
    """Base of every error raised on purpose."""

    exit_code = 1


class UserError(BloodautoError):
    """Something the user can mend; printed without a traceback."""

    exit_code = 2


class DataError(UserError):
    """Images, labels, manifests or downloads that cannot be used."""


class RecipeError(UserError):
    """A recipe or a space that does not follow the grammar."""


class WeightsError(UserError):
    """Pre-trained weights that are missing or do not fit the network."""


class BudgetError(UserError):
    """A budget that cannot be read, or that is too small for anything."""


class RunError(UserError):
    """A run directory in the wrong state, or settings that differ from those it was made with."""


class TrialFailure(BloodautoError):
    """One trial ended without a result.

    ``reason`` is a short machine-readable word that is stored with the trial, for example ``nan`` or ``out_of_memory``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # Exceptions with more than one argument do not survive pickling between processes on their own.
        return type(self), (self.reason, str(self))


class TrialRejected(TrialFailure):
    """The trial cannot work, whatever is tried (a loss that is not a number, an impossible shape). Not retried."""


class TrialAbort(TrialFailure):
    """The data or our own code is wrong: every trial would fail. The search stops."""
