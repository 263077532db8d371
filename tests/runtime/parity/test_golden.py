import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cisi_runtime.codec import decode_pixels
from cisi_runtime.errors import GraphError
from cisi_runtime.parity.golden import Golden, GoldenCase, golden_path, load_golden, save_golden


def case(name: str) -> GoldenCase:
    rng = np.random.default_rng(0)
    image, hole_mask = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8), rng.random((2, 8, 8)) < 0.5
    fill = rng.standard_normal((2, 3, 8, 8), dtype=np.float32)
    completed = np.where(hole_mask[:, None], fill, decode_pixels(image))
    return GoldenCase(name, "natural", image, hole_mask, completed, 1e-6)


def test_round_trip(tmp_path: Path) -> None:
    save_golden(tmp_path / "g.npz", Golden("abc", (case("one"), case("two words"))))
    golden = load_golden(tmp_path / "g.npz")
    assert golden.weights_sha256 == "abc"
    assert [item.name for item in golden.cases] == ["one", "two words"]
    for array in ("image", "hole_mask", "completed", "float32_error"):
        assert np.array_equal(getattr(golden.cases[1], array), getattr(case("x"), array))


def test_at_most_twelve_cases(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="13 golden cases, expected at most 12"):
        save_golden(tmp_path / "g.npz", Golden("abc", tuple(case(str(n)) for n in range(13))))
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_golden_file_is_refused(tmp_path: Path) -> None:
    save_golden(tmp_path / "whole.npz", Golden("abc", (case("one"),)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:700])
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "objects.npz", header=np.array({"format": "x"}, dtype=object))
    for name in ("cut.npz", "text.npz", "other.npz", "objects.npz"):
        with pytest.raises(GraphError, match=f"{name}: not a golden file"):
            load_golden(tmp_path / name)
    with pytest.raises(GraphError, match="no such file; cisi-export writes it"):
        load_golden(tmp_path / "missing.npz")


@pytest.mark.parametrize("name", ["best.onnx", "best.fp16.onnx", "best.int8.cpu.onnx", "best.tensorrt.onnx"])
def test_all_graphs_of_a_checkpoint_share_a_golden_file(name: str) -> None:
    assert golden_path(Path("a") / name) == Path("a/best.golden.npz")


def test_dots_in_a_name_stay() -> None:
    assert golden_path(Path("cisi-v1.2.fp16.onnx")) == Path("cisi-v1.2.golden.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"hole_mask": np.ones((2, 8, 9), dtype=np.bool_), "completed": np.zeros((2, 3, 8, 9), dtype=np.float32)},
        {"image": np.zeros((2, 8, 8, 3), dtype=np.int16)},
        {"kind": "other"},
        {"completed": np.full((2, 3, 8, 8), np.nan, dtype=np.float32)},
    ],
    ids=["shape", "type", "kind", "NaN"],
)
def test_cases_that_are_not_as_they_should_be_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    save_golden(tmp_path / "g.npz", Golden("abc", (dataclasses.replace(case("one"), **change),)))
    with pytest.raises(GraphError, match=r"g.npz: not a golden file, or damaged: case one"):
        load_golden(tmp_path / "g.npz")


def test_a_file_of_the_same_cases_is_kept_for_the_graphs_that_name_it(tmp_path: Path) -> None:
    path, golden = tmp_path / "g.npz", Golden("abc", (case("one"),))
    save_golden(path, golden)
    before = path.read_bytes()
    rounded = dataclasses.replace(case("one"), completed=case("one").completed + np.float32(3e-7))
    assert save_golden(path, Golden("abc", (rounded,))).sha256 == golden.sha256
    assert path.read_bytes() == before
    other = dataclasses.replace(case("one"), completed=case("one").completed + np.float32(1e-4))
    less_exact = dataclasses.replace(other, float32_error=1e-3)
    for replaced in (Golden("abc", (other,)), Golden("abc", (less_exact,)), Golden("abd", (other, case("two")))):
        assert save_golden(path, replaced).sha256 == replaced.sha256 == load_golden(path).sha256
    before = path.read_bytes()
    # Another number of cases, and cases of the same names with another picture: of an export for another size.
    image = other.image.copy()
    image[0, 0, 0] ^= 1
    another_picture = dataclasses.replace(other, image=image)
    for cases in ((other,), (another_picture, case("two"))):
        with pytest.raises(GraphError, match="holds other cases of the same weights, for graphs of other sizes"):
            save_golden(path, Golden("abd", cases))
    assert path.read_bytes() == before


def test_the_hash_covers_everything(tmp_path: Path) -> None:
    golden, first = Golden("abc", (case("one"), case("two"))), case("one")
    image, fill = first.image.copy(), first.completed.copy()
    image[0, 0, 0] ^= 1
    fill[np.nonzero(np.broadcast_to(first.hole_mask[:, None], fill.shape))] += np.float32(1e-6)
    others = [
        dataclasses.replace(golden, weights_sha256="abd"),
        dataclasses.replace(golden, cases=golden.cases[:1]),
        *(
            dataclasses.replace(golden, cases=(dataclasses.replace(first, **change), golden.cases[1]))
            for change in ({"image": image}, {"completed": fill}, {"kind": "flat"}, {"float32_error": 2e-6})
        ),
    ]
    assert len({golden.sha256, *(other.sha256 for other in others)}) == 7
    save_golden(tmp_path / "g.npz", golden)
    assert load_golden(tmp_path / "g.npz").sha256 == golden.sha256


def test_an_archive_that_unpacks_to_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.npy", bytes(50_000_000))
    with pytest.raises(GraphError, match="would unpack to 150000000 bytes"):
        load_golden(path)


def test_a_file_of_before_says_what_to_do(tmp_path: Path) -> None:
    np.savez(tmp_path / "old.npz", header=np.array('{"format": "cisi-net golden file", "cases": {}}'))
    with pytest.raises(GraphError, match="before revision 2; export the graph again"):
        load_golden(tmp_path / "old.npz")
