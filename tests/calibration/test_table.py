import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from cisi_calibration.model_contract import set_contract
from cisi_calibration.observation import observed_tensors
from cisi_calibration.photographs import Photographs, choose_photographs, picture_and_hole
from cisi_calibration.quantisation import CalibrationOptions, calibrate
from cisi_calibration.table import check_table, load_table, observe
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.errors import DataError, GraphError, OutputError, PictureError
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.writing import write_picture


@pytest.fixture(scope="module")
def photographs(photo_folder: Path) -> Photographs:
    return choose_photographs(photo_folder, 3)


@pytest.fixture(scope="module")
def tiny_model(tiny_graph: Path) -> onnx.ModelProto:
    return onnx.load(tiny_graph)


def test_the_same_photographs_give_the_same_table(
    tiny_model: onnx.ModelProto, photo_folder: Path, photographs: Photographs, tmp_path: Path
) -> None:
    first = observe(tiny_model, photographs, "mse")
    again = observe(tiny_model, choose_photographs(photo_folder, 3), "mse")
    assert first.to_json() == again.to_json()
    first.save(tmp_path / "ranges.json")
    assert load_table(tmp_path / "ranges.json") == first
    check_table(tmp_path / "ranges.json", first, tiny_model)
    backwards = observe(tiny_model, dataclasses.replace(photographs, ranges=photographs.ranges[::-1]), "mse")
    assert backwards.ranges == first.ranges


def test_minmax_is_what_the_network_gave(tiny_model: onnx.ModelProto, photographs: Photographs) -> None:
    table = observe(tiny_model, photographs, "minmax")
    tensors = observed_tensors(tiny_model)
    # Only what a ReLU lets through counts; in front of a norm everything does.
    through = [name for name in tensors if name.endswith("output") and table.ranges[name].uint8[0] == 0.0]
    relus = [
        "style.convs.0",
        "style.convs.1",
        "style.convs.2",
        "style.convs.3",
        "style.convs.4",
        "decoder.up.0.conv",
        "decoder.up.1.conv",
    ]
    assert through == [f"{name} output" for name in relus]
    name, tensor = next(item for item in tensors.items() if item[0].endswith("output"))
    watched = onnx.ModelProto()
    watched.CopyFrom(tiny_model)
    watched.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    from onnxruntime import InferenceSession

    session = InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    values = []
    for path in photographs.ranges:
        image, hole = picture_and_hole(path)
        assert hole.any()
        feeds = {"image": image[None], "hole_mask": hole[None].astype(np.uint8) * 255}
        values.append(session.run([tensor], feeds)[0])
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    assert table.ranges[name].uint8 == pytest.approx((min(low, 0), max(high, 0)), rel=1e-5)
    assert table.ranges[name].int8 == pytest.approx(max(abs(low), abs(high)), rel=1e-5)
    assert table.images == len(photographs.ranges) == 3


def test_tables_of_other_graphs_and_damaged_ones(
    tiny_model: onnx.ModelProto, tiny_graph: Path, photographs: Photographs, tmp_path: Path
) -> None:
    table = observe(tiny_model, dataclasses.replace(photographs, ranges=photographs.ranges[:1]), "minmax")
    path = tmp_path / "t.json"
    other = onnx.ModelProto()
    other.CopyFrom(tiny_model)
    set_contract(other, dataclasses.replace(OnnxRuntimeBackend(tiny_graph).contract, weights_sha256="1" * 64))
    with pytest.raises(GraphError, match=r"t.json: was made for another graph \(the hashes"):
        check_table(path, table, other)
    short = dataclasses.replace(table, ranges=dict(list(table.ranges.items())[:-1]))
    with pytest.raises(GraphError, match=r"t.json: has no range for decoder"):
        check_table(path, short, tiny_model)
    check_table("it", table, tiny_model, "minmax")
    with pytest.raises(GraphError, match=r"it: is of method minmax, expected percentile as --method says"):
        check_table("it", table, tiny_model, "percentile")
    with pytest.raises(GraphError, match="the table: was made for another graph"):
        calibrate(other, CalibrationOptions(photographs, "minmax", table=table))
    with pytest.raises(GraphError, match="no such file"):
        load_table(path)
    text = table.to_json()
    values = json.loads(text)
    first = next(iter(values["ranges"].values()))
    wrong = []
    for entry in ({"int8": float("nan")}, {"int8": -1.0}, {"uint8": [0.5, 1.0]}, {"uint8": [-1.0, float("inf")]}):
        before = dict(first)
        first.update(entry)
        wrong.append(json.dumps(values))
        first.update(before)
    no_int8, no_format = text.replace('"int8"', '"int9"'), text.replace("cisi-net", "other")
    twice, long = text.replace('"images"', '"method": "mse",\n "images"'), text + " " * (1 << 20)
    for bad in ("", "{}", text[:-20], no_int8, no_format, "[]", *wrong, twice, long, "\ufeff" + text):
        path.write_text(bad)
        with pytest.raises(GraphError, match="not a table of calibration ranges, or damaged"):
            load_table(path)
    path.write_text(text.replace('"revision": 1', '"revision": 2'))
    with pytest.raises(GraphError, match="revision 2 is newer than 1"):
        load_table(path)
    with pytest.raises(OutputError, match="does not exist"):
        table.save(tmp_path / "missing" / "t.json")


