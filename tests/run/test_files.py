from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.shipped import shipped_folder
from bloodauto.errors import RecipeError, UserError
from bloodauto.run.files import (
    append_line,
    atomic_path,
    check_output_file,
    check_output_folder,
    file_digest,
    write_arrays,
    write_text,
)
from bloodauto.run.yaml_files import dump_yaml, read_yaml


def yaml_of(folder: Path, text: str):
    path = folder / "given.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    return read_yaml(path)


# Atomic writes


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    write_text(path, "old")

    def break_off() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_text(path, "old")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom bloodauto.run.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_nothing_appears_before_the_block_has_ended(tmp_path):
    path = tmp_path / "deep" / "new.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename is atomic only within one file system"
        assert temporary.suffix == ".txt"
    assert path.read_text() == "whole"


def test_written_files_are_as_readable_as_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "shared", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o640


def test_arrays_are_never_pickled(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_arrays(path, x=np.array([{}], dtype=object))
    assert list(tmp_path.iterdir()) == []
    write_arrays(path, x=np.arange(3))
    np.testing.assert_array_equal(np.load(path, allow_pickle=False)["x"], np.arange(3))


def test_a_line_torn_by_a_kill_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "ledger.jsonl"
    append_line(path, '{"n": 1}')
    append_line(path, '{"n": 2}\n')
    with path.open("a") as stream:
        stream.write('{"n": 3')
    append_line(path, '{"n": 4}')
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [1, 2, 4]


def test_a_file_that_is_one_torn_line_starts_again(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text("torn")
    append_line(path, "whole ä")
    assert path.read_text(encoding="utf-8") == "whole ä\n"


def test_the_digest_is_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# YAML


def test_scalars_have_the_type_of_their_spelling(tmp_path):
    text = (
        "a: 1e-4\nb: 1.0e+3\nc: 7\nd: -2.5\ne: true\nf: ~\ng:\nh: 'on'\ni: 012\nj: 0x10\n"
        "on: on\noff: off\nyes: yes\nno: no\ny: y\ndate: 2020-01-01\nq: '1e-4'\n"
    )
    value = yaml_of(tmp_path, text).value
    numbers = {"a": 1e-4, "b": 1000.0, "c": 7, "d": -2.5, "e": True, "f": None, "g": None, "h": "on", "i": 12, "j": 16}
    tokens = {word: word for word in ("on", "off", "yes", "no", "y")}
    assert value == {**numbers, **tokens, "date": "2020-01-01", "q": "1e-4"}
    kinds = {"a": float, "b": float, "c": int, "d": float, "e": bool, "i": int, "q": str}
    assert {key: type(value[key]) for key in kinds} == kinds


@pytest.mark.parametrize(
    ("text", "line", "reported"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 'duplicate key "a"'),
        ("a:\n  x: 1\n  x: 2\n", 3, 'duplicate key "x"'),
        ("a:\n  x: 1\n  'x': 2\n", 3, 'duplicate key "x"'),
        ("a: [1, 2\nb: 3\n", 2, "syntax error"),
        ("a:\n\tb: 1\n", 2, r"'\t' that cannot start"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: *b\n", 1, "undefined alias 'b'"),
        ("a: 1\nb: &x [1, *x]\n", 2, "alias of what it stands in"),
        ("a: &x\n  b: *x\n", 1, "alias of what it stands in"),
        ("a: 1\nb: !foo 3\n", 2, "tag !foo"),
        ("a: !!python/object/apply:os.system ['exit 3']\n", 1, "tag"),
        ("a: !!binary aGVsbG8=\n", 1, "tag"),
        ("a: 1\n2: b\n", 2, "expected a word before the colon, got 2"),
        ("? [a]\n: b\n", 1, "expected a word before the colon"),
        ("a: &x {p: 1}\nb:\n  <<: *x\n", 3, "got <<"),
        ("%YAML 1.1\n---\na: on\n", 1, "YAML 1.2"),
        ("a: 1\nb: " + 5000 * "9", 2, "expected a number"),
        ("a: !!int x\n", 1, "expected a number"),
    ],
)
def test_what_is_no_plain_yaml_is_told_with_file_and_line(tmp_path, text, line, reported):
    with pytest.raises(RecipeError) as caught:
        yaml_of(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'given.yaml'}:{line}: ")
    assert reported in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_file_holds_nothing(tmp_path, text):
    assert yaml_of(tmp_path, text).value is None


def test_byte_order_mark_and_windows_lines_change_nothing(tmp_path):
    document = yaml_of(tmp_path, "\ufeffa: 1\r\nb:\r\n  - c\r\n")
    assert document.value == {"a": 1, "b": ["c"]}
    assert document.lines == {"a": 1, "b": 2, "b.0": 3}


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(RecipeError, match="found nothing there"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="expected a YAML text file"):
        read_yaml(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"bytes\.yaml: expected a YAML text file"):
        read_yaml(tmp_path / "bytes.yaml")


def test_anchors_stand_for_what_they_name(tmp_path):
    document = yaml_of(tmp_path, "a: &x {p: 1}\nb: *x\nc:\n  - *x\n")
    assert document.value == {"a": {"p": 1}, "b": {"p": 1}, "c": [{"p": 1}]}
    document.value["a"]["p"] = 2
    assert document.value["b"]["p"] == 1, "each alias is a value of its own"


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    started = time.monotonic()
    with pytest.raises(RecipeError, match="expected at most"):
        yaml_of(tmp_path, "\n".join(lines))
    assert time.monotonic() - started < 5


def test_very_deep_values_are_an_error(tmp_path):
    with pytest.raises(RecipeError, match="nested too deeply"):
        yaml_of(tmp_path, "a: " + 2000 * "[" + 2000 * "]")


def test_locations_fall_back_to_the_nearest_parent(tmp_path):
    document = yaml_of(tmp_path, "a:\n  b:\n    - 1\n    - c: 2\n")
    path = tmp_path / "given.yaml"
    assert document.location("a.b.1.c") == f"{path}:4"
    assert document.location("a.b.1.d.e") == f"{path}:4"
    assert document.location("a.x") == f"{path}:1"
    assert document.location("x") == document.location("") == str(path)


#: Without control characters and lone surrogates, which YAML has no way to say or normalises.
_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufeff"))
_scalars = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | _text


@given(
    st.recursive(
        st.dictionaries(_text, _scalars, max_size=4),
        lambda inner: st.dictionaries(_text, st.lists(inner, max_size=3) | inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_dumped_is_read_again(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "law.yaml"
    path.write_text(dump_yaml(value), encoding="utf-8")
    assert read_yaml(path).value == value


# Folders


@pytest.mark.parametrize("kind", ["search_spaces", "trials"])
def test_shipped_folders_hold_yaml(kind):
    assert list(shipped_folder(kind).glob("*.yaml"))


@pytest.mark.parametrize("check", [check_output_file, check_output_folder])
@pytest.mark.parametrize("location", ["file/x", "/proc/x"])
def test_paths_that_cannot_be_written_are_found_before_long_work(
    tmp_path: Path, check: Callable[[Path], None], location: str
) -> None:
    (tmp_path / "file").write_text("keep")
    with pytest.raises(UserError, match="expected a location that can be written to"):
        check(tmp_path / location)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_no_output_file_and_a_file_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    with pytest.raises(UserError, match="got a folder"):
        check_output_file(tmp_path)
    with pytest.raises(UserError, match="got a file"):
        check_output_folder(tmp_path / "file")
    check_output_file(tmp_path / "new" / "x.csv")
    check_output_folder(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to("target.csv")
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_receives_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_text(pipe, "rows")
    reader.join(timeout=10)
    assert received == [b"rows"]
    assert pipe.is_fifo()
