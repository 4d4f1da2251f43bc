"""YAML 1.2, read strictly: with line numbers, without tags, aliases of themselves or duplicate keys."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bloodauto.errors import RecipeError

#: The key of the format's version in every file.
VERSION_KEY = "format_version"
#: Of recipes and spaces; increased whenever older files become unreadable.
GRAMMAR_VERSION = 1


@dataclass(frozen=True)
class YamlDocument:
    """A YAML file as plain values, with the line on which each dotted path stands (1-based)."""

    path: Path
    value: Any
    lines: dict[str, int]

    def location(self, dotted: str) -> str:
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
                    location = f"{dotted}.{index}" if dotted else str(index)
                    self.lines[location] = child.start_mark.line + 1
                    result.append(self.value(child, location))
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
            location = f"{dotted}.{key}" if dotted else key
            self.lines[location] = key_node.start_mark.line + 1
            result[key] = self.value(child, location)
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


def read_versioned_yaml(path: Path) -> YamlDocument:
    """Reads a recipe or a space, which people write and runs keep: a ``format_version`` is checked, and may be left out.

    Args:
        path: The file.

    Returns:
        The document without its format version.

    Raises:
        RecipeError: As ``read_yaml``; or the format version is not ``GRAMMAR_VERSION``.
    """
    document = read_yaml(path)
    if not isinstance(document.value, dict) or VERSION_KEY not in document.value:
        return document
    version = document.value[VERSION_KEY]
    if type(version) is not int or version != GRAMMAR_VERSION:
        raise RecipeError(
            f"{document.location(VERSION_KEY)}: {VERSION_KEY}: expected {GRAMMAR_VERSION}, got {version!r}: the file was "
            "written for another version of bloodauto. Use that version, or rewrite the file and leave this key out."
        )
    return replace(document, value={key: value for key, value in document.value.items() if key != VERSION_KEY})


def with_format_version(text: str) -> str:
    """The text of a recipe or a space with its format version on the first line.

    Args:
        text: YAML, a mapping in block style without one.
    """
    return f"{VERSION_KEY}: {GRAMMAR_VERSION}\n{text}"


def dump_yaml(value: Any) -> str:
    """Plain values -> YAML text in block style, keys in the order given."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    writer.dump(value, stream)
    return stream.getvalue()
