import json
import math
import sys
from pathlib import Path

import onnx
import pytest

from cisi_export.cli_info import main
from cisi_export.cost import cost_of
from cisi_runtime.architecture import PRESETS
from cisi_runtime.backends.graph import read_graph
from cisi_train.checkpoint import load_checkpoint, save_checkpoint

Graphs = dict[tuple[str, str, str], Path]


def test_arithmetic_by_hand(tiny_graph: Path) -> None:
    cost = cost_of(onnx.load(tiny_graph), read_graph(tiny_graph).contract, 64, 128)
    dim, pixels = PRESETS["tiny"].dim, 64 * 128
    encoder = 7 * 7 * 4 * dim * pixels  # multiply-adds
    encoder += 4 * 4 * dim * 2 * dim * pixels // 4 + 4 * 4 * 2 * dim * 4 * dim * pixels // 16
    encoder += 9 * 3 * 3 * (4 * dim) ** 2 * pixels // 16
    assert cost.flop_by_part["inferred-content encoder"] == 2 * encoder
    assert len(cost.convolutions) == 28
    assert {convolution.precision for convolution in cost.convolutions} == {"float32"}
    assert cost.largest_tensors[0][2] == 4 * dim * pixels


def convolution_flop(dim: int, pixels: int) -> float:
    """Of all convolutions of a square picture, by the widths of `Architecture` in terms of `dim`."""
    first = 2 * 7 * 7 * 4 * dim * pixels  # of ICE and of the style encoder
    ice = (16 * 2 * dim**2 / 4 + 16 * 8 * dim**2 / 16 + 9 * 9 * 16 * dim**2 / 16) * pixels
    style = (16 * 2 * dim**2 / 4 + 16 * 8 * dim**2 / 16 + 16 * 16 * dim**2 / 64 + 16 * 16 * dim**2 / 256) * pixels
    decoder = (8 * 9 * 16 * dim**2 / 16 + 9 * 4 * 8 * dim**2 / 16 + 9 * 4 * 2 * dim**2 / 4) * pixels
    # At half resolution, with a row and a column more than it has.
    output = 16 * 12 * 4 * dim * (math.isqrt(pixels) // 2 + 1) ** 2
    return 2 * (first + ice + style + decoder + output)


def test_all_parts_together_are_the_sum_of_the_convolutions(tiny_graph: Path) -> None:
    cost = cost_of(onnx.load(tiny_graph), read_graph(tiny_graph).contract, 256, 256)
    counted = sum(convolution.flop for convolution in cost.convolutions)
    assert counted == convolution_flop(PRESETS["tiny"].dim, 256 * 256)
    # The same widths at the paper's size: 126 GFLOP after folding.
    assert convolution_flop(PRESETS["paper"].dim, 256 * 256) / 1e9 == pytest.approx(126, abs=1)


def test_the_card(tiny_graphs: Graphs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_graphs["float16", "tensorrt", "uint8"]
    monkeypatch.setattr(sys, "argv", ["cisi-info", str(path)])
    main()
    card = capsys.readouterr().out
    for text in ("float16, tensorrt lowering", "28 convolutions float16", "made for tests", "GFLOP"):
        assert text in card
    assert "40 ReduceMean" not in card
    monkeypatch.setattr(sys, "argv", ["cisi-info", str(path), "--verbose"])
    main()
    verbose = capsys.readouterr().out
    for text in (*card.splitlines(), "40 ReduceMean", "decoder.to_rgb", "largest tensors of one picture"):
        assert text in verbose
    assert max(map(len, verbose.splitlines()[1:])) <= 100
    monkeypatch.setattr(sys, "argv", ["cisi-info", str(path), "--json"])
    main()
    report = json.loads(capsys.readouterr().out)
    assert report["contract"]["precision"] == "float16"
    assert report["flop"] == sum(report["flop_by_part"].values())
    assert report["fixed"] == {"batch": None, "height": None, "width": None}


def test_a_checkpoint(
    tiny_checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint_path)
    last = tmp_path / "last.pt"
    options = {"batch": 4, "steps": 7, "minutes": None}
    save_checkpoint(last, checkpoint.contract, checkpoint.weights, configuration=options, training={"step": 3})
    monkeypatch.setattr(sys, "argv", ["cisi-info", str(last)])
    main()
    card = capsys.readouterr().out
    for text in (
        *("MB, checkpoint, at step 3 of its run, can be resumed", "preset tiny, 7 steps on made for tests", "dim 8"),
        *(checkpoint.contract.weights_sha256, "options    batch 4, steps 7\n", f"cisi-export --ckpt {last}"),
    ):
        assert text in card
    monkeypatch.setattr(sys, "argv", ["cisi-info", str(last), "--json"])
    main()
    report = json.loads(capsys.readouterr().out)
    assert (report["step"], report["options"]) == (3, options)
    assert report["contract"]["provenance"]["preset"] == "tiny"
    monkeypatch.setattr(sys, "argv", ["cisi-info", str(tiny_checkpoint_path)])
    main()
    assert "checkpoint, weights alone" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.onnx", "GRAPH: missing.onnx: no such file"),
        ("text.onnx", "is not an ONNX file"),
        ("missing.pt", "GRAPH: missing.pt: no such file"),
    ],
)
def test_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.onnx").write_text("hello")
    monkeypatch.setattr(sys, "argv", ["cisi-info", name])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err
