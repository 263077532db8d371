"""The page without a server: the network runs in the browser."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from cisi_runtime.errors import DataError, GraphError
from cisi_runtime.files import atomic_folder, check_empty_folder

_PAGE = Path(__file__).parent / "page"
# The worker reads these names.
_GRAPH, _RUNTIME_FOLDER = "graph.onnx", "ort"
_PACKAGE, _VERSION = "onnxruntime-web", "1.30.0"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# WebAssembly on one thread: more would need headers that few static web servers send.
# Its script gets a suffix that every web server knows as JavaScript.
_RUNTIME_FILES = {
    "ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
_NPM_TIMEOUT_S = 600
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob:; worker-src 'self'; base-uri 'none'; form-action 'none'"
)
_CHARSET = '<meta charset="utf-8">\n'
_ENGINE = """/** What fills holes: here the network itself, in the browser. */

export * from "./browser.js";
"""
# The package names the licence and does not contain its text.
_LICENCE = """MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
_README = f"""The page of CISI-net without a server. Photographs stay in the browser.

Put this folder on any static web server, at any address, or try it here:

    python -m http.server --bind 127.0.0.1

and open http://127.0.0.1:8000. Opened as a file (file://…) it does not work: browsers load no modules from there.

Results are PNG files without the photograph's metadata and colour profile, and fills have no texture. `cisi-serve`
keeps all three.

page/{_GRAPH}: the network. page/{_RUNTIME_FOLDER}: {_PACKAGE} {_VERSION}, under the licence beside it.
"""


def write_static_page(folder: Path, graph: Path) -> None:
    """Write a page that fills holes in the browser: index.html, its files, the graph and onnxruntime-web.

    folder: is made; may exist if it is empty. Without an error it is complete, with one it is as it was.
    graph: float32 or INT8 ONNX graph of the uint8 face, for any size.

    onnxruntime-web comes from the npm registry, by `npm pack`. Raises OutputError for a folder that cannot be written,
    GraphError or ContractError for another graph, and DataError if npm is missing, fails, or delivers another file.
    """
    check_empty_folder(folder)
    _check_graph(graph)
    with atomic_folder(folder) as new, tempfile.TemporaryDirectory() as download:
        page = new / "page"
        runtime = page / _RUNTIME_FOLDER
        runtime.mkdir(parents=True)
        _extract(_packed(Path(download)), runtime)
        (runtime / "LICENSE").write_text(_LICENCE, encoding="utf-8")
        for path in _PAGE.iterdir():
            if path.is_file() and path.name not in ("index.html", "engine.js", "service.js"):
                shutil.copyfile(path, page / path.name)
        (page / "engine.js").write_text(_ENGINE, encoding="utf-8")
        index = (_PAGE / "index.html").read_text(encoding="utf-8")
        policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        (new / "index.html").write_text(index.replace(_CHARSET, _CHARSET + policy, 1), encoding="utf-8")
        (new / "README.txt").write_text(_README, encoding="utf-8")
        shutil.copyfile(graph, page / _GRAPH)


def _check_graph(path: Path) -> None:
    from cisi_runtime.backends.graph import read_graph

    info = read_graph(path)
    if info.contract.io.onnx_type != "tensor(uint8)" or info.fixed.sides != (None, None, None):
        raise GraphError(
            f"{path}: expected a graph with uint8 inputs for any size, as `cisi-export` writes it without --io, "
            "--size and --batch"
        )
    if info.contract.target != "cpu":
        raise GraphError(f"{path}: is for {info.contract.target}, expected a float32 or INT8 graph for the CPU")


def _packed(folder: Path) -> Path:
    """The package's archive, from the registry, checked."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm: not found, expected Node.js with npm: it fetches onnxruntime-web from the npm registry")
    name = f"{_PACKAGE}@{_VERSION}"
    command = [npm, "pack", name, "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_NPM_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"npm pack {name}: no answer within {_NPM_TIMEOUT_S} s, expected the npm registry") from error
    archive = folder / f"{_PACKAGE}-{_VERSION}.tgz"
    if done.returncode != 0 or not archive.is_file():
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        why = lines[0] if lines else f"exit status {done.returncode}"
        raise DataError(f"npm pack {name}: failed: {why}; expected a connection to the npm registry")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != _SHA512:
        raise DataError(f"npm pack {name}: SHA-512 is {digest}, expected {_SHA512}: it is not the published package")
    return archive


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        for name, kept_as in _RUNTIME_FILES.items():
            member = tar.extractfile(f"package/dist/{name}")
            assert member is not None  # the archive's sum was checked
            with member, (folder / kept_as).open("wb") as file:
                shutil.copyfileobj(member, file)
