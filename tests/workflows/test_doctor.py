"""What ``doctor`` finds, and that it says how to mend what it finds wrong."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from bloodauto.workflows import doctor
from bloodauto.workflows.doctor import Check, guarded, machine_checks
from tests.command_line import bloodauto_here


def checks_in(folder: Path) -> dict[str, Check]:
    return {check.name: check for check in machine_checks(folder)}


def test_a_machine_that_runs_the_tests_passes_and_nothing_is_left_behind(tmp_path: Path) -> None:
    checks = checks_in(tmp_path / "runs" / "new")
    assert list(checks) == ["Python", "packages", "devices", "memory", "/dev/shm", "disk", "storage"]
    assert not [check for check in checks.values() if check.state == "fail"]
    assert all(check.mend for check in checks.values() if check.state != "ok")
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_absent_or_too_old_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = ["numpy>=999", "no-such-package>=2", "rich>=1", "ray>=1; extra == 'other'"]
    monkeypatch.setattr(metadata, "requires", lambda _: expected)
    packages = checks_in(tmp_path)["packages"]
    assert packages.state == "fail"
    assert "no-such-package absent" in packages.finding
    assert packages.mend == "pip install 'numpy>=999' 'no-such-package>=2'"


@pytest.mark.parametrize(("free_gigabytes", "state"), [(1, "fail"), (3, "warn"), (9, "ok")])
def test_memory_is_told_by_what_workers_need(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_gigabytes: int, state: str
) -> None:
    monkeypatch.setattr(doctor, "available_memory_bytes", lambda: free_gigabytes * 1_000_000_000)
    assert checks_in(tmp_path)["memory"].state == state


def test_one_core_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "available_cores", lambda: 1)
    devices = checks_in(tmp_path)["devices"]
    assert (devices.state, devices.finding[:10]) == ("warn", "1 CPU core")


def test_a_check_that_raises_is_a_failed_one() -> None:
    def broken() -> Check:
        raise OSError("no such device\nmore")

    assert guarded("disk", broken, "mend it") == Check("disk", "fail", "OSError: no such device", "mend it")


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    checks = checks_in(Path("/proc"))
    assert (checks["disk"].state, checks["storage"].state) == ("fail", "fail")


@pytest.mark.slow
def test_the_command_trains_for_two_seconds_and_ends_with_a_code(tmp_path: Path) -> None:
    options = ["--folder", tmp_path, "--space", "tiny", "--storage", "nonsense://user:secret@host"]
    done = bloodauto_here("doctor", "--json", *options)
    value = json.loads(done.out)
    checks = {check["name"]: check for check in value["checks"]}
    assert (done.code, value["ok"]) == (2, False)
    assert [name for name, check in checks.items() if check["state"] == "fail"] == ["storage"]
    assert checks["storage"]["mend"]
    assert "secret" not in done.out
    assert "epoch" in checks["training"]["finding"]
