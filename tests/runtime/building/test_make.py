"""`cisi-build`: options, cache, sidecars, refusals, and builds that are killed."""

import contextlib
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from cisi_calibration.model_contract import record_of, sealed_bytes
from cisi_runtime.building import make, process
from cisi_runtime.building.cache import write_engine
from cisi_runtime.building.trtexec import trtexec_line
from cisi_runtime.contract import METADATA_KEY
from cisi_runtime.cuda.driver import Gpu
from cisi_runtime.engines.compatibility import check_gpu, check_installation
from cisi_runtime.engines.options import BuildOptions, Profile, Size, choose_flavour
from cisi_runtime.engines.sidecar import Sidecar, load_engine, sidecar_path
from cisi_runtime.errors import EngineError
from tests.support.build_command import build, failure
from tests.support.shared import TIMEOUT_S


def test_what_is_built_and_told(graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.engine"
    result = build(graph, "-o", out, "--verbose", "--capability", "8.9", "--capability", "12.0")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["inferred_content.down.0.conv", "float16", "float16"]
    assert lines[-4].startswith(f"tensorrt_rtx --onnx={graph} --saveEngine={out} --skipInference --profili")
    assert lines[-3].startswith("precision audit: 28 convolutions: 28 float16; ")
    assert lines[-3].endswith(" kernels  pass")
    assert lines[-1].startswith(f"{out}: float16, tensorrt-rtx 1.7.1.116 for SM 8.9, 12.0, ")
    assert "tensorrt-rtx: the one that is installed" in result.stderr
    data, sidecar = load_engine(out)
    assert not data.startswith(b"{")
    assert sidecar.graph == graph.name
    assert sidecar.options.capabilities == ("8.9", "12.0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "tiny.engine", "tiny.engine.json"]


@pytest.mark.slow
def test_nothing_is_built_twice_and_nothing_stale_is_used(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tiny.engine"

    def is_cached(source: Path = graph, *arguments: object) -> bool:
        result = build(source, "-o", out, "--capability", "8.9", *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout.rstrip().endswith("from the cache")

    assert not is_cached()
    first = out.read_bytes()
    out.unlink()
    assert is_cached()
    assert out.read_bytes() == first
    assert not is_cached(graph, "--no-cache")
    # Each in turn differs from what was built.
    assert not is_cached(graph, "--capability", "12.0")
    assert not is_cached(graph, "--size", "256", "--batch", "2")
    assert not is_cached(graph, "--level", "2")
    assert not is_cached(graph, "--tf32")
    assert not is_cached(graph, "--workspace", "512")
    model = onnx.load(graph)
    model.doc_string = "another file"
    other = tmp_path / "other.onnx"
    record = record_of(model)
    assert record is not None
    other.write_bytes(sealed_bytes(model, record))
    assert not is_cached(other)
    renamed = tmp_path / "renamed.onnx"
    renamed.write_bytes(graph.read_bytes())
    assert is_cached(renamed)
    assert load_engine(out)[1].graph == "renamed.onnx"
    monkeypatch.setattr(make, "installed_version", lambda _flavour: "9.9.9")
    assert not is_cached()
    monkeypatch.undo()


def test_a_damaged_cache_is_told_and_replaced(graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.engine"
    assert build(graph, "-o", out, "--capability", "8.9").exit_code == 0
    (entry,) = (tmp_path / "cache" / "engines").glob("*.engine")
    good = entry.read_bytes()
    entry.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    result = build(graph, "-o", out, "--capability", "8.9")
    assert "the cached engine is not used, a new one is built" in result.stderr
    assert "built in" in result.stdout
    assert load_engine(entry)[0] == out.read_bytes()


@pytest.mark.parametrize("delay_s", [0.0, 0.7])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["ctrl-c", "term", "kill"])
def test_a_killed_build_leaves_nothing_behind(graph: Path, tmp_path: Path, how: signal.Signals, delay_s: float) -> None:
    out = tmp_path / "tiny.engine"
    program = [str(Path(sys.executable).with_name("cisi-build")), str(graph), "-o", str(out)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    workers: list[int] = []
    deadline = time.monotonic() + TIMEOUT_S
    while not workers and process.poll() is None and time.monotonic() < deadline:
        workers = children(process.pid)
    assert workers, "the building process was not seen"
    time.sleep(delay_s)
    process.send_signal(how)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode in (130, -how)
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_alive(worker) for worker in workers)
    assert list(tmp_path.rglob("*")) == []


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # After the name, which may hold spaces: state, parent.
            if entry.read_text().rpartition(")")[2].split()[1] == str(parent):
                found.append(int(entry.parent.name))
    return found


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_termination_while_the_engine_is_written_leaves_nothing(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tiny.engine"

    def interrupted(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGTERM)
        return len(data)

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Path, "write_bytes", interrupted)
    result = build(graph, "-o", out, "--no-cache", "--capability", "8.9")
    signal.signal(signal.SIGTERM, handler)
    assert result.exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_loses_no_engine(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CISI_CACHE", str(tmp_path / "file"))
    result = build(graph, "-o", tmp_path / "tiny.engine", "--capability", "8.9")
    assert result.exit_code == 0, result.output
    assert "not cached (the cache is $CISI_CACHE" in result.stderr
    load_engine(tmp_path / "tiny.engine")


def test_a_builder_that_crashes_is_told(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    real = subprocess.Popen
    monkeypatch.setattr(process.subprocess, "Popen", lambda program, **rest: real([program[0], *crash], **rest))
    with pytest.raises(EngineError, match="no engine for SM 8.0, .* the building process ended with signal SIGSEGV"):
        process.build_engine(graph, BuildOptions())
    assert list(tmp_path.iterdir()) == []


def test_an_engine_on_a_broken_disk(
    made: tuple[bytes, Sidecar], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.engine"
    write_engine(path, *made)

    def fail(_: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(EngineError, match=r"tiny.engine: cannot be read: Input/output error"):
        load_engine(path)


def test_a_sidecar_is_checked(made: tuple[bytes, Sidecar], tmp_path: Path) -> None:
    engine, sidecar = made
    path = tmp_path / "tiny.engine"
    write_engine(path, engine, sidecar)
    assert load_engine(path) == made
    values = json.loads(sidecar.to_json())

    def refusal(**changes: object) -> str:
        sidecar_path(path).write_text(json.dumps(values | changes))
        with pytest.raises(EngineError) as error:
            load_engine(path)
        return str(error.value)

    assert "revision 4 is newer than 3" in refusal(revision=4)
    assert "revision 1 is no longer read; build the engine again" in refusal(revision=1)
    assert "unknown keys ['colour']" in refusal(colour="blue")
    assert "flavour cuda: expected tensorrt or tensorrt-rtx" in refusal(options=values["options"] | {"flavour": "cuda"})
    assert "precision is 'int4'" in refusal(contract=values["contract"] | {"precision": "int4"})
    assert "is damaged, or not the engine that tiny.engine.json describes" in refusal(engine_sha256="0" * 64)
    for wrong in ({"level": "3"}, {"tf32": "yes"}, {"workspace_mib": -5}, {"level": 9}, {"capabilities": "8.9"}):
        assert "a value is of the wrong kind: Expected" in refusal(options=values["options"] | wrong), wrong
    assert "a value is of the wrong kind: Expected" in refusal(fixed=[None, "64", 64])
    assert "audit.convolutions[0]: unknown keys [], missing keys ['asked', 'built']" in refusal(
        audit=values["audit"] | {"convolutions": [{"name": "x"}]}
    )
    sidecar_path(path).write_text("[]")
    with pytest.raises(EngineError, match="expected a JSON object, got list"):
        load_engine(path)
    sidecar_path(path).write_bytes(b"\xff\xfe")
    with pytest.raises(EngineError, match=r"tiny.engine.json: "):
        load_engine(path)
    sidecar_path(path).write_text(" " * (1 << 20) + sidecar.to_json())
    with pytest.raises(EngineError, match=r"tiny.engine.json: sidecar: has more than 1048576 bytes"):
        load_engine(path)
    sidecar_path(path).unlink()
    with pytest.raises(EngineError, match="or has lost tiny.engine.json, .* expected an engine that cisi-build made"):
        load_engine(path)


def test_info_prints_the_sidecar(made: tuple[bytes, Sidecar], tmp_path: Path) -> None:
    from cisi_export.cli_info import info

    path = tmp_path / "tiny.engine"
    write_engine(path, *made)
    text = CliRunner().invoke(info, [str(path)]).output
    assert "built by   tensorrt-rtx 1.7.1.116 for SM 8.9" in text
    assert "takes      BATCHxWIDTHxHEIGHT 1x64x64 to 4x512x512, best at 1x256x256" in text
    assert "parity     not known: the engine has not been compared on a GPU" in text
    assert Sidecar.from_json(CliRunner().invoke(info, [str(path), "--json"]).output) == made[1]
    path.write_bytes(b"something else")
    result = CliRunner().invoke(info, [str(path)])
    assert result.exit_code == 1
    assert "is damaged" in str(result.exception)


def test_what_may_not_run_here_is_refused_with_the_reason(made: tuple[bytes, Sidecar]) -> None:
    sidecar = made[1]
    check_installation(sidecar)
    check_gpu(sidecar, Gpu("NVIDIA GeForce RTX 4090", "8.9", "13.0"))
    with pytest.raises(
        EngineError, match="built for SM 8.9, this machine has NVIDIA H100 .* cisi-build tiny.fp16.onnx"
    ):
        check_gpu(sidecar, Gpu("NVIDIA H100", "9.0", "13.0"))
    own = dataclasses.replace(sidecar, options=BuildOptions("tensorrt", ()), gpu="NVIDIA H100", capability="9.0")
    check_gpu(own, Gpu("NVIDIA H100", "9.0", "13.0"))
    with pytest.raises(EngineError, match=r"built for NVIDIA H100 \(SM 9.0\), this machine has NVIDIA H200"):
        check_gpu(own, Gpu("NVIDIA H200", "9.0", "13.0"))
    for version in ("1.6.0", "1.8.0"):
        other = dataclasses.replace(sidecar, version=version)
        with pytest.raises(EngineError, match=f"built by tensorrt-rtx {version}, installed is 1.7.1.116: expected the"):
            check_installation(other)
    with pytest.raises(EngineError, match=r"tensorrt is not installed: .*'cisi-net\[tensorrt\]'"):
        check_installation(own)


def test_the_flavour_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from cisi_runtime.engines import options

    found = {"tensorrt": "11.0", "tensorrt-rtx": "1.7"}
    monkeypatch.setattr(options, "installed_version", found.get)
    with pytest.raises(EngineError, match="tensorrt and tensorrt-rtx are both installed, expected one of them to be"):
        choose_flavour()
    assert choose_flavour("tensorrt") == "tensorrt"
    del found["tensorrt"]
    assert choose_flavour() == "tensorrt-rtx"
    found.clear()
    with pytest.raises(EngineError, match=r"neither TensorRT nor TensorRT-RTX is installed: .*\[rtx\]"):
        choose_flavour()


def test_bad_input(graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.engine"
    assert "GRAPH: " in failure(tmp_path / "none.onnx", "-o", out)
    assert "--out" in failure(graph, "-o", tmp_path / "x.onnx")
    assert "--out: " in failure(graph, "-o", tmp_path / "missing" / "x.engine")
    assert "--capability: SM 9.0: TensorRT-RTX has no such target" in failure(graph, "-o", out, "--capability", "9.0")
    assert "--batch needs --size" in failure(graph, "-o", out, "--batch", "2")
    assert "--size and --max exclude each other" in failure(graph, "-o", out, "--size", "64", "--max", "1x64x64")
    assert "--size: profile size 1x100x100: expected" in failure(graph, "-o", out, "--size", "100")
    assert "--size 1x2x3: expected WIDTHxHEIGHT" in failure(graph, "-o", out, "--size", "1x2x3")
    assert "--min 64x64: expected BATCHxWIDTHxHEIGHT" in failure(graph, "-o", out, "--min", "64x64")
    order = failure(graph, "-o", out, "--min", "2x64x64", "--opt", "1x64x64")
    assert "--min --opt: profile 2x64x64, 1x64x64, 4x512x512: expected none to exceed the next" in order
    assert "--flavour: tensorrt is not installed" in failure(graph, "-o", out, "--flavour", "tensorrt")
    text = tmp_path / "text.onnx"
    text.write_text("not a graph")
    assert "GRAPH: " in failure(text, "-o", out)
    model = onnx.load(graph)
    for item in list(model.metadata_props):
        if item.key == METADATA_KEY:
            model.metadata_props.remove(item)
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(model.SerializeToString())
    assert "has no CISI-net contract" in failure(foreign, "-o", out)
    assert not out.exists()


@pytest.mark.slow
def test_ranges_move_out_of_each_others_way(graph: Path, tmp_path: Path) -> None:
    def profile(*arguments: str) -> str:
        result = build(graph, "-o", tmp_path / "x.engine", "--capability", "8.9", "--json", *arguments)
        assert result.exit_code == 0, result.output
        return str(Sidecar.from_json(result.stdout).options.profile)

    assert profile("--max", "1x128x128") == "1x64x64 to 1x128x128, best at 1x128x128"
    assert profile("--opt", "8x1024x768") == "1x64x64 to 8x1024x768, best at 8x1024x768"
    assert profile("--size", "192x128") == "1x192x128"


@pytest.mark.slow
def test_a_graph_of_one_size(tiny_checkpoint_path: Path, tmp_path: Path) -> None:
    from cisi_export.cli_export import export

    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx: pip install 'cisi-net[rtx]'")
    graph = tmp_path / "fixed.fp16.onnx"
    arguments = ["--ckpt", str(tiny_checkpoint_path), "--fp16", "--engine", "--size", "96x64", "--batch", "2"]
    result = CliRunner().invoke(export, [*arguments, "--out", str(graph)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "precision audit: 28 convolutions: 28 float16" in result.output
    _, sidecar = load_engine(tmp_path / "fixed.fp16.engine")
    assert sidecar.fixed == (2, 64, 96)
    assert str(sidecar.options.profile) == "2x96x64"
    assert "GRAPH takes one size and batch" in failure(graph, "-o", tmp_path / "x.engine", "--size", "64")
    assert build(graph, "-o", tmp_path / "x.engine").exit_code == 0


def test_engines_are_for_graphs_of_the_tensorrt_lowering(tiny_checkpoint_path: Path, tmp_path: Path) -> None:
    from cisi_export.cli_export import export

    arguments = ["--ckpt", str(tiny_checkpoint_path), "--engine", "--target", "cpu", "--out", str(tmp_path / "x.onnx")]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 2
    assert "--engine: engines are built from graphs for TensorRT, expected --target tensorrt" in result.output


def test_trtexec_line(made: tuple[bytes, Sidecar]) -> None:
    one = Size(1, 256, 384)
    options = BuildOptions("tensorrt", (), Profile(Size(1, 64, 64), one, one), workspace_mib=2048, level=5)
    line = trtexec_line(Path("a b.onnx"), Path("a.engine"), options, made[1].contract, is_free=True)
    assert line == (
        "trtexec '--onnx=a b.onnx' --saveEngine=a.engine --skipInference --profilingVerbosity=detailed "
        "--stronglyTyped --builderOptimizationLevel=5 --noTF32 --memPoolSize=workspace:2048M "
        "--minShapes=image:1x64x64x3,hole_mask:1x64x64 --optShapes=image:1x256x384x3,hole_mask:1x256x384 "
        "--maxShapes=image:1x256x384x3,hole_mask:1x256x384"
    )
    tensor = dataclasses.replace(made[1].contract, face="tensor")
    free = trtexec_line(Path("a.onnx"), Path("a.engine"), BuildOptions(tf32=True), tensor, is_free=True)
    assert "image:1x3x64x64,hole_mask:1x1x64x64" in free
    assert "--noTF32" not in free


def test_help_loads_no_heavy_library() -> None:
    code = "import sys; from cisi_runtime.cli.build import build; build.main(['--help'], standalone_mode=False); "
    code += "print([name for name in ('onnxruntime', 'onnx', 'torch', 'tensorrt_rtx', 'cuda') if name in sys.modules])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=TIMEOUT_S, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"
