"""What ``import bloodauto`` offers."""

from __future__ import annotations

import doctest
import importlib.metadata
import subprocess
import sys

import pytest

import bloodauto
from bloodauto import errors

#: Libraries that take a second or more to import.
HEAVY = ("tensorflow", "keras", "ray", "plotly", "optuna", "sklearn", "cv2", "pandas", "scipy", "pydantic")

#: ``BloodautoError`` has the example for them.
SUBCLASSES_OF_ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type)} - {"BloodautoError"}


def test_all_is_sorted_and_has_no_duplicates() -> None:
    assert bloodauto.__all__ == sorted(set(bloodauto.__all__))


@pytest.mark.parametrize("name", bloodauto.__all__)
def test_an_exported_name_exists_and_is_documented(name: str) -> None:
    value = getattr(bloodauto, name)
    assert name in dir(bloodauto)
    if not name.startswith("__"):
        assert value.__name__ == name, "a name has one spelling"
        assert value.__doc__
        assert value.__module__.startswith("bloodauto.")


@pytest.mark.parametrize(
    "name",
    [name for name in bloodauto.__all__ if not name.startswith("__") and name not in SUBCLASSES_OF_ERRORS],
)
def test_an_exported_name_has_an_example(name: str) -> None:
    """Doctest runs it: see the root conftest."""
    assert doctest.DocTestParser().get_examples(getattr(bloodauto, name).__doc__)


def test_every_public_name_of_the_module_is_exported() -> None:
    """A name that is imported at its first use counts, too: all were used by the test above."""
    for name in bloodauto.__all__:
        getattr(bloodauto, name)
    submodules = {name for name in vars(bloodauto) if f"bloodauto.{name}" in sys.modules}
    # What `import` and typing leave behind.
    helpers = {"Any", "PackageNotFoundError", "TYPE_CHECKING", "annotations", "importlib", "version"}
    public = {name for name in vars(bloodauto) if not name.startswith("_")} - submodules - helpers
    assert public == {name for name in bloodauto.__all__ if not name.startswith("_")}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        _ = bloodauto.serach


def test_the_version_is_that_of_the_distribution() -> None:
    assert bloodauto.__version__ == importlib.metadata.version("bloodauto")


def test_importing_is_light_and_a_name_imports_what_it_needs() -> None:
    code = (
        "import sys, bloodauto\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules], sep=',')\n"
        "bloodauto.SearchSettings, bloodauto.load_recipe\n"
        "print('tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["", "False"]
