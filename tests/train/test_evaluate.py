import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner

from cisi_runtime.backends.machine import processor_name
from cisi_runtime.errors import DataError
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.reading import read_picture
from cisi_train.checkpoint import load_checkpoint
from cisi_train.cli_eval import _labels, main
from cisi_train.cli_eval import evaluate as command
from cisi_train.evaluate import (
    HoleSet,
    Metrics,
    baseline_method,
    checkpoint_method,
    evaluate,
    graph_method,
    hole_sets,
    pictures_of,
)
from cisi_train.style import style_report
from tests.conftest import RunMain
from tests.support.networks import SHARED_DATA

# Of the evaluation photographs, centre hole: L1 %, PSNR dB, SSIM, measured when they were collected.
PARIS = {"mean": (17.54, 14.54, 0.285), "telea": (11.39, 16.36, 0.323), "ns": (11.57, 16.13, 0.317)}


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the evaluation photographs in ../shared/data")
@pytest.mark.parametrize("name", PARIS)
def test_baselines_of_the_evaluation_photographs(name: str) -> None:
    folder = SHARED_DATA / "photos" / "eval" / "paris"
    (centre,) = hole_sets("centre", 256)
    result = evaluate(name, baseline_method(name), folder, centre, Metrics())
    assert result.pictures == 22
    expected = PARIS[name]
    # The stated figures are rounded; the mean colour may be rounded or not before it is filled in.
    assert result.l1_percent == pytest.approx(expected[0], abs=0.011)
    assert result.psnr_db == pytest.approx(expected[1], abs=0.006)
    assert result.ssim == pytest.approx(expected[2], abs=0.0006)


def test_a_checkpoint_and_its_graph_are_one_method(tiny_checkpoint_path: Path, tiny_graph: Path) -> None:
    rng = np.random.default_rng(1)
    image, hole = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8), centre_hole(128, 128)
    ours, graph = checkpoint_method(tiny_checkpoint_path)(image, hole), graph_method(tiny_graph)(image, hole)
    assert (ours != graph).mean() < 1e-3
    assert np.array_equal(ours[~hole], image[~hole])


def test_small_holes_and_exact_fills_leave_the_means_finite(photo_folder: Path) -> None:
    """SSIM needs seven pixels, and the PSNR of an exact fill is infinite."""

    def mask(number: int) -> npt.NDArray[np.bool_]:
        hole = np.zeros((64, 64), dtype=np.bool_)
        hole[20:24, 20:24] = True
        if number % 2:
            hole[20:40, 20:40] = True
        return hole

    result = evaluate("exact", lambda image, _: image, photo_folder, HoleSet("mixed", mask), Metrics())
    assert result.ssim == pytest.approx(1.0)
    assert 60.0 < result.psnr_db < 120.0
    small = evaluate("exact", lambda image, _: image, photo_folder, HoleSet("small", lambda _: mask(0)), Metrics())
    assert np.isnan(small.ssim)


def test_names_tell_checkpoints_apart() -> None:
    one, other, same = Path("/a/x/best.pt"), Path("/a/y/best.pt"), Path("/a/x/best.pt")
    assert _labels([one, Path("c.onnx")]) == {one: "best.pt", Path("c.onnx"): "c.onnx"}
    assert _labels([one, same]) == {one: "best.pt"}
    assert _labels([one, other]) == {one: "x/best.pt", other: "y/best.pt"}
    third = Path("/b/x/best.pt")
    assert _labels([one, third]) == {one: "a/x/best.pt", third: "b/x/best.pt"}


def test_mean_fill_by_hand() -> None:
    image = np.full((4, 4, 3), 10, dtype=np.uint8)
    image[0] = 20
    hole = np.zeros((4, 4), dtype=np.bool_)
    hole[3] = True
    assert (baseline_method("mean")(image, hole)[3] == round((4 * 20 + 8 * 10) / 12)).all()


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures found"):
        evaluate("mean", baseline_method("mean"), tmp_path, hole_sets("centre", 256)[0], Metrics())


