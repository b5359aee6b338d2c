"""The habits of the code that a machine can hold: sizes, parameters, silenced types, spelling.

An exception is an entry of a list below, with its reason. One that is no longer needed fails, too.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("captum_lie", "adapters")
EVERYTHING = (*PACKAGES, "tests", "tutorials")

MEDIAN, LONG = 170, 300
#: Modules of more than 300 lines.
LONG_MODULES: dict[str, str] = {
    "captum_lie/attribution/local_equivariance_error.py": "one public class: methods of a few "
    "lines each, under the reference of all that it offers",
}

MOST_PARAMETERS = 7
CAPTUM = "Captum's own signature of attribute, and what belongs to it here"
COMMAND = "a command of the command line: each parameter is one of its options"
#: Functions of more than 7 parameters.
MANY_PARAMETERS: dict[str, str] = {
    "adapters/captum_lie_onnx/cli/audit.py:audit_command": COMMAND,
    "adapters/captum_lie_onnx/cli/export.py:export_command": COMMAND,
    "adapters/captum_lie_onnx/exporting.py:export": "as torch.onnx.export, which it stands for",
    "captum_lie/cli/layers.py:layers": COMMAND,
    "captum_lie/cli/measure.py:measure_command": COMMAND,
    "captum_lie/cli/rotated_digits.py:rotated_digits_command": COMMAND,
    "captum_lie/cli/sweep.py:sweep_command": COMMAND,
    "captum_lie/layerwise/error.py:LayerwiseEquivarianceError.attribute": CAPTUM,
}

#: Functions, or folders of them, that take keywords of any type.
ANY_KEYWORDS: dict[str, str] = {
    "adapters/captum_lie_onnx/metadata.py:entries": "entries of a file's metadata, by any name",
    "captum_lie/core/autodiff.py:_no_hooks": "it stands for a function of PyTorch's and does "
    "nothing, whatever it is given",
    "captum_lie/core/differentiable": "rules pass on whatever keywords their operator has",
    "captum_lie/core/tangents": "rules pass on whatever keywords their operator has",
    "captum_lie/show/figures/style.py:canvas": "whatever matplotlib's subplots take",
    "captum_lie/show/pages.py:render": "whatever the template of a page names",
}

MOST_SILENCED = 8
SILENCED = re.compile(r"#\s*type:\s*ignore")
#: Which error is silenced, and why: ``# type: ignore[override]  # torch's own signature``.
WITH_REASON = re.compile(r"#\s*type:\s*ignore\[[a-z, -]+\]\s+#\s*\S+")

#: American words, as far as a pattern tells them.
AMERICAN = re.compile(
    r"(?:color|center|gray|behavior|neighbor|favor|honor|analyz|emphasiz|synthesiz|artifact"
    r"|fulfill).*|(?:label|model|cancel|travel|signal)(?:ed|ing)|catalogs?"
    r"|[a-z]{3,}iz(?:e|es|ed|er|ers|ing|able|ation|ations)"
)
NATIVE = re.compile(r".*(?:s|pr)iz(?:e|es|ed|ing)|capsize|seize")
#: Words that an interface dictates.
DICTATED: dict[str, str] = {
    "bucketize": "an operator of PyTorch",
    "center": "where matplotlib puts things",
    "colorbar": "matplotlib's word, and Captum's; a public parameter",
    "normalized": "the public class Normalized, and PyTorch's normalized_shape",
    "optimization": "onnxruntime's graph_optimization_level; a public parameter of OnnxModel",
    "quantize": "the public function, and ONNX's operators",
    "quantized": "the public name of a set of thresholds, and ONNX's operators",
}
#: Code, addresses and quoted words within prose.
NO_PROSE = re.compile(
    r"```.*?```|``.*?``|`[^`]*`|https?://\S+|'[^'\s]*'|\"[^\"\s]*\"", flags=re.DOTALL
)

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@cache
def texts(*folders: str) -> dict[str, str]:
    """Every module's text by its path from the root."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


