"""The speed of a machine is kept from search to search, and the first plan of the next one uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.models import device
from bloodauto.testing.simulated_search import SimulatedSearch, small_budget_search, tiny_recipe, tiny_space
from bloodauto.workflows.machine_speed import MachineSpeed

SPACE = tiny_space()
SMALL, LARGE = tiny_recipe(SPACE, 16), tiny_recipe(SPACE, 32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache folder in which the device was measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = device._cache_path()
    path.parent.mkdir(parents=True)
    settings = device.DeviceSettings()
    device._DeviceCache(devices={device._device_key(on_gpu=False): settings}).write(path)
    return path


def test_the_quickest_training_of_each_network_is_kept(cache: Path) -> None:
    speed = MachineSpeed(100, on_gpu=False)
    assert speed.epoch_seconds([SMALL, LARGE]) == ()
    speed.save([(SMALL, 8.0), (LARGE, 20.0)])
    speed.save([(SMALL, 30.0), (LARGE, 18.0)])
    assert speed.epoch_seconds([SMALL, LARGE]) == ((SMALL, pytest.approx(8.0)), (LARGE, pytest.approx(18.0)))
    twice_the_images = MachineSpeed(200, on_gpu=False)
    assert twice_the_images.epoch_seconds([SMALL]) == ((SMALL, pytest.approx(16.0)),)


def test_a_cache_that_is_missing_or_damaged_is_no_error(cache: Path) -> None:
    speed = MachineSpeed(100, on_gpu=False)
    cache.write_text("{", encoding="utf-8")
    speed.save([(SMALL, 8.0)])
    assert speed.epoch_seconds([SMALL]) == ()
    cache.unlink()
    speed.save([(SMALL, 8.0)])
    assert speed.epoch_seconds([SMALL]) == ()


def first_given_seconds(search: SimulatedSearch) -> float | None:
    search.session(stop_at=1.0)
    return search.attributes()[0].given_seconds


def test_the_first_plan_knows_the_machine(tmp_path: Path) -> None:
    """Without that the first training may take half of the search's time: nobody knows what it needs."""
    unknown = small_budget_search(tmp_path / "unknown", seed=0)
    known = small_budget_search(tmp_path / "known", seed=0).with_settings(epoch_seconds=((SMALL, 12.0), (LARGE, 40.0)))
    without, with_speed = first_given_seconds(unknown), first_given_seconds(known)
    assert without is not None
    assert with_speed is not None
    assert with_speed < 1.5 * (12.0 + 6 * 12.0 + 5.0) < without
