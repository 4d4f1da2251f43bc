"""Files: atomic writes, strict YAML, the run directory and the files shipped with the package."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Callable, Iterator
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
    # Not mkstemp: its files are private, and a run directory is shared as any other is.
    temporary = path.with_name(f".{path.stem[:64]}-{secrets.token_hex(8)}{path.suffix}")
    temporary.touch(exist_ok=False)
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
    """Reads a ``.npz`` of plain arrays; nothing in it is ever unpickled.

    Raises:
        RunError: no such file, or none that holds plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except UNREADABLE_ARRAYS as error:
        raise RunError(f"{path}: expected an .npz file of plain arrays, could not read it ({error}).") from None


#: What numpy raises for an archive that is damaged, cut short, or something else.
UNREADABLE_ARRAYS = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)


def append_line(path: Path, line: str) -> None:
    """Appends one line of text and forces it to disk, so that what it records survives a kill right after.

    What an earlier kill left of a line is cut off, so that it does not spoil this one.
    """
    with path.open("a+b") as stream:
        size = stream.tell()
        if size > 0:
            stream.seek(size - 1)
            if stream.read() != b"\n":
                stream.truncate(path.read_bytes().rfind(b"\n") + 1)
        stream.write(line.rstrip("\n").encode() + b"\n")
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


#: A recipe has a few hundred values; aliases of aliases could otherwise grow a short file into all memory.
_MAX_YAML_VALUES = 100_000
_YAML_SCALARS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null"))
#: A date is text here, as in YAML 1.2's core schema.
_YAML_TEXT = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "timestamp"))


class _YamlReader:
    """Composed nodes -> dict, list and scalars, noting on which line each dotted path starts."""

    def __init__(self, path: Path, construct: Callable[[Any], Any]) -> None:
        self.lines: dict[str, int] = {}
        self._path, self._construct = path, construct
        self._open: set[int] = set()

    def fail(self, node: Any, message: str) -> RecipeError:
        return RecipeError(f"{self._path}:{node.start_mark.line + 1}: {message}")

    def value(self, node: Any, dotted: str) -> Any:
        if len(self.lines) > _MAX_YAML_VALUES:
            raise self.fail(node, f"expected at most {_MAX_YAML_VALUES} values, aliases counted as often as used.")
        if isinstance(node.value, str):
            return self._scalar(node)
        if id(node) in self._open:
            raise self.fail(node, "expected a value, got an alias of what it stands in.")
        self._open.add(id(node))
        try:
            if node.tag == "tag:yaml.org,2002:map":
                return self._mapping(node, dotted)
            if node.tag == "tag:yaml.org,2002:seq":
                result = []
                for index, child in enumerate(node.value):
                    place = f"{dotted}.{index}" if dotted else str(index)
                    self.lines[place] = child.start_mark.line + 1
                    result.append(self.value(child, place))
                return result
            raise self._unknown_tag(node)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: Any, dotted: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, child in node.value:
            key = key_node.value
            if key_node.tag not in _YAML_TEXT:
                shown = key if isinstance(key, str) else "a list or a mapping"
                raise self.fail(key_node, f"expected a word before the colon, got {shown}; write it in quotes.")
            if key in result:
                raise self.fail(key_node, f'found duplicate key "{key}". Keep one of the two.')
            place = f"{dotted}.{key}" if dotted else key
            self.lines[place] = key_node.start_mark.line + 1
            result[key] = self.value(child, place)
        return result

    def _scalar(self, node: Any) -> Any:
        if node.tag in _YAML_TEXT:
            return node.value
        if node.tag not in _YAML_SCALARS:
            raise self._unknown_tag(node)
        try:
            return self._construct(node)
        except (ValueError, KeyError):
            raise self.fail(node, f"expected a number or true or false, got {node.value[:80]!r}.") from None

    def _unknown_tag(self, node: Any) -> RecipeError:
        return self.fail(node, f"expected a plain value, got the tag {node.tag}; leave the tag out.")


def read_yaml(path: Path) -> YamlDocument:
    """Reads YAML 1.2 strictly: ``1e-4`` is a number, ``on`` is a word, a key given twice is an error.

    Only mappings with words as keys, lists, numbers, words, true, false and null; no tags, so nothing is constructed.

    Raises:
        RecipeError: the file is absent, is no YAML, repeats a key, or holds more than this; the message names file and line.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: expected a YAML file, found nothing there. Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: expected a YAML text file ({error}).") from None
    loader = YAML(typ="safe", pure=True)
    reader = _YamlReader(path, loader.constructor.construct_object)
    try:
        root = loader.compose(text)
        if loader.resolver.processing_version not in (None, (1, 2)):
            raise RecipeError(f"{path}:1: expected YAML 1.2, got a %YAML directive of another version; leave it out.")
        value = None if root is None else reader.value(root, "")
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise RecipeError(f"{path}:{line}: expected YAML, got a syntax error: {error.problem}.") from None
    except YAMLError as error:
        raise RecipeError(f"{path}: expected YAML, got a syntax error: {str(error).splitlines()[0]}.") from None
    except RecursionError:
        raise RecipeError(f"{path}: expected a recipe or a space, got values nested too deeply to read.") from None
    return YamlDocument(path, value, reader.lines)


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

    def study_name(self, storage: str | None) -> str:
        """The study's name in the run's own file, or in a database by URL, where other runs may have theirs."""
        return "bloodauto" if storage is None else f"bloodauto {self.root.resolve()}"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def ensemble(self) -> Path:
        return self.root / "ensemble.json"

    @property
    def familiar(self) -> Path:
        """What the exported rule for marking images does."""
        return self.root / "familiar.json"

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
