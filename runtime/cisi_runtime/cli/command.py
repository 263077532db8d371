"""What every command has in common: one-line errors and exit statuses."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cisi_runtime.console import LOUDNESS, coloured
from cisi_runtime.errors import CisiError, StorageError
from cisi_runtime.storage.addresses import Address, Url, parse_address

# Modules that the base installation lacks, and the extra that brings them.
_EXTRAS = {
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "torch": "train",
    "onnx": "parity",
    "onnxscript": "train",
    "tensorboard": "train",
    "cv2": "eval",
    "matplotlib": "bench",
    "starlette": "serve",
    "uvicorn": "serve",
    "h11": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
    "fsspec": "storage",
    "ray": "ray",
    "watchdog": "watch",
    "pyarrow": "parquet",
}

# What Python says where the system refuses a thread.
_NO_THREAD = "can't start new thread"

# -h is --help. Summaries of commands fit into the lines of the group.
HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
USAGE, FAILURE, INTERRUPTED = 2, 1, 130


class _LocalPath(click.ParamType[Path]):
    """A path of this machine. An address in a store is refused, with a line that says how to copy what is there."""

    name = "path"

    def convert(self, value: str | Path, param: click.Parameter | None, context: click.Context | None) -> Path:
        """Called by click."""
        address = ADDRESS.convert(value, param, context)
        if not isinstance(address, Path):
            self.fail(f"{address}: expected a path of this machine; copy it first: {_COPY[address.protocol]}", param)
        return address


class _Address(click.ParamType[Address]):
    """A path, or an address in a store."""

    name = "path or address"

    def convert(self, value: str | Address, param: click.Parameter | None, context: click.Context | None) -> Address:
        """Called by click."""
        if not isinstance(value, str):
            return value
        try:
            address = parse_address(value)
        except StorageError as error:
            self.fail(str(error), param, context)
        if isinstance(address, Url) and address.protocol == "memory":
            self.fail(f"{address}: expected a place that outlives this program", param, context)
        return address


_COPY = {
    "s3": "aws s3 sync s3://… FOLDER",
    "gs": "gcloud storage rsync -r gs://… FOLDER",
    "az": "azcopy sync https://… FOLDER",
}
# The types of every option and argument that names a file or a folder: of this machine, or anywhere.
PATH, ADDRESS = _LocalPath(), _Address()


class _Command(click.Command):
    """Takes --quiet, --verbose and --json out of the options, and sets the console by them."""

    def invoke(self, context: click.Context) -> Any:
        """Called by click."""
        values = {name: context.params.pop(name, False) for name in ("quiet", "verbose", "as_json")}
        if values["quiet"] and values["verbose"]:
            raise click.UsageError("--quiet and --verbose exclude each other")
        for name, value in values.items():
            setattr(LOUDNESS, name, value)
        return super().invoke(context)


def command(
    *, summary: str, verbose: str, as_json: str | None = "One JSON object on stdout instead of words."
) -> Callable[[Callable[..., None]], click.Command]:
    """As `click.command`, with what all commands have: -h beside --help, --version, and what `console` goes by.

    summary: for the list of commands. verbose: what more is said, for the help. as_json: what is said instead; None:
    the command reports nothing.
    """

    def make(function: Callable[..., None]) -> click.Command:
        made = click.command(cls=_Command, context_settings=HELP, short_help=summary)(function)
        options = [
            click.Option(["-q", "--quiet"], is_flag=True, help="Warnings and errors only."),
            click.Option(["-v", "--verbose"], is_flag=True, help=verbose),
        ]
        if as_json is not None:
            options.append(click.Option(["--json", "as_json"], is_flag=True, help=as_json))
        made.params += options
        return click.version_option(package_name="cisi-net")(made)

    return make


def run_command(command: click.Command, program: str) -> None:
    """Run a click command as a program. Errors are one line on stderr; the exit status is 2 for usage, 1 for
    failure."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A file may have a name that stdout cannot encode. The work on it is done by then.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command.main(prog_name=program, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        sys.exit(USAGE)
    except click.UsageError as error:
        _fail(program, error.format_message(), USAGE)
    except click.ClickException as error:
        _fail(program, error.format_message(), error.exit_code)
    except CisiError as error:
        _fail(program, str(error), FAILURE)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        extra = _EXTRAS[error.name]
        _fail(program, f"needs {error.name}: pip install 'cisi-net[{extra}]'", FAILURE)
    except (click.Abort, KeyboardInterrupt):  # the first is a RuntimeError
        _fail(program, "interrupted", INTERRUPTED)
    except OSError as error:
        _fail(program, f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILURE)
    except MemoryError as error:
        _fail(program, f"not enough memory: {error}" if str(error) else "not enough memory", FAILURE)
    except ImportError as error:  # such as of a library that memory is too short for
        _fail(program, f"{error.name or 'a library'} cannot be loaded: {error}", FAILURE)
    except RuntimeError as error:
        if not _is_for_want_of_a_thread(error):
            raise
        _fail(program, f"not enough memory, or too many processes: {_NO_THREAD}", FAILURE)


def _is_for_want_of_a_thread(error: BaseException) -> bool:
    """Itself, or what it came from: a pool that has not started raises another error when it is shut down."""
    return str(error) == _NO_THREAD or (error.__context__ is not None and _is_for_want_of_a_thread(error.__context__))


def _fail(program: str, message: str, status: int) -> None:
    print(f"{program}: {coloured('error:', 'red')} {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
