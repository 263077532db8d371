"""What every command has in common: one-line errors and exit statuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

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

# -h is --help.
HELP = {"help_option_names": ["-h", "--help"]}
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


def command(function: Callable[..., None]) -> click.Command:
    """As `click.command`, with what all commands have: -h beside --help, and --version."""
    made = click.command(context_settings=HELP)(function)
    return click.version_option(package_name="cisi-net")(made)


def run_command(command: click.Command, program: str) -> None:
    """Run a click command as a program. Errors are one line on stderr; the exit status is 2 for usage, 1 for
    failure."""
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
    except OSError as error:
        _fail(program, f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILURE)
    except MemoryError as error:
        _fail(program, f"not enough memory: {error}", FAILURE)
    except (click.Abort, KeyboardInterrupt):
        _fail(program, "interrupted", INTERRUPTED)


def _fail(program: str, message: str, status: int) -> None:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