def test_masks_are_the_same_in_every_run_and_of_their_area() -> None:
    sets = hole_sets("strokes", 256)
    assert [holes.name for holes in sets] == [
        "strokes 1%-10%",
        "strokes 10%-20%",
        "strokes 20%-30%",
        "strokes 30%-40%",
        "strokes 40%-50%",
    ]
    for index, holes in enumerate(sets):
        masks = [holes.mask(number) for number in range(5)]
        assert all(max(0.01, 0.1 * index) < mask.mean() <= 0.1 * (index + 1) for mask in masks)
        assert np.array_equal(masks[3], holes.mask(3))
        assert not np.array_equal(masks[3], masks[4])
    (rectangles,) = hole_sets("rectangles", 256)
    assert np.array_equal(rectangles.mask(3), rectangles.mask(3))


def test_the_command(photo_folder: Path) -> None:
    arguments = ["--data", str(photo_folder), "--baseline", "mean", "--json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0
    line = json.loads(result.stdout)
    assert (line["method"], line["pictures"], line["holes"], line["lpips"]) == ("mean", 20, "centre", None)
    assert line["milliseconds"] > 0


def test_folders_methods_and_sheet(photo_folder: Path, tmp_path: Path, tiny_checkpoint_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ["--data", str(photo_folder), "--data", str(photo_folder / "below"), "--baseline", "telea"]
    arguments += ["--ckpt", str(tiny_checkpoint_path), "--sheet", str(sheet), "--holes", "rectangles", "--size", "64"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    blocks = [block.splitlines() for block in result.stdout.split("\n\n")]
    assert [block[0].split(", ")[0] for block in blocks] == [
        f"{photo_folder.parent.name}/{photo_folder.name}",
        f"{photo_folder.name}/below",
    ]
    assert [[line.split()[0] for line in block[2:]] for block in blocks] == [["telea", "tiny.pt"]] * 2
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert read_picture(sheet).rgb.shape[0] == 12 * 84 + 4


def test_as_cisi_run_does_it(photo_folder: Path, tiny_checkpoint_path: Path) -> None:
    arguments = ["--data", str(photo_folder / "below"), "--ckpt", str(tiny_checkpoint_path), "--size", "64", "--json"]
    result = CliRunner().invoke(command, [*arguments, "--run", str(tiny_checkpoint_path)], catch_exceptions=False)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["method"] for line in lines] == ["tiny.pt", "tiny.pt (blended)", "tiny.pt (detail)"]
    alone, blended, detailed = lines
    assert detailed["psnr_db"] != blended["psnr_db"]
    assert detailed["sharpness"] > 0.0
    assert blended["psnr_db"] > alone["psnr_db"] + 0.1  # random weights: colours from around the hole are a help


def test_a_collapsed_style_is_seen(photo_folder: Path, tiny_checkpoint_path: Path) -> None:
    generator = load_checkpoint(tiny_checkpoint_path).generator()
    paths = pictures_of(photo_folder)[:5]
    alive = style_report(generator, paths, 64)
    assert alive.pictures == 5
    assert min(alive.spread, alive.between, alive.within, alive.swap_levels) > 0
    with torch.no_grad():
        generator.style.to_code.weight.zero_()
    collapsed = style_report(generator, paths, 64)
    assert (collapsed.spread, collapsed.between, collapsed.within) == (0.0, 0.0, 0.0)
    assert collapsed.swap_levels == 0.0


def test_style_by_the_command(photo_folder: Path, tiny_checkpoint_path: Path) -> None:
    arguments = ["--data", str(photo_folder), "--ckpt", str(tiny_checkpoint_path), "--style", "--size", "64", "--json"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["pictures"] == 20


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "nothing to evaluate, expected --ckpt, --onnx, --run or --baseline"),
        (["--baseline", "mean", "--style"], 2, "--style looks into checkpoints"),
        (["--ckpt", "missing.pt", "--style", "--device", "cuda"], 2, "--style looks into checkpoints"),
        (["--baseline", "mean", "--size", "100"], 2, "--size: 100 is not a multiple of 16"),
        (["--run", "missing.onnx"], 1, "--run: missing.onnx: no such file"),
        (["--ckpt", "missing.pt"], 1, "--ckpt: missing.pt: no such file"),
        (["--baseline", "mean", "--lpips", "missing.npz"], 1, "--lpips: missing.npz: no such file"),
        (["--baseline", "mean", "--sheet", "sheet.gif"], 1, "--sheet: sheet.gif: unknown picture format"),
        (["--baseline", "mean", "--data", "missing"], 1, "--data: missing: no such folder"),
    ],
)
def test_bad_input(
    photo_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_main: RunMain,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    actual_status, _, errors = run_main(main, "--data", photo_folder, *arguments)
    assert actual_status == status
    assert message in errors.splitlines()[-1]


@pytest.mark.slow
def test_agreement_with_another_graph(photo_folder: Path, tiny_graphs: dict[tuple[str, str, str], Path]) -> None:
    half, full = tiny_graphs["float16", "tensorrt", "uint8"], tiny_graphs["float32", "cpu", "uint8"]
    arguments = ["--data", str(photo_folder / "below"), "--size", "64", "--onnx", str(half), "--baseline", "mean"]
    result = CliRunner().invoke(command, [*arguments, "--against", str(full), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    mean, emulated = (json.loads(line) for line in result.stdout.splitlines() if line.startswith("{"))
    # Emulated float16 of random weights: what parity measures too. Another method is nowhere near.
    assert 45.0 < emulated["against_db"] < 80.0
    assert mean["against_db"] < 30.0


def test_the_papers_table_says_what_is_published_and_what_is_measured(photo_folder: Path) -> None:
    arguments = ["--table1", "--data", str(photo_folder / "below"), "--baseline", "mean", "--baseline", "telea"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert lines[2].split() == ["GL", "(published)", "7.11", "%", "19.53", "dB", "0.49", "168", "ms"]
    assert [line.split()[0] for line in lines[2:7]] == ["GL", "GntIpt", "CISI-net", "mean", "telea"]
    assert lines[7].startswith("published: the paper's figures")
    assert lines[9].startswith(f"    {processor_name()}")
    assert "cores, ONNX Runtime " in lines[10]
    assert max(len(line) for line in lines if processor_name() not in line) <= 100
    report = json.loads(CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert [row["method"] for row in report["published"]] == ["GL", "GntIpt", "CISI-net"]
    folder = photo_folder / "below"
    alone = evaluate("telea", baseline_method("telea"), folder, hole_sets("centre", 256)[0], Metrics())
    assert report["centre"][1]["psnr_db"] == alone.psnr_db
    draws = [row["psnr_db"] for row in report["rectangles"][1]]
    assert len(set(draws)) == 5
    assert f"{np.mean(draws):.2f} ± {np.std(draws, ddof=1):.2f} dB" in lines[-1]


@pytest.mark.parametrize(
    "more", [("--holes", "strokes"), ("--size", "128"), ("--lpips", "x.npz"), ("--sheet", "x.png")]
)
def test_the_papers_table_has_holes_and_measures_of_its_own(
    run_main: RunMain, photo_folder: Path, more: tuple[str, ...]
) -> None:
    status, out, errors = run_main(main, "--table1", "--data", photo_folder, "--baseline", "mean", *more)
    assert (status, out) == (2, "")
    assert "--table1 has holes, size and measures of its own" in errors


def test_scene_categories_by_the_lists_of_places365(photo_folder: Path, tmp_path: Path) -> None:
    names = []
    for number, path in enumerate(sorted(photo_folder.glob("*.*"))[:4]):
        names.append(f"Places365_val_{number:08}{path.suffix}")
        shutil.copy(path, tmp_path / names[-1])
    (tmp_path / "categories_places365.txt").write_text("/b/butte 0\n/f/field/wild 1\n")
    (tmp_path / "places365_val.txt").write_text("".join(f"{name} {n % 2}\n" for n, name in enumerate(names)))
    arguments = ["--data", str(tmp_path), "--baseline", "mean", "--size", "64", "--json"]
    counts = []
    for categories in ([], ["--categories", "butte"], ["--categories", "butte, field"]):
        result = CliRunner().invoke(command, [*arguments, *categories], catch_exceptions=False)
        counts.append(json.loads(result.stdout)["pictures"])
    assert counts == [4, 2, 4]
    hint = "no pictures of category tundra, expected folders of these names, or places365_val.txt and categories_places"
    with pytest.raises(DataError, match=hint):
        CliRunner().invoke(command, [*arguments, "--categories", "tundra"], catch_exceptions=False)
