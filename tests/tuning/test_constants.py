import re

import pytest
from pydantic import ValidationError

from bloodauto.tuning.constants import BudgetConstants, Constants, SchedulerConstants


@pytest.mark.parametrize("constants", [SchedulerConstants, BudgetConstants])
def test_every_constant_has_a_reason_of_one_line(constants: type[Constants]) -> None:
    reasons = constants.reasons()
    assert reasons.keys() == constants.model_fields.keys()
    for name, reason in reasons.items():
        assert re.fullmatch(r"[A-Z][^\n]{20,}\.", reason), f"{name}: {reason!r}"


def test_constants_are_frozen_and_checked() -> None:
    constants = SchedulerConstants()
    with pytest.raises(ValidationError):
        constants.max_refits = 3
    with pytest.raises(ValidationError):
        BudgetConstants(finalization_overrun_fraction=1.5)
    with pytest.raises(ValidationError):
        BudgetConstants(overrun=0.5)  # type: ignore[call-arg]
