"""Pages of the site that are written elsewhere: the README, and the command line's own help."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from captum_lie.cli.application import app


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The README as front page, with the files that it links to, and the commands."""
    root = Path(config.config_file_path).parent
    readme = (root / "README.md").read_text(encoding="utf-8")
    readme = readme.replace("](docs/", "](")  # pages of the site
    files.append(File.generated(config, "index.md", content=readme))
    for target in sorted(set(re.findall(r"\]\((?!https?:|#)([^)#]+)\)", readme))):
        if not files.get_file_from_path(target):
            files.append(File.generated(config, target, abs_src_path=str(root / target)))
    files.append(File.generated(config, "cli.md", content=command_line()))
    return files


def command_line() -> str:
    """Every command with its options, from the program itself."""
    command: Any = typer.main.get_command(app)
    for each in command.commands.values():
        each.short_help = each.help.split("\n")[0]  # whole, where a terminal would cut it
    with command.make_context("captum-lie", [], resilient_parsing=True) as context:
        return get_docs_for_click(obj=command, ctx=context, name="captum-lie")
