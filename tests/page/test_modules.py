"""The page's modules that need no browser, tested in Node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.shared import TIMEOUT_S

_FOLDER = Path(__file__).parent


_NODE = shutil.which("node")


@pytest.mark.skipif(_NODE is None, reason="needs Node.js 20 or newer: `node --test tests/page/*.test.mjs`")
def test_the_modules_of_the_page() -> None:
    files = sorted(_FOLDER.glob("*.test.mjs"))
    done = _run("--no-warnings", *_options(), "--test", *map(str, files))
    assert files
    assert done.returncode == 0, done.stdout + done.stderr


def _options() -> list[str]:
    """Newer versions see that a file is a module; older ones must be told, and newer ones no longer take the option."""
    version = int(_run("--version").stdout.strip().removeprefix("v").partition(".")[0])
    return ["--experimental-default-type=module"] if version < 22 else []


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert _NODE is not None
    return subprocess.run([_NODE, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
