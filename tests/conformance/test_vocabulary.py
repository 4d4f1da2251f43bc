"""Names use the field's words: retired words occur in no name of a module, class, function, variable, test or option.

Run as a script, it prints the offenders of some folders or files:

    python tests/conformance/test_vocabulary.py bloodauto/tuning tests/tuning
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Retired wherever they are a part of a name (``left_side`` has the parts left and side), with what to write instead.
RETIRED_PARTS = {
    "answer answers answered answering": "prediction, class probabilities, predict",
    "judge judges judged judging judgement": "evaluate, evaluation",
    "look looks looked looking": "test-time augmentation, TTA transform, evaluation on a subset",
    "view views": "shifted images (of the shift suite), TTA transforms, panel",
    "learnt": "trained",
    "material": "fold data",
    "laboratory laboratories lab labs": "site",
    "place places": "site; location, position",
    "elsewhere": "external site",
    "expectation": "external estimate",
    "causes": "shift factors",
    "dirt": "artefacts",
    "fringe": "colour tail",
    "familiar familiarity stranger strangeness": "in-distribution, out-of-distribution (OOD)",
    "sure unsure sureness surest": "confident, confidence, abstained",
    "luck lucky honest honesty hopeful": "selection bias",
    "worth": "expected performance",
    "leading": "primary (objective), incumbent (trial)",
    "lane lanes": "worker slot",
    "contender contenders": "refit candidate",
    "stretched": "extended",
    "overdraft": "margin",
    "dear": "conservative, expensive",
    "closing": "shutdown",
    "conclude concluded conclusion": "finalize, finalization",
    "pulse": "heartbeat",
    "guess guesses guessed": "estimate",
    "rehearse rehearses rehearsed rehearsal": "covered by training augmentation, overlap",
    "deal deals dealt dealing": "stratified group split, assign",
    "equalise equalised equalises": "balance classes (by synthesis)",
    "sealed": "held-out test set",
    "teaching taught": "distillation",
    "feeding": "input pipeline",
    "showing": "preview",
    "wake": "start-up",
    "chapter chapters": "section",
    "share shares": "fraction, weight, proportion",
}

#: Retired as whole names of modules, functions, parameters, attributes and variables: they say nothing of what they hold.
RETIRED_NAMES = {
    "one": "member, image, row, item ...",
    "found": "result, match, records ...",
    "given": "settings, requested ...",
    "asked": "requested",
    "told": "reported, observed",
    "said": "message, reported",
    "made": "created, synthesized, result",
    "own": "the member's, the recipe's ...",
    "whole": "recipe, full ...",
    "wanted": "expected, requested",
    "home": "source site",
    "words": "labels, arguments, tokens",
}

#: Retired where these parts follow each other.
RETIRED_PHRASES = {
    "left_out": "held out, excluded",
    "goes_on": "resumes, continues",
    "gone_on": "resumed, continued",
    "on_its_way": "running",
    "on_their_way": "running",
    "its_course": "completed",
    "known_costs": "recorded costs",
    "quick_look": "evaluation on a validation subset",
    "seen_differently": "under test-time augmentation",
}

#: Parts that are the field's where these parts follow each other.
ALLOWED_PHRASES = ("look_up", "field_of_view", "in_place", "contact_sheet", "pareto_front")
#: Parts that are the field's only within a phrase that is allowed.
ONLY_IN_PHRASES = {"sheet": "contact sheet", "front": "Pareto front"}

_PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_OPTION = re.compile(r"--[a-z][a-z-]+")
_ADVICE = {word: advice for group, advice in RETIRED_PARTS.items() for word in group.split()}


@dataclass(frozen=True)
class Name:
    """A name that a file defines, at a line (0: the module itself)."""

    file: str
    line: int
    text: str
    kind: str


def parts_of(name: str) -> list[str]:
    return [part.lower() for part in _PART.findall(name)]


def names_in(tree: ast.AST, file: str) -> Iterator[Name]:
    """Yield every name that is defined, but not those that are only used."""
    yield Name(file, 0, Path(file).stem, "module")
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text):
                yield Name(file, node.lineno, text, "function")
            case ast.ClassDef(name=text):
                yield Name(file, node.lineno, text, "class")
            case ast.arg(arg=text):
                yield Name(file, node.lineno, text, "parameter")
            case ast.Name(id=text, ctx=ast.Store()):
                yield Name(file, node.lineno, text, "variable")
            case ast.Attribute(attr=text, ctx=ast.Store()):
                yield Name(file, node.lineno, text, "attribute")
            case ast.MatchAs(name=str(text)) | ast.MatchStar(name=str(text)):
                yield Name(file, node.lineno, text, "variable")
            case ast.Constant(value=str(text)) if file.startswith("bloodauto/cli/") and _OPTION.fullmatch(text):
                yield Name(file, node.lineno, text, "option")


def problem_of(name: Name) -> str | None:
    """What is wrong with a name, with the word to write instead."""
    parts = parts_of(name.text)
    joined = f"_{'_'.join(parts)}_"
    for phrase, advice in RETIRED_PHRASES.items():
        if f"_{phrase}_" in joined:
            return f"{phrase} -> {advice}"
    for phrase in ALLOWED_PHRASES:
        joined = joined.replace(f"_{phrase}_", "_")
    remaining = [part for part in joined.split("_") if part]
    for part in remaining:
        if part in _ADVICE:
            return f"{part} -> {_ADVICE[part]}"
        if part in ONLY_IN_PHRASES:
            return f"{part} -> only as {ONLY_IN_PHRASES[part]}"
    if len(parts) == 1 and parts[0] in RETIRED_NAMES:
        return f"{parts[0]} -> {RETIRED_NAMES[parts[0]]}"
    return None


def package_of(file: str) -> str:
    """``bloodauto/tuning`` of its files, ``tests/tuning`` of its tests, ``benchmarks`` of all of them."""
    folders = file.split("/")[:-1]
    return "/".join(folders[: 1 if folders[0] == "benchmarks" else 2])


def python_files(*folders: str) -> list[str]:
    """The Python files of folders below the root, or these files themselves, by their paths from the root."""
    paths = [
        path
        for folder in folders
        for path in ([ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py")))
    ]
    return [path.relative_to(ROOT).as_posix() for path in paths if "_shipped" not in path.parts]


def problems(files: list[str]) -> list[str]:
    texts = []
    for file in files:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        for name in sorted(names_in(tree, file), key=lambda name: name.line):
            problem = problem_of(name)
            if problem is not None:
                texts.append(f"{file}:{name.line}: {name.kind} {name.text}: {problem}")
    return texts


_FILES: dict[str, list[str]] = {}
for _file in python_files("bloodauto", "tests", "benchmarks", "examples"):
    _FILES.setdefault(package_of(_file), []).append(_file)


@pytest.mark.parametrize("package", sorted(_FILES))
def test_names_have_no_retired_words(package: str) -> None:
    problem_texts = problems(_FILES[package])
    assert not problem_texts, "\n".join(problem_texts)


@pytest.mark.parametrize(
    ("text", "retired"),
    [
        ("judge_all", "judge"),
        ("JudgedTrial", "judged"),
        ("_one", "one"),
        ("share", "share"),
        ("--looks-per-image", "looks"),
        ("front", "front"),
        ("trials_on_their_way", "on_their_way"),
        ("one_hot", None),
        ("shared", None),
        ("look_up", None),
        ("pareto_front", None),
        ("measure", None),
        ("replace", None),
        ("test_a_training_that_is_found_is_resumed", None),
    ],
)
def test_the_rule_sees_parts_and_not_substrings(text: str, retired: str | None) -> None:
    problem = problem_of(Name("x.py", 1, text, "variable"))
    assert (None if problem is None else problem.split(" -> ")[0]) == retired


def test_every_kind_of_name_is_seen() -> None:
    source = (
        "class A:\n    b: int = 0\n    def c(self, d, *e, **f):\n        self.g = 1\n        for h, (i, *j) in "
        "d:\n            pass\n"
        "k = [l for l in d]\nwith x as m:\n    pass\nn: str = '--option-name'\n"
    )
    texts = {name.text for name in names_in(ast.parse(source), "bloodauto/cli/module.py")}
    assert texts == {*"Abcdefghijklmn", "self", "module", "--option-name"}


if __name__ == "__main__":
    _lines = problems(python_files(*[argument.rstrip("/") for argument in sys.argv[1:]]))
    print(*_lines, f"{len(_lines)} names to change", sep="\n")
    sys.exit(bool(_lines))
