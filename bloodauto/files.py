"""Files: atomic writes, strict YAML, the run directory and the files shipped with the package."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bloodauto.errors import RecipeError, RunError, UserError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder that replaces ``path`` when the block ends without an error.

    A reader sees the old file or the new one, never a part; after a crash no half-written file lies at ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    # mkstemp makes files private; a run directory is shared as any other file is.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; a value that is not finite is an error, since JSON has no word for it."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        RunError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path}: expected JSON, got something else ({error}). Restore the file or start a new run."
        ) from None


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes named arrays as one compressed ``.npz`` atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads a ``.npz`` of plain arrays; nothing in it is ever unpickled."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def append_line(path: Path, line: str) -> None:
    """Appends one line and forces it to disk, so that what it records survives a kill right after."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line.rstrip("\n") + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class YamlDocument:
    """A YAML file as plain values, with the line on which each dotted path stands (1-based)."""

    path: Path
    value: Any
    lines: dict[str, int]

    def place(self, dotted: str) -> str:
        """``file:line`` of a dotted path, or of its nearest parent that stands in the file."""
        parts = dotted.split(".") if dotted else []
        while parts and ".".join(parts) not in self.lines:
            parts.pop()
        line = self.lines.get(".".join(parts))
        return f"{self.path}:{line}" if line is not None else str(self.path)


def _plain(node: Any, dotted: str, lines: dict[str, int]) -> Any:
    """Round-trip nodes -> dict, list and scalars, noting on which line each path starts."""
    if isinstance(node, dict):
        result = {}
        for key, value in node.items():
            child = f"{dotted}.{key}" if dotted else str(key)
            lines[child] = node.lc.key(key)[0] + 1  # type: ignore[attr-defined]
            result[key] = _plain(value, child, lines)
        return result
    if isinstance(node, list):
        result_list = []
        for index, value in enumerate(node):
            child = f"{dotted}.{index}" if dotted else str(index)
            lines[child] = node.lc.item(index)[0] + 1  # type: ignore[attr-defined]
            result_list.append(_plain(value, child, lines))
        return result_list
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def read_yaml(path: Path) -> YamlDocument:
    """Reads YAML 1.2 strictly: ``1e-4`` is a number, ``on`` is a word, a key given twice is an error.

    Raises:
        RecipeError: the file is absent, is no YAML, or repeats a key; the message names file and line.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: expected a YAML file, found nothing there. Check the path.") from None
    except (IsADirectoryError, UnicodeDecodeError, PermissionError) as error:
        raise RecipeError(f"{path}: expected a YAML text file ({error}).") from None
    loader = YAML(typ="rt")
    try:
        node = loader.load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise RecipeError(
            f"{path}:{line}: {str(error.problem).split(' with value')[0]}. Keep one of the two."
        ) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise RecipeError(f"{path}:{line}: expected YAML, got a syntax error: {error.problem}.") from None
    except YAMLError as error:
        raise RecipeError(f"{path}: expected YAML, got a syntax error: {error}.") from None
    lines: dict[str, int] = {}
    return YamlDocument(path, _plain(node, "", lines), lines)


def dump_yaml(value: Any) -> str:
    """Plain values -> YAML text in block style, keys in the order given."""
    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    writer.dump(value, stream)
    return stream.getvalue()


def shipped_folder(kind: Literal["search_spaces", "trials"]) -> Path:
    """The folder of declared spaces or recipes that came with the package.

    A wheel carries them inside the package; an editable install or a checkout has them beside it. This is the one
    place that knows both.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "_shipped" / kind, package.parent / kind):
        if candidate.is_dir():
            return candidate
    raise UserError(
        f"{kind}: not found in {package}/_shipped or beside it; the installation is incomplete, reinstall bloodauto."
    )


@dataclass(frozen=True)
class RunDirectory:
    """Where everything of one run lies. Only names; reading and writing is left to whoever owns the file."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "settings.yaml"

    @property
    def fingerprint(self) -> Path:
        return self.root / "fingerprint.json"

    @property
    def cleaning(self) -> Path:
        return self.root / "cleaning.csv"

    @property
    def splits(self) -> Path:
        return self.root / "splits.json"

    @property
    def study(self) -> Path:
        return self.root / "study.db"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def ensemble(self) -> Path:
        return self.root / "ensemble.json"

    @property
    def test_result(self) -> Path:
        return self.root / "test.json"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def next_steps(self) -> Path:
        return self.root / "NEXT.txt"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    def trial(self, number: int) -> Path:
        """The folder of one trial: recipe, history, checkpoint, validation probabilities, result."""
        return self.root / "trials" / f"{number:05d}"

    def refit(self, name: str) -> Path:
        """The folder of one refitted ensemble member."""
        return self.root / "refits" / name
