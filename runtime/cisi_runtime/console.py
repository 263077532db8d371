"""What a command says: results on stdout, notes and warnings on stderr, as much of both as was asked for.

Library code may call `tell`. Outside of a command it speaks as a command does without options.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator
from math import isfinite
from typing import Any, TextIO

from cisi_runtime.errors import OutputError

# Words of a verdict, at the end of a line or in front of what failed, and their colours on a terminal.
_VERDICTS = (
    (re.compile(r"\b(all pass|pass|passed)$", re.MULTILINE), "green"),
    (re.compile(r"\b(\d+ FAIL|FAIL)\b"), "red"),
)


@dataclasses.dataclass
class Loudness:
    """What was asked for.

    quiet: neither results in words nor notes. verbose: more of both. as_json: results as JSON, not in words.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False


# Of the command that runs; each sets its own.
LOUDNESS = Loudness()


def say(text: str) -> None:
    """A result in words, on stdout; with verdicts in colour on a terminal. Not with --quiet or --json. Raises
    OutputError."""
    if not LOUDNESS.quiet and not LOUDNESS.as_json:
        if _has_colours(sys.stdout):
            import click

            for pattern, colour in _VERDICTS:
                text = pattern.sub(click.style(r"\1", fg=colour), text)
        with stdout_errors():
            print(text, flush=True)


def say_json(value: Any) -> None:
    """A result as one line of JSON on stdout, with --json only. What JSON cannot hold (infinity, NaN) is null.
    Raises OutputError."""
    if LOUDNESS.as_json:
        with stdout_errors():
            print(json.dumps(_finite(value)), flush=True)


@contextlib.contextmanager
def stdout_errors() -> Iterator[None]:
    """Raise OutputError where writing to stdout in the block fails: a full disk, a reader that has gone."""
    try:
        yield
    except OSError as error:
        # Python writes what is left at its end, and would fail again, with words and an exit status of its own.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise OutputError(f"standard output: cannot be written: {error.strerror or error}") from error


def tell(line: str) -> None:
    """A note on stderr, above any bar. Not with --quiet."""
    if not LOUDNESS.quiet:
        _to_stderr(line)


def tell_more(line: str) -> None:
    """A note that is worth a line with --verbose only."""
    if LOUDNESS.verbose:
        _to_stderr(line)


def tell_always(line: str) -> None:
    """A line on stderr that is told with --quiet too: what went wrong."""
    _to_stderr(line)


def warn(text: str) -> None:
    """A warning on stderr, always."""
    _to_stderr(f"{coloured('warning:', 'yellow')} {text}")


def coloured(text: str, colour: str) -> str:
    """For stderr: in a colour where that is a terminal."""
    if not _has_colours(sys.stderr):
        return text
    import click

    return click.style(text, fg=colour)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _to_stderr(line: str) -> None:
    if sys.stderr is None:  # closed; tqdm would take stdout, where the picture may go
        return
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


def _has_colours(stream: TextIO | None) -> bool:
    """Whether it is a terminal, and nobody has asked for none (https://no-color.org). None: it is closed."""
    return (
        stream is not None and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
