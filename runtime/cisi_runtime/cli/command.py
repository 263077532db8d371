"""What every command has in common: one-line errors and exit statuses."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cisi_runtime.errors import CisiError

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
}

USAGE, FAILURE, INTERRUPTED = 2, 1, 130
# The type of every option and argument that names a file or a folder.
PATH = click.Path(path_type=Path)


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
        _fail(program, f"needs {error.name}, expected an installation with pip install 'cisi-net[{extra}]'", FAILURE)
    except OSError as error:
        _fail(program, f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILURE)
    except MemoryError as error:
        _fail(program, f"not enough memory: {error}", FAILURE)
    except (click.Abort, KeyboardInterrupt):
        _fail(program, "interrupted", INTERRUPTED)


def _fail(program: str, message: str, status: int) -> None:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
