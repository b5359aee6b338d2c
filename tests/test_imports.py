"""The house: what may import what, and that whoever breaks the rule is told."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

grimp = pytest.importorskip("grimp")

ROOT = Path(__file__).parents[1]
PACKAGES = ("captum_lie", "captum_lie_onnx", "captum_lie_timm")


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """The contracts of pyproject.toml, on a tree of sources."""
    command = (
        "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tree), str(tree / "adapters")])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Packages and what is in them included, which the contract on siblings does not see."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    assert len(graph.modules) > 200
    imports = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources; what tests write there, they take back."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("captum_lie", "adapters"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


@pytest.mark.slow
def test_the_contracts_hold(tree: Path) -> None:
    done = lint(tree)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


LATE = "def late() -> None:\n    import captum_lie.studies.measurement  # noqa: F401\n"
TYPED = "if TYPE_CHECKING:\n    from captum_lie.layerwise import LayerwiseEquivarianceError\n"
BROKEN = [
    ("captum_lie/core/outputs.py", "import captum_lie.metrics", "what lies below"),
    ("captum_lie/core/outputs.py", LATE, "what lies below"),
    ("captum_lie/results/lee.py", TYPED, "what lies below"),
    ("captum_lie/layouts/rules.py", "import captum_lie", "what lies below"),
    ("captum_lie/show/maps.py", "import captum_lie.metrics", "from results alone"),
    ("captum_lie/core/groups/base.py", "import captum_lie.core.groups.affine", "No cycle"),
    ("captum_lie/studies/models.py", "import captum_lie_timm", "knows no adapter"),
    ("captum_lie/images/files.py", "import timm", "knows no adapter"),
    ("adapters/captum_lie_onnx/cpu.py", "import captum_lie.core.memory", "public names alone"),
    ("adapters/captum_lie_timm/heads.py", "import captum_lie.layouts.rules", "public names alone"),
    ("adapters/captum_lie_onnx/cpu.py", "import captum_lie_timm", "of one another"),
    ("adapters/captum_lie_onnx/child/memory.py", "import torch", "without torch"),
    ("adapters/captum_lie_onnx/audit_record.py", "import captum_lie_onnx.page", "No cycle"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "line", "contract"), BROKEN)
def test_an_import_too_many_breaks_a_contract(
    tree: Path, file: str, line: str, contract: str
) -> None:
    path = tree / file
    content = path.read_text(encoding="utf-8")
    path.write_text(f"{content}\n{line}\n", encoding="utf-8")
    try:
        done = lint(tree)
    finally:
        path.write_text(content, encoding="utf-8")
    assert done.returncode == 1, done.stdout
    (verdict,) = (row for row in done.stdout.splitlines() if contract in row and "BROKEN" in row)
    assert verdict


def imported_names() -> Iterator[tuple[Path, str, str]]:
    """Every ``from captum_lie... import name`` of the adapters."""
    for path in sorted((ROOT / "adapters").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if isinstance(node, ast.ImportFrom) and f"{module}.".startswith("captum_lie."):
                yield from ((path, str(module), alias.name) for alias in node.names)


def test_adapters_import_what_modules_name_as_public() -> None:
    names = list(imported_names())
    assert len(names) > 100
    for path, module, name in names:
        public = {*getattr(importlib.import_module(module), "__all__", ()), "__version__"}
        known = name in public or is_module(module, name)  # which are the contracts' business
        assert known, f"{path.relative_to(ROOT)}: {module}.{name}"


def is_module(package: str, name: str) -> bool:
    folder = ROOT / package.replace(".", "/")
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
