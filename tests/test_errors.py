"""The exception tree, its exit codes, and errors that cross a process border."""

import pickle

import pytest

from bloodauto import errors
from bloodauto.errors import BloodautoError, TrialAbort, TrialFailure, TrialInterrupted, TrialRejected, UserError

CLASSES: list[type[BloodautoError]] = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BloodautoError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_the_docstring_draws_every_class_with_its_exit_code(kind: type[BloodautoError]) -> None:
    assert errors.__doc__ is not None
    lines = [line for line in errors.__doc__.splitlines() if kind.__name__ in line.split()]
    assert len(lines) == 1
    sentence = lines[0].split()
    assert sentence[sentence.index("code") + 1] == str(kind.exit_code)


def test_what_the_user_can_mend_has_an_exit_code_of_its_own() -> None:
    assert all(kind.exit_code == (2 if issubclass(kind, UserError) else 1) for kind in CLASSES)


@pytest.mark.parametrize("kind", [TrialRejected, TrialInterrupted, TrialAbort])
def test_a_failed_trial_survives_pickling(kind: type[TrialFailure]) -> None:
    failure = pickle.loads(pickle.dumps(kind("nan", "the loss is nan")))
    assert type(failure) is kind
    assert (failure.reason, str(failure)) == ("nan", "the loss is nan")
