"""Recipes and search spaces that cannot be read: broken YAML, unknown fields, wrong values, and what attackers write."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.config.shipped import shipped_folder
from tests.bad_input.refusal import refused

SPACE = (shipped_folder("search_spaces") / "tiny.yaml").read_text()


def replaced(old: str, new: str) -> str:
    assert old in SPACE
    return SPACE.replace(old, new, 1)


DOCUMENTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "expected"),
    "a comment alone": ("# nothing\n", "expected"),
    "a word": ("hello", "expected"),
    "a list": ("- 1\n- 2\n", "expected"),
    "a number": ("7", "expected"),
    "null": ("null", "expected"),
    "json of something else": ('{"hello": 1}', "hello"),
    "a tab": ("input:\n\tsize_px: 48\n", "space.yaml:2"),
    "an open bracket": ("input: {size_px: 48\n", "space.yaml"),
    "an open quote": ('input: "48\n', "space.yaml"),
    "a colon too many": ("input: a: b\n", "space.yaml:1"),
    "bad indentation": ("input:\n  size_px: 48\n batch_size: 3\n", "space.yaml"),
    "a key twice": (replaced("batch_size: 32", "batch_size: 32\nbatch_size: 16"), 'duplicate key "batch_size"'),
    "two documents": (SPACE + "---\n" + SPACE, "space.yaml"),
    "a tag of python": ("!!python/object/apply:os.system ['touch owned']\n", "expected a plain value, got the tag"),
    "a tag of python in a value": (replaced("48", "!!python/name:os.system x"), "got the tag"),
    "a tag of its own": (replaced("48", "!secret 48"), "got the tag"),
    "binary": (replaced("48", "!!binary aGVsbG8="), "got the tag"),
    "an alias of itself": ("input: &a\n  size_px: *a\n", "space.yaml"),
    "aliases of aliases": (
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*d,*d,*d,*d,*d,*d,*d,*d]\n",
        "space.yaml",
    ),
    "an unknown alias": ("input: *nowhere\n", "space.yaml"),
    "another version": ("%YAML 1.1\n---\n" + SPACE, "1.2"),
    "values nested very deep": ("[" * 3000 + "]" * 3000, "space.yaml"),
    "a key that is a list": ("[1, 2]: 3\n", "expected a word before the colon"),
    "a key that is a number": ("1: 2\n", "expected a word before the colon"),
    "latin-1": ("# Mu\u00f1oz\n".encode("latin-1") + SPACE.encode(), "expected a YAML text file"),
    "utf-16": (SPACE.encode("utf-16"), "expected a YAML text file"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "expected a YAML text file"),
    "a zero byte": (SPACE.encode() + b"\0", "space.yaml"),
    "an escape": (SPACE.encode() + b"\x1b[31m", "space.yaml"),
    "no stages": (SPACE[: SPACE.index("stages:")], "stages"),
    "an empty list of stages": (SPACE[: SPACE.index("stages:")] + "stages: []\n", "stages"),
    "a misspelt field": (replaced("dropout", "dropuot"), "did you mean 'dropout'"),
    "a misspelt domain": (replaced("choice", "chioce"), "chioce"),
    "an unknown field": (SPACE + "colour: red\n", "colour"),
    "an unknown backbone": (replaced("own_cnn", "resnet9000"), "resnet9000"),
    "an unknown optimizer": (replaced("adamw", "adamww"), "did you mean 'adamw'"),
    "an unknown augmentation": (replaced("operations: cells", "operations: [rotat]"), "rotat"),
    "text for a number": (replaced("batch_size: 32", "batch_size: many"), "many"),
    "a fraction for a count": (replaced("batch_size: 32", "batch_size: 3.5"), "3.5"),
    "zero": (replaced("batch_size: 32", "batch_size: 0"), "batch_size"),
    "a negative number": (replaced("epochs: 6", "epochs: -6"), "epochs"),
    "not a number": (replaced("weight_decay: 0.01", "weight_decay: .nan"), "weight_decay"),
    "infinity": (replaced("weight_decay: 0.01", "weight_decay: .inf"), "weight_decay"),
    "a huge number": (replaced("{size_px: 48}", "{size_px: 100000000000000000000000}"), "size_px"),
    "a size beyond any image": (replaced("{size_px: 48}", "{size_px: 60000}"), "size_px"),
    "a word for yes": (replaced("orientation: true", "orientation: yes"), "orientation"),
    "a list for a mapping": (replaced("input: {size_px: 48}", "input: [48]"), "input"),
    "an empty choice": (replaced("{choice: [16, 32]}", "{choice: []}"), "width"),
    "a choice of the same twice": (replaced("{choice: [16, 32]}", "{choice: [16, 16]}"), "width"),
    "a range upside down": (replaced("{float: [0.0, 0.4]}", "{float: [0.4, 0.0]}"), "dropout"),
    "a range of one number": (replaced("{float: [0.0, 0.4]}", "{float: [0.4]}"), "dropout"),
    "a range of words": (replaced("{float: [0.0, 0.4]}", "{float: [low, high]}"), "dropout"),
    "a range beyond the field's": (replaced("{float: [0.0, 0.4]}", "{float: [0.0, 4.0]}"), "dropout"),
    "a logarithmic range from zero": (replaced("[1.0e-3, 1.0e-2], log: true", "[0.0, 1.0e-2], log: true"), "log"),
    "two domains in one": (replaced("{float: [0.0, 0.4]}", "{float: [0.0, 0.4], int: [1, 2]}"), "dropout"),
    "an endless integer range": (replaced("{int: [1, 3]}", "{int: [1, 1000000000000]}"), "num_ops"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_spaces(tmp_path: Path, case: str) -> None:
    content, message = DOCUMENTS[case]
    path = tmp_path / "space.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    ended = refused(tmp_path, "spaces", path)
    assert message in ended.err
    assert "space.yaml" in ended.err


@pytest.mark.parametrize("command", ["spaces", "trials"])
@pytest.mark.parametrize("path", ["nowhere.yaml", "folder", "pipe.yaml", "x" * 300 + ".yaml", "tinny", "\x1b[31m.yaml"])
def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("pipe.yaml").mkdir()
    refused(tmp_path, command, path)
