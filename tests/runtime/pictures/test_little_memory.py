"""Too little memory for a photograph is an error of ours, whatever library finds it out."""

import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image, ImageFile

from cisi_runtime.cli.command import run_command
from cisi_runtime.errors import NO_MEMORY, OutputError, PictureError
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.reading import decode_mask, decode_picture, read_picture
from cisi_runtime.pictures.writing import encode_picture
from tests.support.networks import PHOTOS

# A picture of 36 MB, once there is room for 16 MiB more than the process has.
_READ = """
import resource, sys
from pathlib import Path
from cisi_runtime.errors import CisiError
from cisi_runtime.pictures.reading import read_picture
status = Path("/proc/self/status").read_text()
size = int(status.split("VmSize:")[1].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (16 << 20),) * 2)
try:
    read_picture(Path(sys.argv[1]))
except CisiError as error:
    print(error)
"""


NO_THREAD = "not enough memory, or too many processes: can't start new thread"


def after(error: Exception, first: str) -> Exception:
    """Raised while an error was handled."""
    error.__context__ = RuntimeError(first)
    return error


def fail(*_: object, **__: object) -> None:
    raise MemoryError


def test_in_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (PHOTOS / "balloon.jpg").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", fail)
        for decode in (decode_picture, decode_mask):
            with pytest.raises(PictureError, match=f"^balloon.jpg: {NO_MEMORY}$"):
                decode(data, "balloon.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(PictureError, match=f"balloon.jpg: {NO_MEMORY}$"):
            read_picture(PHOTOS / "balloon.jpg")
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError, match=f"^out.png: {NO_MEMORY}$"):
        encode_picture(Picture(np.zeros((8, 8, 3), dtype=np.uint8)), "PNG", "out.png")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and limits of address space")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_in_a_process_with_a_limit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"large.{suffix}"
    Image.new("RGB", (4000, 3000), "red").save(path, **({"method": 0, "quality": 1} if suffix == "webp" else {}))
    result = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{path}: ")
    if suffix in ("png", "jpg"):  # the others' libraries have errors of their own
        assert result.stdout == f"{path}: {NO_MEMORY}\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "not enough memory"),
        (MemoryError("an array of 3 TB"), "not enough memory: an array of 3 TB"),
        (RuntimeError("can't start new thread"), NO_THREAD),
        (after(RuntimeError("cannot join thread before it is started"), "can't start new thread"), NO_THREAD),
        (
            ImportError("failed to map segment", name="onnxruntime"),
            "onnxruntime cannot be loaded: failed to map segment",
        ),
    ],
)
def test_in_a_command(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["cisi-x"])
    with pytest.raises(SystemExit) as stopped:
        run_command(command, "cisi-x")
    assert stopped.value.code == 1
    assert capsys.readouterr().err == f"cisi-x: error: {line}\n"


def test_another_fault_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def command() -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("sys.argv", ["cisi-x"])
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run_command(command, "cisi-x")
