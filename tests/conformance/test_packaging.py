"""The wheel carries what the package needs away from its checkout."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email.message import Message
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The wheel's files, by name. Built in an environment of its own, which needs the package index."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel: dict[str, bytes], name: str) -> bytes:
    (content,) = (content for path, content in wheel.items() if path.endswith(f".dist-info/{name}"))
    return content


@pytest.mark.parametrize("kind", ["search_spaces", "trials"])
def test_it_carries_the_declared_files_as_they_are(wheel: dict[str, bytes], kind: str) -> None:
    declared = {file.relative_to(ROOT / kind).as_posix(): file.read_bytes() for file in (ROOT / kind).rglob("*.yaml")}
    prefix = f"bloodauto/_shipped/{kind}/"
    carried = {
        path.removeprefix(prefix): content
        for path, content in wheel.items()
        if path.startswith(prefix) and path.endswith(".yaml")
    }
    assert declared
    assert kind != "trials" or {"ynwa.yaml", "ablations/ynwa_ladder.yaml"} <= set(declared)
    assert carried == declared


def test_it_carries_the_package_and_nothing_else(wheel: dict[str, bytes]) -> None:
    package = {
        str(PurePosixPath(file.relative_to(ROOT)))
        for file in (ROOT / "bloodauto").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    others = {path for path in wheel if not path.startswith("bloodauto/_shipped/") and ".dist-info/" not in path}
    assert "bloodauto/py.typed" in package
    assert {"bloodauto/report/page.css", "bloodauto/report/page.js"} <= package
    assert others == package


def test_it_installs_the_command(wheel: dict[str, bytes]) -> None:
    entry_points = ConfigParser()
    entry_points.read_string(metadata(wheel, "entry_points.txt").decode())
    assert dict(entry_points["console_scripts"]) == {"bloodauto": "bloodauto.cli.main:main"}


def test_its_metadata_states_the_licence_and_the_extras(wheel: dict[str, bytes]) -> None:
    stated: Message = email.message_from_bytes(metadata(wheel, "METADATA"))
    assert stated["License-Expression"] == "Apache-2.0"
    assert stated["Requires-Python"] == ">=3.11"
    assert set(stated.get_all("Provides-Extra", [])) == {"cuda", "dev", "docs", "keras-cv", "postgresql"}
    assert metadata(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
