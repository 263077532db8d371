"""A real Triton on this machine, without a GPU: the server of the wheel `nvidia-pytriton`, which has the Python backend
alone. And a repository in which that backend stands in for the ONNX Runtime backend."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from cisi_runtime.triton.config import NETWORK
from cisi_runtime.triton.repository import read_network, write_repository
from tests.support.shared import TIMEOUT_S

# The wheel asks for NumPy 1, which its server does not need here: so it is unpacked beside the environment's packages.
INSTALL = "pip install --no-deps --target {folder} nvidia-pytriton==0.7.0"
_GLIBC = (2, 35)
_STAND_IN = Path(__file__).with_name("triton_stand_in.py")
_LINK = ("libtriton_python.so", "triton_python_backend_utils.py")


@dataclasses.dataclass(frozen=True)
class Installation:
    """Where the wheel was unpacked, and the folder of libpython, which its process for Python models needs."""

    folder: Path
    python_library: Path

    @property
    def server(self) -> Path:
        """Its `tritonserver` with what lies beside it."""
        return self.folder / "pytriton" / "tritonserver"

    @property
    def stub(self) -> Path:
        """The process for Python models, of this version of Python."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return self.server / "python_backend_stubs" / version / "triton_python_backend_stub"


@dataclasses.dataclass(frozen=True)
class RunningTriton:
    """A server that is ready. url: for clients, "127.0.0.1:PORT". metrics: address of its metrics. log: its output."""

    url: str
    metrics: str
    log: Path

    def waiting(self, model: str) -> int:
        """Requests in the queue of a model."""
        with urllib.request.urlopen(self.metrics, timeout=TIMEOUT_S) as response:
            lines = response.read().decode().splitlines()
        name = f'nv_inference_pending_request_count{{model="{model}",'
        return int(next(line for line in lines if line.startswith(name)).split()[-1])


class NotStartedError(Exception):
    """The server ended before it was ready. The message is what it printed."""


def find_triton() -> Installation | str:
    """The installation that can run here, or the reason why there is none."""
    folder = Path(sys.prefix) / "triton"
    install = INSTALL.format(folder=folder)
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "Triton's wheel is for Linux on x86-64"
    version = tuple(int(part) for part in platform.libc_ver()[1].split(".")[:2])
    if version < _GLIBC:
        return f"Triton's wheel needs glibc 2.35, this is {'.'.join(map(str, version))}"
    if importlib.util.find_spec("tritonclient") is None:
        return "needs tritonclient: pip install 'cisi-net[dev]'"
    if not folder.is_dir():
        return f"needs a Triton: {install}"
    library = Path(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("INSTSONAME") or "none")
    if not library.is_file():
        return f"Triton needs libpython as a shared library, and there is no {library}"
    found = Installation(folder, library.parent)
    if not found.stub.is_file():
        return f"Triton's wheel has no {found.stub.relative_to(folder)}; another one: {install}"
    return found


@contextlib.contextmanager
def running_triton(installation: Installation, repository: Path, folder: Path) -> Iterator[RunningTriton]:
    """Serve a repository on free ports of this machine until the block ends. folder: for its output and links.

    Raises NotStartedError when it ends before it is ready, for instance because a model cannot be loaded.
    """
    backends = _link_backend(installation, folder)
    log = folder / "triton.log"
    while True:
        http, metrics = _free_ports(2)
        command = [str(installation.server / "bin" / "tritonserver"), f"--model-repository={repository}"]
        command += [f"--backend-directory={backends}", "--allow-grpc=false", "--exit-timeout-secs=10"]
        command += ["--http-address=127.0.0.1", f"--http-port={http}"]
        command += ["--metrics-address=127.0.0.1", f"--metrics-port={metrics}"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=_environment(installation))
        try:
            if _becomes_ready(process, f"http://127.0.0.1:{http}/v2/health/ready"):
                yield RunningTriton(f"127.0.0.1:{http}", f"http://127.0.0.1:{metrics}/metrics", log)
                return
        finally:
            process.terminate()
            try:
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        text = log.read_text(errors="replace")
        # Somebody else took a port meanwhile.
        if "already in use" not in text.lower():
            raise NotStartedError(text)


def stand_in_repository(folder: Path, graph: Path, *, queue: int = 64, max_batch: int | None = None) -> None:
    """A repository with the model `cisi` as `cisi-triton` writes it, except for its backend: a Python model that runs
    the graph in ONNX Runtime, because the wheel has no backend for that. See `triton_stand_in.py` for what it records.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    write_repository(folder, read_network(graph, max_batch), queue=queue, photo=False)
    path = folder / NETWORK / "config.pbtxt"
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    config.backend = "python"
    path.write_text(text_format.MessageToString(config))
    shutil.copy(_STAND_IN, folder / NETWORK / "1" / "model.py")


def _link_backend(installation: Installation, folder: Path) -> Path:
    """A folder of backends with the Python backend for this version of Python."""
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True, exist_ok=True)
    wanted = [*(installation.server / "backends" / "python" / name for name in _LINK), installation.stub]
    for path in wanted:
        link = backend / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    return backend.parent


def _environment(installation: Installation) -> dict[str, str]:
    """The process for Python models ignores PYTHONPATH. It finds this environment by the `python3` that comes first."""
    libraries = [installation.python_library, installation.folder / "nvidia_pytriton.libs"]
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return os.environ | {
        "PATH": os.pathsep.join(path),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
    }


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _becomes_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    """True once all models are loaded and warm, False when the server has ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return True
        time.sleep(0.05)
    return False