def test_the_drawing_of_photographs(photo_folder: Path, photographs: Photographs) -> None:
    assert choose_photographs(photo_folder, 3) == photographs
    other = choose_photographs(photo_folder, 3, seed=1)
    assert other.ranges != photographs.ranges
    assert other.sha256 != photographs.sha256
    everything = choose_photographs(photo_folder, 500)
    parts = (everything.ranges, everything.search, everything.unseen)
    assert [len(part) for part in parts] == [10, 5, 5]
    assert len({path for part in parts for path in part}) == 20
    assert any("ranges of 10 pictures" in warning for warning in everything.warnings)


def test_folders_that_cannot_calibrate(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        choose_photographs(tmp_path / "missing", 5)
    with pytest.raises(DataError, match="0 pictures, expected 12 or more"):
        choose_photographs(tmp_path, 5)
    for number in range(14):
        write_picture(tmp_path / f"{number:02}.png", Picture(np.full((64, 64, 3), 9 * number, dtype=np.uint8)))
    with pytest.raises(DataError, match=r"14 of 14 pictures are of one colour, such as \d+.png"):
        choose_photographs(tmp_path, 100)
    (tmp_path / "07.png").write_text("text")
    with pytest.raises(PictureError, match=r"07.png"):
        choose_photographs(tmp_path, 100)


def test_flat_pictures_take_no_place_from_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for number in range(64):
        pixels = rng.integers(0, 256, (8, 8, 3)).repeat(8, axis=0).repeat(8, axis=1) if number < 14 else number
        write_picture(tmp_path / f"{number:02}.png", Picture(np.broadcast_to(pixels, (64, 64, 3)).astype(np.uint8)))
    photographs = choose_photographs(tmp_path, 100)
    assert [len(part) for part in (photographs.ranges, photographs.search, photographs.unseen)] == [8, 3, 3]
    assert any(warning.startswith("50 pictures are of one colour") for warning in photographs.warnings)


def test_other_contents_are_other_photographs(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    digests = set()
    for _ in range(2):
        for number in range(12):
            pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
            write_picture(tmp_path / f"{number:02}.bmp", Picture(pixels))  # of one size, whatever is in them
        digests.add(choose_photographs(tmp_path, 6).sha256)
    assert len(digests) == 2


def test_pictures_that_are_too_alike_and_flat_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (16, 16, 3)).repeat(4, axis=0).repeat(4, axis=1)
    for number in range(13):
        noisy = np.clip(scene + rng.integers(-2, 3, scene.shape), 0, 255).astype(np.uint8)
        write_picture(tmp_path / f"{number:02}.png", Picture(noisy))
    write_picture(tmp_path / "flat.png", Picture(np.zeros((64, 64, 3), dtype=np.uint8)))
    photographs = choose_photographs(tmp_path, 100)
    assert any("too alike" in warning for warning in photographs.warnings)
    assert any("one colour and were left out" in warning and "flat.png" in warning for warning in photographs.warnings)
    assert tmp_path / "flat.png" not in (*photographs.ranges, *photographs.search, *photographs.unseen)
