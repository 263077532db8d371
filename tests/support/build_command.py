"""`cisi-build` in the process of a test."""

from click.testing import CliRunner, Result

from cisi_runtime.cli.build import build as command
from cisi_runtime.errors import CisiError


def build(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def failure(*arguments: object) -> str:
    """The message of a command that must fail."""
    result = build(*arguments)
    assert result.exit_code != 0
    return str(result.exception) if isinstance(result.exception, CisiError) else result.output
