"""Estimates of the seconds of networks that nobody has timed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.config.recipe import Backbone
from bloodauto.models.backbones import num_layers, num_parameters
from bloodauto.tuning.budget.cost_estimate import CostKey, estimate_seconds

#: Seconds of an epoch of some thousand real cells at 96 px on one CPU core.
MEASURED = {
    "mobilenet_0.25": 19.75,
    "mobilenet_1.0": 68.7,
    "mobilenet_v2_0.35": 41.0,
    "mobilenet_v2_1.0": 79.5,
}


def cost_key(name: str, size_px: int = 96) -> CostKey:
    return Backbone(name=name, weights="none", batch_norm="train"), size_px


def measured(*names: str) -> dict[CostKey, float]:
    return {cost_key(name): MEASURED[name] for name in names}


@pytest.mark.parametrize("name", MEASURED)
def test_each_measured_network_is_estimated_from_the_others(name: str) -> None:
    estimate = estimate_seconds(measured(*(other for other in MEASURED if other != name)), cost_key(name))
    assert 0.85 < estimate / MEASURED[name] < 1.5


def test_a_wide_network_after_two_thin_ones_is_estimated_within_a_factor_of_two() -> None:
    """Their parameters alone would say 142 seconds: by those the deep thin one is cheap for its kind."""
    estimate = estimate_seconds(measured("mobilenet_0.25", "mobilenet_v2_0.35"), cost_key("mobilenet_1.0"))
    assert MEASURED["mobilenet_1.0"] < estimate < 1.5 * MEASURED["mobilenet_1.0"]


def test_an_estimate_converges_as_networks_are_timed() -> None:
    """Of networks that lie on one line exactly, so that nothing but the uncertainty changes."""
    names = ("mobilenet_0.25", "mobilenet_0.5", "mobilenet_0.75", "mobilenet_v2_0.35", "mobilenet_v2_0.75", "resnet50")
    ratios = []
    for count in range(1, len(names) + 1):
        line = {cost_key(name): _on_prior_line(name) for name in names[:count]}
        ratios.append(estimate_seconds(line, cost_key("mobilenet_v2_1.0")) / _on_prior_line("mobilenet_v2_1.0"))
    assert ratios == sorted(ratios, reverse=True)
    assert 1.0 < ratios[-1] < ratios[0] < 1.6


def _on_prior_line(name: str) -> float:
    backbone, _ = cost_key(name)
    return float(0.001 * num_parameters(backbone) ** 0.45 * num_layers(backbone) ** 0.7)


@settings(max_examples=50)
@given(
    names=st.lists(st.sampled_from(sorted(MEASURED)), min_size=1, max_size=4, unique=True),
    machine=st.floats(1e-3, 1e3),
    target=st.sampled_from(["mobilenet_0.5", "efficientnet_b0", "resnet50", "vgg16", "convnext_tiny"]),
    size_px=st.sampled_from([48, 96, 224]),
)
def test_machine_speed_and_image_size_scale_an_estimate(
    names: list[str], machine: float, target: str, size_px: int
) -> None:
    seconds = measured(*names)
    estimate = estimate_seconds(seconds, cost_key(target))
    on_other = estimate_seconds({key: machine * value for key, value in seconds.items()}, cost_key(target, size_px))
    assert on_other == pytest.approx(machine * (size_px / 96) ** 2 * estimate, rel=5e-3)
    assert np.isfinite(estimate)
    assert estimate > 0
