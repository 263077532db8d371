"""What `python -m tests.fuzz --inputs` feeds damaged files to, and the files that it damages."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import METADATA_KEY, Contract
from cisi_runtime.pictures.writing import format_of
from tests.support.networks import PHOTOS, ROOT, provenance

_WIDTH, _HEIGHT = 72, 56
_WEIGHTS = ROOT / "runtime" / "cisi_runtime" / "weights"
# One of so many inputs comes from a file of megabytes, which takes long to read.
RARE = 40


@dataclasses.dataclass(frozen=True)
class Reader:
    """What reads files of one kind; goes to processes that are started anew.

    name: for people, and part of the seed. seeds: small files by name. large: large ones. read: takes a damaged file,
    and a folder to write into.
    """

    name: str
    seeds: Callable[[], dict[str, bytes]]
    read: Callable[[Path, Path], object]
    large: tuple[Path, ...] = ()


def _picture_seeds() -> dict[str, bytes]:
    photo = Image.open(PHOTOS / "balloon.jpg").convert("RGB").resize((_WIDTH, _HEIGHT))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 3, "a balloon"
    exif.get_ifd(0x8769)[0x9003] = "2019:01:01 00:00:00"
    seeds: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, **options: Any) -> None:
        target = io.BytesIO()
        image.save(target, format_of(name), **options)
        seeds[name] = target.getvalue()

    add("plain.jpg", photo, exif=exif, quality=80, comment=b"a comment", dpi=(72, 72))
    add("progressive.jpg", photo, progressive=True)
    add("grey.jpg", photo.convert("L"))
    add("plain.png", photo, exif=exif)
    add("palette.png", photo.quantize(), transparency=3)
    add("alpha.png", photo.convert("RGBA"))
    add("plain.webp", photo, exif=exif)
    add("plain.tif", photo, compression="tiff_lzw", description="a balloon")
    add("raw.tif", photo, exif=exif)
    add("plain.avif", photo)
    add("plain.bmp", photo)
    return seeds


@functools.cache
def _mask() -> bytes:
    levels = np.zeros((_HEIGHT, _WIDTH), dtype=np.uint8)
    levels[20:40, 20:50] = 255
    target = io.BytesIO()
    Image.fromarray(levels).save(target, "PNG")
    return target.getvalue()


def _mask_seeds() -> dict[str, bytes]:
    seeds = {"mask.png": _mask()} | {path.name: path.read_bytes() for path in sorted(PHOTOS.glob("*.mask.png"))}
    mask = Image.open(io.BytesIO(_mask()))
    for name, mode in (("mask.bmp", "1"), ("mask.webp", "L"), ("mask.tif", "1"), ("mask.jpg", "L")):
        target = io.BytesIO()
        mask.convert(mode).save(target, format_of(name))
        seeds[name] = target.getvalue()
    return seeds


def _read_picture(path: Path, _: Path) -> None:
    from cisi_runtime.pictures.reading import check_picture, read_head, read_picture

    read_head(path.read_bytes(), path.name)
    check_picture(path)
    read_picture(path)


def _read_mask(path: Path, _: Path) -> None:
    from cisi_runtime.pictures.reading import decode_mask

    decode_mask(path.read_bytes(), path.name)


def _cheap_fill(rgb: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_], _: object) -> npt.NDArray[np.uint8]:
    return np.where(hole_mask[..., None], np.uint8(128), rgb)


def _run_job(path: Path, folder: Path) -> None:
    """From file to file as `cisi-run` does it, in its own format and in another one; the results can be read."""
    from cisi_runtime.batch.job import Job, run_job
    from cisi_runtime.pictures.reading import read_head

    (folder / "mask.png").write_bytes(_mask())
    others = (".png", ".webp", ".tif", ".avif")
    for suffix in (path.suffix, others[path.stat().st_size % len(others)]):
        output = folder / f"out{suffix}"
        done = run_job(Job(path, folder / "mask.png", output), lambda: _cheap_fill)  # type: ignore[arg-type,return-value]
        head = read_head(output.read_bytes(), output.name)
        assert {head.width, head.height} == set(done.picture.size), "the result has another size"


@functools.cache
def _checkpoints() -> dict[str, bytes]:
    """Of weights alone, and one that can be resumed."""
    import torch

    from cisi_train.checkpoint import save_checkpoint

    state = _training_state()
    weights = state.generator.state_dict()
    training = {name: part.state_dict() for name, part in state.training_parts.items()}
    training |= {"step": 1, "minutes": 0.0, "best": None, "colours": None, "before": None}
    settings = {"lr": 1e-3, "steps": 9, "minutes": None}
    made = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, saved in (("weights.pt", None), ("last.pt", training)):
            path, contract = Path(folder, name), Contract(PRESETS["tiny"], provenance())
            save_checkpoint(path, contract, weights, configuration=settings, training=saved, as_float16=saved is None)
            made[name] = path.read_bytes()
    return made


@functools.cache
def _training_state() -> Any:
    import torch

    from cisi_train.training_state import TrainingState
    from tests.support.training_runs import options

    state = TrainingState(options(Path(), Path()), torch.device("cpu"))
    for parameter in state.generator.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimiser in state.generator_optimisers:
        optimiser.step()
    return state


def _load_checkpoint(path: Path, _: Path) -> None:
    from cisi_train.checkpoint import load_checkpoint

    load_checkpoint(path).generator()


def _resume(path: Path, _: Path) -> None:
    _training_state().resume(path, {})


def _graph_seeds() -> dict[str, bytes]:
    """A graph of four nodes that keeps the contract."""
    from onnx import TensorProto, helper, numpy_helper

    contract = Contract(PRESETS["tiny"], provenance(), target="cpu")
    image, hole_mask = contract.inputs
    sides = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [image, "weight"], ["features"], pads=[1, 1, 1, 1]),
            helper.make_node("InstanceNormalization", ["features", "scale", "bias"], ["even"]),
            helper.make_node("Sub", ["even", hole_mask], ["less"]),
            helper.make_node("Tanh", ["less"], [contract.output]),
        ],
        "small",
        [
            helper.make_tensor_value_info(image, TensorProto.FLOAT, sides),
            helper.make_tensor_value_info(hole_mask, TensorProto.FLOAT, ["n", 1, "h", "w"]),
        ],
        [helper.make_tensor_value_info(contract.output, TensorProto.FLOAT, sides)],
        [
            numpy_helper.from_array(np.ones(sides, dtype=np.float32), name)
            for name, sides in (("weight", (3, 3, 3, 3)), ("scale", (3,)), ("bias", (3,)))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    return {"small.onnx": model.SerializeToString()}


def _read_graph(path: Path, _: Path) -> None:
    from cisi_runtime.backends.graph import read_graph

    read_graph(path)


def _golden_seeds() -> dict[str, bytes]:
    from cisi_runtime.parity.golden import Golden, GoldenCase, save_golden

    cases = tuple(
        GoldenCase(name, "natural", np.zeros((1, 16, 16, 3), np.uint8), np.ones((1, 16, 16), np.bool_), completed, 0.0)
        for name, completed in (("a", np.zeros((1, 3, 16, 16), np.float32)), ("b", np.ones((1, 3, 16, 16), np.float32)))
    )
    with tempfile.TemporaryDirectory() as folder:
        save_golden(Path(folder, "small.golden.npz"), Golden("0" * 64, cases))
        return {"small.golden.npz": Path(folder, "small.golden.npz").read_bytes()}


def _load_golden(path: Path, _: Path) -> None:
    from cisi_runtime.parity.golden import load_golden

    load_golden(path)


def _sidecar_seeds() -> dict[str, bytes]:
    from cisi_runtime.engines.audit import Audit, AuditedConvolution
    from cisi_runtime.engines.options import BuildOptions
    from cisi_runtime.engines.sidecar import Sidecar

    sidecar = Sidecar(
        contract=Contract(PRESETS["tiny"], provenance(), target="tensorrt", precision="float16"),
        graph="tiny.onnx",
        graph_sha256="0" * 64,
        golden_sha256="2" * 64,
        fixed=(None, 64, 64),
        engine_sha256="1" * 64,
        engine_bytes=12,
        options=BuildOptions(),
        version="1.0",
        gpu="",
        capability="",
        audit=Audit((AuditedConvolution("decoder.to_rgb", "float16", "float16"),), 3, 0),
        seconds=1.5,
        parity=None,
    )
    return {"tiny.engine.json": sidecar.to_json().encode()}


def _load_sidecar(path: Path, _: Path) -> None:
    from cisi_runtime.engines.sidecar import load_sidecar

    load_sidecar(path.with_suffix(""))


def _load_table(path: Path, _: Path) -> None:
    from cisi_calibration.table import load_table

    load_table(path)


def _saved_options(path: Path, folder: Path) -> None:
    from cisi_train.resuming import saved_options

    (folder / "options.json").write_bytes(path.read_bytes())
    saved_options(folder)


def _run_record(path: Path, folder: Path) -> None:
    from cisi_runtime.batch.run_record import RECORD, RunRecord

    (folder / RECORD).write_bytes(path.read_bytes())
    RunRecord(folder, {"--dilate": "0", "--model": "a"}).check(has_results=True, overwrite=False)


def _plan_manifest(path: Path, folder: Path) -> None:
    from cisi_runtime.batch.manifest import plan_manifest

    with plan_manifest(path, None, folder / "out") as plan:
        list(plan.jobs())


def _manifest_seeds() -> dict[str, bytes]:
    import pyarrow
    import pyarrow.parquet

    rows = [{"image": f"{n}.jpg", "mask": f"s3://masks/{n}.png", "output": f"a/{n}.jpg"} for n in range(20)]
    lines = "".join(",".join(row.values()) + "\n" for row in rows)
    target = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), target)
    return {"table.csv": ("image,mask,output\n" + lines).encode(), "table.parquet": target.getvalue()}


def _json_seed(name: str, values: dict[str, Any]) -> dict[str, bytes]:
    return {name: json.dumps(values).encode()}


def _resumable() -> dict[str, bytes]:
    return {"last.pt": _checkpoints()["last.pt"]}


def _table_seeds() -> dict[str, bytes]:
    return {"ranges.json": (_WEIGHTS / "small.ranges.json").read_bytes()}


_OPTIONS = {"data": "/photos", "steps": 100, "minutes": None, "categories": ["a", "b"], "perceptual": True, "lr": 1e-4}
_RECORD = {"made_with": {"--dilate": "0", "--model": "a"}, "is_mixed": False, "revision": 1}

READERS = {
    reader.name: reader
    for reader in (
        Reader("pictures", _picture_seeds, _read_picture, (PHOTOS / "yurt.jpg",)),
        Reader("jobs", _picture_seeds, _run_job),
        Reader("masks", _mask_seeds, _read_mask),
        Reader("checkpoints", _checkpoints, _load_checkpoint, (_WEIGHTS / "small.pt",)),
        Reader("training states", _resumable, _resume),
        Reader("graphs", _graph_seeds, _read_graph, (_WEIGHTS / "small.int8.cpu.onnx",)),
        Reader("golden files", _golden_seeds, _load_golden, (_WEIGHTS / "small.golden.npz",)),
        Reader("sidecars", _sidecar_seeds, _load_sidecar),
        Reader("range tables", _table_seeds, _load_table),
        Reader("options", functools.partial(_json_seed, "options.json", _OPTIONS), _saved_options),
        Reader("run records", functools.partial(_json_seed, "record.json", _RECORD), _run_record),
        Reader("manifests", _manifest_seeds, _plan_manifest),
    )
}
