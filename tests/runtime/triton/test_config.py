"""What `cisi-triton` writes: every configuration as Triton's own parser reads it, and what is refused."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cisi_runtime.backends.graph import read_graph
from cisi_runtime.backends.registry import SHIPPED_GRAPH, SHIPPED_INT8_GRAPH
from cisi_runtime.cli.triton import main
from cisi_runtime.cli.triton import triton as command
from cisi_runtime.contract import Contract
from cisi_runtime.engines.audit import Audit
from cisi_runtime.engines.options import BuildOptions, Profile, Size
from cisi_runtime.engines.sidecar import Sidecar, file_sha256, load_sidecar, sidecar_path
from cisi_runtime.errors import CisiError, EngineError, GraphError, OutputError
from cisi_runtime.parity.golden import golden_path, load_golden, save_golden
from cisi_runtime.triton import repository
from cisi_runtime.triton.config import NETWORK, PHOTO
from cisi_runtime.triton.repository import read_network, write_repository
from tests.conftest import RunMain

Graphs = Mapping[tuple[str, str, str], Path]
ANY = (None, None, None)
PROFILE = Profile()


def parse(config: Path) -> Any:
    """A configuration as Triton's own parser reads it."""
    pytest.importorskip("tritonclient.grpc", reason="needs tritonclient: pip install 'cisi-net[dev]'")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())


def configs(folder: Path, model: Path | None, max_batch: int | None = None, **options: Any) -> tuple[Any, Any]:
    """Of both models, written anew."""
    write_repository(folder, read_network(model, max_batch), **options)
    return parse(folder / NETWORK / "config.pbtxt"), parse(folder / PHOTO / "config.pbtxt")


def tensors(config: Any) -> dict[str, tuple[str, list[int]]]:
    """Type and dims of inputs and outputs by name."""
    types = config.input[0].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return {t.name: (types[t.data_type].name, list(t.dims)) for t in (*config.input, *config.output)}


def warm_up(config: Any) -> dict[str, tuple[int, dict[str, list[int]]]]:
    """Batch size and dims by input, of each sample."""
    assert all(tensor.zero_data for sample in config.model_warmup for tensor in sample.inputs.values())
    return {
        sample.name: (sample.batch_size, {name: list(tensor.dims) for name, tensor in sample.inputs.items()})
        for sample in config.model_warmup
    }


def contract_of(config: Any) -> Contract:
    return Contract.from_json(config.parameters["cisi_contract"].string_value)


@pytest.fixture
def engine(tmp_path: Path, tiny_graphs: Graphs) -> "EngineMaker":
    return EngineMaker(tmp_path, read_graph(tiny_graphs["float16", "tensorrt", "uint8"]).contract)


@dataclasses.dataclass
class EngineMaker:
    """Makes a file that is taken for an engine of TensorRT, with its sidecar: no GPU has built one here."""

    folder: Path
    contract: Contract

    def __call__(
        self,
        profile: Profile = PROFILE,
        fixed: tuple[int | None, int | None, int | None] = ANY,
        flavour: str = "tensorrt",
    ) -> Path:
        path = self.folder / "best.fp16.engine"
        data = b"an engine"
        path.write_bytes(data)
        is_rtx = flavour == "tensorrt-rtx"
        options = BuildOptions(flavour, ("8.9",) if is_rtx else (), profile)
        card = ("", "") if is_rtx else ("NVIDIA H100", "9.0")
        sizes = (file_sha256(data), len(data), options, "10.13.3.9", *card, Audit((), 1, 0), 1.0, None)
        sidecar = Sidecar(self.contract, "best.fp16.onnx", "0" * 64, "1" * 64, fixed, *sizes)
        sidecar_path(path).write_text(sidecar.to_json())
        return path


