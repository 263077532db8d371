"""`cisi`: all commands as one group. Each is imported only when it is asked for."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points

import click

from cisi_runtime.cli.command import HELP, run_command


class _Commands(click.Group):
    """Sub-commands come from the entry points `cisi.commands`, so this package imports no other of ours."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted(_entry_points())

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        points = _entry_points()
        point = points.get(name)
        if point is None:
            near = difflib.get_close_matches(name, points, n=1)
            meant = f"did you mean {near[0]}?" if near else f"expected {', '.join(sorted(points))}"
            raise click.UsageError(f"there is no command {name}: {meant}")
        command = point.load()
        assert isinstance(command, click.Command)
        return command


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="cisi.commands")}


@click.group(cls=_Commands, context_settings=HELP)
@click.version_option(package_name="cisi-net")
def cisi() -> None:
    """CISI-net image inpainting: train, export, calibrate, build, run.

    Completion in bash: eval "$(_CISI_COMPLETE=bash_source cisi)"; zsh_source and fish_source for other shells.
    """


def main() -> None:
    """Entry point of `cisi`."""
    run_command(cisi, "cisi")
