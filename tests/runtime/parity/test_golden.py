import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cisi_runtime.errors import GraphError
from cisi_runtime.parity.golden import Golden, GoldenCase, golden_path, load_golden, save_golden


def case(name: str) -> GoldenCase:
    rng = np.random.default_rng(0)
    return GoldenCase(
        name,
        "natural",
        rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8),
        rng.random((2, 8, 8)) < 0.5,
        rng.standard_normal((2, 3, 8, 8), dtype=np.float32),
    )


def test_round_trip(tmp_path: Path) -> None:
    save_golden(tmp_path / "g.npz", Golden("abc", (case("one"), case("two words"))))
    golden = load_golden(tmp_path / "g.npz")
    assert golden.weights_sha256 == "abc"
    assert [item.name for item in golden.cases] == ["one", "two words"]
    for array in ("image", "hole_mask", "completed"):
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


def test_cases_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_golden(tmp_path / "g.npz", Golden("abc", (dataclasses.replace(case("one"), hole_mask=np.ones((2, 8, 9))),)))
    with pytest.raises(GraphError, match=r"g.npz: not a golden file, or damaged: case one"):
        load_golden(tmp_path / "g.npz")