def fixed_graph(graph: Path, folder: Path, batch: int | None, height: int | None, width: int | None) -> Path:
    """The graph with some of its sides fixed, as `cisi-export --size` leaves them."""
    import onnx

    model = onnx.load(graph)
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        places = (
            (0, 2, 3) if len(dims) == 4 and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT else (0, 1, 2)
        )
        for place, side in zip(places, (batch, height, width), strict=True):
            if side is not None:
                dims[place].Clear()
                dims[place].dim_value = side
    path = folder / "fixed.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_what_ships_is_the_default(tmp_path: Path, run_main: RunMain) -> None:
    folder = tmp_path / "models"
    status, out, err = run_main(main, folder)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{folder}: cisi: int8, uint8 face, batches of up to 4, width any, height any",
        f"{folder}: cisi-photo: 1 process",
    ]
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert written == [
        *("cisi-photo/1/model.py", "cisi-photo/1/network.golden.npz", "cisi-photo/1/network.onnx"),
        *("cisi-photo/config.pbtxt", "cisi/1/model.onnx", "cisi/config.pbtxt"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    for copy in ("cisi/1/model.onnx", "cisi-photo/1/network.onnx"):
        assert (folder / copy).read_bytes() == SHIPPED_INT8_GRAPH.read_bytes()
    golden = folder / "cisi-photo/1/network.golden.npz"
    assert golden_path(folder / "cisi-photo/1/network.onnx") == golden
    assert golden.read_bytes() == golden_path(SHIPPED_INT8_GRAPH).read_bytes()
    compile((folder / "cisi-photo/1/model.py").read_text(), "model.py", "exec")
    # Readable for Triton's own user.
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.rglob("*"))


def test_a_graph_of_any_size(tmp_path: Path, tiny_graph: Path) -> None:
    network, photo = configs(tmp_path / "models", tiny_graph, queue=7, workers=3)
    assert (network.name, network.backend, network.max_batch_size) == ("cisi", "onnxruntime", 4)
    pixels = ("TYPE_UINT8", [-1, -1, 3])
    assert tensors(network) == {"image": pixels, "hole_mask": ("TYPE_UINT8", [-1, -1]), "completed": pixels}
    dims = {"image": [256, 256, 3], "hole_mask": [256, 256]}
    assert warm_up(network) == {"1x256x256": (1, dims), "4x256x256": (4, dims)}
    (group,) = network.instance_group
    assert (group.count, group.kind) == (1, group.KIND_CPU)
    assert not network.cc_model_filenames
    file = ("TYPE_UINT8", [-1])
    assert tensors(photo) == dict.fromkeys(("image", "mask", "completed", "report"), file)
    assert [tensor.optional for tensor in photo.input] == [False, True]
    assert (photo.name, photo.backend, photo.max_batch_size) == ("cisi-photo", "python", 0)
    assert (photo.instance_group[0].count, photo.instance_group[0].kind) == (3, group.KIND_CPU)
    for config in (network, photo):
        policy = config.dynamic_batching.default_queue_policy
        assert (policy.max_queue_size, policy.timeout_action) == (7, policy.REJECT)
        assert policy.allow_timeout_override
        assert policy.default_timeout_microseconds == 30_000_000
        assert contract_of(config) == read_graph(tiny_graph).contract


def test_the_tensor_face(tmp_path: Path, tiny_graphs: Graphs) -> None:
    network, _ = configs(tmp_path / "models", tiny_graphs["float32", "cpu", "tensor"], max_batch=1)
    image = ("TYPE_FP32", [3, -1, -1])
    assert tensors(network) == {"image": image, "hole_mask": ("TYPE_FP32", [1, -1, -1]), "completed": image}
    assert network.max_batch_size == 1
    assert warm_up(network) == {"1x256x256": (1, {"image": [3, 256, 256], "hole_mask": [1, 256, 256]})}


def test_an_int8_graph(tmp_path: Path) -> None:
    network, photo = configs(tmp_path / "models", None)
    for config in (network, photo):
        assert contract_of(config).precision == "int8"
        assert contract_of(config) == read_graph(SHIPPED_INT8_GRAPH).contract


@pytest.mark.parametrize("face", ["uint8", "tensor"])
@pytest.mark.parametrize("fixed", [(2, 128, 160), (None, 128, 160), (2, None, None)])
def test_fixed_shapes(
    tmp_path: Path, tiny_graphs: Graphs, face: str, fixed: tuple[int | None, int | None, int | None]
) -> None:
    graph = fixed_graph(tiny_graphs["float32", "cpu", face], tmp_path, *fixed)
    network, _ = configs(tmp_path / "models", graph)
    batch, height, width = (-1 if side is None else side for side in fixed)
    expected = [height, width, 3] if face == "uint8" else [3, height, width]
    mask = [height, width] if face == "uint8" else [1, height, width]
    # With a fixed batch Triton hands each request on as it is, and `dims` hold the batch.
    batches = fixed[0] is None
    assert network.max_batch_size == (4 if batches else 0)
    start = [] if batches else [batch]
    dims = {name: shape for name, (_, shape) in tensors(network).items()}
    assert dims == {"image": [*start, *expected], "hole_mask": [*start, *mask], "completed": [*start, *expected]}
    samples = warm_up(network)
    size = f"{width}x{height}" if height > 0 else "256x256"
    assert list(samples) == ([f"1x{size}", f"4x{size}"] if batches else [f"2x{size}"])
    assert [size for size, _ in samples.values()] == ([1, 4] if batches else [1])
    warm = {name: [256 if side == -1 else side for side in shape] for name, shape in dims.items()}
    del warm["completed"]
    assert all(shapes == warm for _, shapes in samples.values())


def test_an_engine(tmp_path: Path, engine: EngineMaker, run_main: RunMain) -> None:
    path, folder = engine(), tmp_path / "models"
    status, out, err = run_main(main, folder, "--model", path)
    assert status == 0
    assert err.splitlines() == ["the plan runs in TensorRT 10.13.3.9 on a card of compute capability 9.0 alone"]
    assert "cisi: float16, uint8 face, batches of up to 4, width any, height any" in out
    network, photo = parse(folder / NETWORK / "config.pbtxt"), parse(folder / PHOTO / "config.pbtxt")
    assert (network.backend, network.max_batch_size) == ("tensorrt", 4)
    # Without a file model.plan, which Triton would take on any other card.
    assert dict(network.cc_model_filenames) == {"9.0": "sm_9.0.plan"}
    assert [file.name for file in (folder / "cisi/1").iterdir()] == ["sm_9.0.plan"]
    assert (folder / "cisi/1/sm_9.0.plan").read_bytes() == path.read_bytes()
    assert network.parameters["tensorrt_version"].string_value == "10.13.3.9"
    group = network.instance_group[0]
    assert (group.count, group.kind, list(group.gpus)) == (1, group.KIND_GPU, [])
    assert (photo.instance_group[0].kind, list(photo.instance_group[0].gpus)) == (group.KIND_GPU, [0])
    assert load_sidecar(folder / "cisi-photo/1/network.engine") == load_sidecar(path)
    assert contract_of(network) == contract_of(photo) == engine.contract


def test_an_engine_of_a_profile(tmp_path: Path, engine: EngineMaker) -> None:
    path = engine(Profile(Size(1, 64, 64), Size(2, 160, 192), Size(8, 512, 512)))
    network, _ = configs(tmp_path / "models", path)
    dims = {"image": [160, 192, 3], "hole_mask": [160, 192]}
    assert network.max_batch_size == 8
    assert warm_up(network) == {"1x192x160": (1, dims), "8x192x160": (8, dims)}
    assert configs(tmp_path / "others", path, max_batch=3)[0].max_batch_size == 3


def test_an_engine_of_one_size(tmp_path: Path, engine: EngineMaker) -> None:
    network, _ = configs(tmp_path / "models", engine(fixed=(2, 64, 96)))
    assert network.max_batch_size == 0
    assert tensors(network)["image"][1] == [2, 64, 96, 3]
    assert warm_up(network) == {"2x96x64": (1, {"image": [2, 64, 96, 3], "hole_mask": [2, 64, 96]})}


def test_the_network_alone(tmp_path: Path, tiny_graph: Path, run_main: RunMain) -> None:
    folder = tmp_path / "models"
    folder.mkdir()  # an empty one is fine
    status, out, _ = run_main(main, folder, "--model", tiny_graph, "--no-photo", "--max-batch", 2, "--queue", 5)
    assert (status, len(out.splitlines())) == (0, 1)
    assert [path.name for path in folder.iterdir()] == ["cisi"]
    config = parse(folder / NETWORK / "config.pbtxt")
    assert (config.max_batch_size, config.dynamic_batching.default_queue_policy.max_queue_size) == (2, 5)


def test_strings_reach_triton_as_they_are(tmp_path: Path, tiny_graph: Path) -> None:
    network = read_network(tiny_graph)
    text = 'a "quoted" \\ back\nslash, é'
    provenance = dataclasses.replace(network.contract.provenance, data=text)
    contract = dataclasses.replace(network.contract, provenance=provenance)
    write_repository(tmp_path / "models", dataclasses.replace(network, contract=contract))
    assert contract_of(parse(tmp_path / "models/cisi/config.pbtxt")).provenance.data == text


def refusal(*arguments: object) -> str:
    """What a command says that must fail."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code != 0
    return str(result.exception) if isinstance(result.exception, CisiError) else result.output


def test_models_that_triton_cannot_load(
    tmp_path: Path, engine: EngineMaker, tiny_graphs: Graphs, tiny_checkpoint_path: Path
) -> None:
    def read(model: Path, max_batch: int | None = None) -> None:
        read_network(model, max_batch)

    float16 = tiny_graphs["float16", "tensorrt", "uint8"]
    with pytest.raises(GraphError, match="is a checkpoint, and Triton runs graphs and engines: cisi-export --ckpt"):
        read(tiny_checkpoint_path)
    with pytest.raises(GraphError, match="holds float16, .* silently run in float32, expected .*: cisi-build"):
        read(float16)
    with pytest.raises(GraphError, match="no such file"):
        read(tmp_path / "none.onnx")
    fixed = fixed_graph(tiny_graphs["float32", "cpu", "uint8"], tmp_path, 2, None, None)
    with pytest.raises(GraphError, match="takes 2 pictures at a time, no more and no less"):
        read(fixed, 2)
    with pytest.raises(EngineError, match="no such file"):
        read(tmp_path / "none.engine")
    with pytest.raises(EngineError, match="is an engine of tensorrt-rtx, .* --flavour tensorrt"):
        read(engine(flavour="tensorrt-rtx"))
    with pytest.raises(EngineError, match="takes up to 4 pictures at a time, and 5 were .* --max 5x512x512"):
        read(engine(), 5)
    with pytest.raises(GraphError, match="takes 1 pictures at a time"):
        read(engine(fixed=(1, 64, 64)), 1)
    with pytest.raises(EngineError, match="takes 2 pictures or more at a time, expected .* --min 1x64x64"):
        read(engine(Profile(Size(2, 64, 64), Size(2, 256, 256), Size(4, 512, 512))))
    path = engine()
    path.write_bytes(b"another one")
    with pytest.raises(EngineError, match="is damaged, or not the engine that best.fp16.engine.json describes"):
        read(path)
    (tmp_path / "best.fp16.engine.json").unlink()
    with pytest.raises(EngineError, match="was made elsewhere, or has lost best.fp16.engine.json"):
        read(path)


def test_an_int8_graph_for_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = read_graph(SHIPPED_INT8_GRAPH)
    contract = dataclasses.replace(info.contract, target="tensorrt")
    path = tmp_path / "best.int8.tensorrt.onnx"
    path.touch()
    monkeypatch.setattr(repository, "read_graph", lambda _: dataclasses.replace(info, contract=contract))
    with pytest.raises(GraphError, match="holds float16, .* or a TensorRT engine: cisi-build .* --flavour tensorrt"):
        read_network(path)


def test_golden_files_of_int8_graphs(tmp_path: Path, run_main: RunMain) -> None:
    graph = tmp_path / "small.int8.cpu.onnx"
    graph.write_bytes(SHIPPED_INT8_GRAPH.read_bytes())
    status, _, err = run_main(main, tmp_path / "models", "--model", graph)
    assert status == 0
    assert "no golden file is beside the graph, so no CPU is checked before it serves INT8" in err
    golden = load_golden(golden_path(SHIPPED_GRAPH))
    save_golden(golden_path(graph), dataclasses.replace(golden, weights_sha256="0" * 64))
    with pytest.raises(GraphError, match="belongs to other weights than .*, expected the golden file of its export"):
        read_network(graph)


def test_folders_that_are_not_written_to(tmp_path: Path, tiny_graph: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "mine").touch()
    assert refusal(folder) == f"DIR: {folder}: is not empty, expected a new or an empty folder"
    assert refusal(folder / "mine") == f"DIR: {folder / 'mine'}: is a file, expected a new or an empty folder"
    missing = tmp_path / "none" / "models"
    assert f"folder {missing.parent} does not exist" in refusal(missing)
    assert [path.name for path in folder.iterdir()] == ["mine"]
    with pytest.raises(OutputError, match="is not empty"):
        write_repository(folder, read_network(tiny_graph))
    assert "--workers is for photographs" in refusal(tmp_path / "new", "--no-photo", "--workers", 2)
    assert refusal(tmp_path / "new", "--model", tmp_path / "none.onnx").startswith("--model: ")
    assert refusal(tmp_path / "new", "--model", tiny_graph, "--max-batch", 0)
    for option in ("--max-batch", "--queue", "--workers"):
        assert option in refusal(tmp_path / "new", "--model", tiny_graph, option, 2**31)
    assert not (tmp_path / "new").exists()


def test_nothing_is_left_by_a_failure(tmp_path: Path, tiny_graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = read_network(tiny_graph)

    def fill(*_arguments: Any) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(repository, "photo_config", fill)
        with pytest.raises(OutputError, match="models: cannot be written: No space left on device"):
            write_repository(tmp_path / "models", network)
    assert list(tmp_path.iterdir()) == []
    write_repository(tmp_path / "models", network)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_folder_that_is_filled_meanwhile_is_kept(
    tmp_path: Path, tiny_graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, original = tmp_path / "models", repository.photo_config

    def somebody_else(*arguments: Any) -> str:
        folder.mkdir()
        (folder / "theirs").touch()
        return original(*arguments)

    monkeypatch.setattr(repository, "photo_config", somebody_else)
    with pytest.raises(OutputError, match="models: cannot be written: Directory not empty"):
        write_repository(folder, read_network(tiny_graph))
    assert [path.name for path in tmp_path.rglob("*")] == ["models", "theirs"]
