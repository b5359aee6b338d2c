"""Run a module of this folder as a program: ``python -I run.py MODULE ARGUMENT...``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_NAME, _FOLDER = "captum_lie_onnx_child", Path(__file__).parent


def main(module: str, arguments: list[str]) -> None:
    """Load this folder as a package, and call a module's ``main(arguments)``."""
    spec = importlib.util.spec_from_file_location(
        _NAME, _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[_NAME])
    importlib.import_module(f"{_NAME}.{module}").main(arguments)


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module with its arguments, isolated from the environment."""
    return [sys.executable, "-I", str(Path(__file__)), module, *arguments]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
