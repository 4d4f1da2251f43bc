import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.budget import parse_budget
from bloodauto.errors import BudgetError


@pytest.mark.parametrize(
    ("text", "kind", "seconds"),
    [
        ("40gpu-h", "gpu", 144_000.0),
        ("30cpu-min", "cpu", 1_800.0),
        ("2h", "wall", 7_200.0),
        (" 1.5 GPU-h ", "gpu", 5_400.0),
        (".5d", "wall", 43_200.0),
        ("90s", "wall", 90.0),
    ],
)
def test_forms(text: str, kind: str, seconds: float) -> None:
    budget = parse_budget(text)
    assert (budget.kind, budget.seconds) == (kind, seconds)


@pytest.mark.parametrize(
    "text", ["", "40", "gpu-h", "-1h", "0min", "1e3h", "2 hours", "40tpu-h", "1h30min", "nan h", "2h\n3h"]
)
def test_other_forms_are_rejected_and_quoted(text: str) -> None:
    with pytest.raises(BudgetError) as error:
        parse_budget(text)
    assert repr(text) in str(error.value)


@given(st.integers(1, 10**6), st.sampled_from(["s", "min", "h", "d"]), st.floats(0.1, 64))
def test_only_wall_budgets_scale_with_devices(amount: int, unit: str, devices: float) -> None:
    wall, cpu = parse_budget(f"{amount}{unit}"), parse_budget(f"{amount}cpu-{unit}")
    assert wall.seconds == cpu.seconds
    assert cpu.device_seconds(devices) == cpu.seconds
    assert wall.device_seconds(devices) == pytest.approx(cpu.seconds * devices)
