"""The command line within this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from captum_lie.cli.application import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments: object) -> str:
    """Run a command that must fail: exit code 2, one line, no traceback."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())