@cache
def trees() -> dict[str, ast.Module]:
    return {path: ast.parse(text) for path, text in texts(*PACKAGES).items()}


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function with its dotted name in the module."""
    for node in ast.iter_child_nodes(tree):
        name = prefix
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{node.name}" if prefix else node.name
        if isinstance(node, Function):
            yield name, node
        yield from functions(node, name)


def parameters(function: Function) -> list[str]:
    """Names of the parameters, the object itself left out."""
    a = function.args
    every = [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
    names = [argument.arg for argument in every if argument is not None]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def hold(broken: Mapping[str, object], allowed: Mapping[str, str]) -> None:
    """What breaks a rule must stand in its list, and nothing else may."""
    assert {name: what for name, what in broken.items() if name not in allowed} == {}
    assert sorted(set(allowed) - set(broken)) == [], "no longer needed"
    assert all(allowed.values()), "each with its reason"


def test_modules_are_short() -> None:
    lines = {path: text.count("\n") for path, text in texts(*PACKAGES).items()}
    assert statistics.median(lines.values()) < MEDIAN
    hold({path: n for path, n in lines.items() if n > LONG}, LONG_MODULES)


def test_functions_take_few_parameters() -> None:
    many = {
        f"{path}:{name}": names
        for path, tree in trees().items()
        for name, function in functions(tree)
        if len(names := parameters(function)) > MOST_PARAMETERS
    }
    hold(many, MANY_PARAMETERS)


def test_keywords_have_types() -> None:
    """``**options: Any`` says nothing; a TypedDict does."""
    untyped: dict[str, str] = {}
    for path, tree in trees().items():
        for name, function in functions(tree):
            keywords = function.args.kwarg
            if keywords is None or keywords.annotation is None:
                continue
            if ast.unparse(keywords.annotation) in ("Any", "object"):
                folder = next((p for p in ANY_KEYWORDS if path.startswith(f"{p}/")), None)
                untyped[folder or f"{path}:{name}"] = keywords.arg
    hold(untyped, ANY_KEYWORDS)


def test_few_type_errors_are_silenced_each_with_a_reason() -> None:
    silenced = {
        f"{path}:{number}": line.strip()
        for path, text in texts(*EVERYTHING).items()
        for number, line in enumerate(text.splitlines(), 1)
        if SILENCED.search(line) and ROOT / path != Path(__file__)
    }
    assert {place: line for place, line in silenced.items() if not WITH_REASON.search(line)} == {}
    assert len(silenced) <= MOST_SILENCED, silenced


def test_nothing_is_mocked() -> None:
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                assert not any("mock" in name.split(".") for name in names), path


def words(name: str) -> list[str]:
    """The words of an identifier, or of a text."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)


def american(word: str) -> bool:
    word = word.lower()
    return bool(AMERICAN.fullmatch(word)) and not NATIVE.fullmatch(word)


def defined(tree: ast.AST) -> Iterator[str]:
    """Names that a module gives to things."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def prose(text: str) -> Iterator[str]:
    """Comments, and strings that are sentences, without the code in them."""
    strings = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type in strings and " " in token.string):
            yield NO_PROSE.sub(" ", token.string)


@pytest.mark.parametrize(
    ("word", "is_american"),
    [
        ("normalize", True), ("Normalised", False), ("quantization", True), ("size", False),
        ("resized", False), ("prized", False), ("colour", False), ("colorbar", True),
        ("labelled", False), ("labeled", True), ("horizon", False), ("catalogue", False),
    ],
)  # fmt: skip
def test_american_words_are_known(word: str, is_american: bool) -> None:
    assert american(word) == is_american


def test_the_spelling_is_british() -> None:
    spelled: dict[str, set[str]] = {}

    def look(text: str, place: str) -> None:
        for word in filter(american, words(text)):
            spelled.setdefault(word.lower(), set()).add(place)

    for path, tree in trees().items():
        for name in defined(tree):
            look(name, f"{path}:{name}")
        for passage in prose(texts(*PACKAGES)[path]):
            look(passage, path)
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        look(NO_PROSE.sub(" ", page.read_text(encoding="utf-8")), page.name)
    hold(spelled, DICTATED)
