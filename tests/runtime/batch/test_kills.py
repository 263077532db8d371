"""Folder runs that are killed lose nothing. `python -m benchmarks.kills` kills a thousand."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.networks import ROOT
from tests.support.shared import TIMEOUT_S


@pytest.mark.slow
def test_a_hundred_kills(tiny_graph: Path) -> None:
    # A process of its own: it forks, which one with threads, as that of the suite, must not do.
    command = [sys.executable, "-m", "benchmarks.kills", str(tiny_graph), "--kills", "100", "--seed", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("0 violations  pass")
