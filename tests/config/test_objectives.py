"""The names of the objectives, their directions and the Pareto front."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.objectives import Objectives, parse_objectives
from bloodauto.errors import UserError

SEVERAL = Objectives(("shift", "latency", "parameters"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shfit", "did you mean 'shift'"),
        ("latency", "a score first"),
        ("shift,shift", "each name once"),
        ("shift,speed", "got 'speed'"),
        ("", "got ''"),
    ],
)
def test_invalid_objectives_are_refused(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        parse_objectives(text)


def test_the_first_objective_is_primary_and_costs_are_minimised() -> None:
    objectives = parse_objectives("shift, latency,accuracy")
    assert (objectives.primary, objectives.secondary) == ("shift", ("latency", "accuracy"))
    assert objectives.directions == ["maximize", "minimize", "maximize"]


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_the_pareto_front_is_undominated_and_dominates_the_rest(values: list[tuple[int, int, int]]) -> None:
    pareto_front = SEVERAL.pareto_front(values, lambda value: value)
    assert pareto_front

    def dominates(rival: tuple[int, ...], value: tuple[int, ...]) -> bool:
        return rival != value and rival[0] >= value[0] and rival[1] <= value[1] and rival[2] <= value[2]

    for value in values:
        assert (value in pareto_front) == (not any(dominates(rival, value) for rival in values))
