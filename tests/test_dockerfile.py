"""The Dockerfile, as far as it can be checked without a Docker engine; `test_wheel` does what its steps do."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cisi_runtime.cuda.driver import find_gpu
from cisi_runtime.errors import CudaError
from tests.support.service import running
from tests.support.shared import TIMEOUT_S

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    (match[1], " ".join(match[2].split()))
    for match in re.finditer(r"^([A-Z]+) (.*)$", TEXT.replace("\\\n", " "), re.MULTILINE)
]


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.is_file():
        pytest.skip("needs hadolint: pip install 'cisi-net[dev]'")
    result = subprocess.run(
        [program, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_is_copied_is_there_and_not_ignored() -> None:
    not_ignored = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for name, rest in INSTRUCTIONS if name == "COPY" for source in rest.split()[:-1]}
    assert copied == not_ignored
    assert all((ROOT / source).exists() for source in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["where"]
    assert copied >= set(packages)


def test_the_images_run_as_a_user_with_a_health_check() -> None:
    stages: dict[str, list[tuple[str, str]]] = {}
    for name, rest in INSTRUCTIONS:
        if name == "FROM":
            stage = stages.setdefault(rest.rpartition(" AS ")[2], [])
        stage.append((name, rest))
    assert list(stages) == ["wheel", "cpu", "serve", "gpu", "ray"]
    for stage in (stages["cpu"], stages["serve"], stages["gpu"], stages["ray"]):
        names = [name for name, _ in stage]
        assert names.count("USER") == names.count("HEALTHCHECK") == names.count("ENTRYPOINT") == 1
        assert ("USER", "10001") in stage
        assert names.index("USER") > names.index("RUN")


def test_the_health_checks_run_here() -> None:
    checks = [json.loads(rest.partition(" CMD ")[2]) for name, rest in INSTRUCTIONS if name == "HEALTHCHECK"]
    assert len(checks) == 4
    assert checks[3] == checks[0]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"

    def run(check: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(check, env={"PATH": path}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    results = [run(checks[0]), run(checks[2])]
    assert results[0].returncode == 0, results[0].stderr
    assert "pass" in results[0].stdout
    with running() as service:
        check = [part.replace("8000", str(service.port)) for part in checks[1]]
        assert run(check).returncode == 0
        service.stop()
        assert run(check).returncode != 0
    try:
        find_gpu()
    except CudaError:
        # That of the GPU image fails without a GPU, and says why.
        assert results[1].returncode != 0
        assert "CudaError: cuInit: the NVIDIA driver is not installed" in results[1].stderr
    else:
        assert results[1].returncode == 0, results[1].stderr
