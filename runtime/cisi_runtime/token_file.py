"""The token of a service, in a file of its own."""

from __future__ import annotations

from pathlib import Path

from cisi_runtime.errors import ServiceError

# Shorter ones could be guessed.
_LEAST = 16


def read_token(path: Path) -> str:
    """One word of ASCII. Raises ServiceError for a file that cannot be read or holds anything else."""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ServiceError(f"{path}: {reason}") from error
    if len(token) < _LEAST or not token.isascii() or not token.isprintable() or " " in token:
        raise ServiceError(
            f"{path}: expected one word of {_LEAST} characters or more, such as `openssl rand -hex 32` prints"
        )
    return token
