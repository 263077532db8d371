"""`cisi-run` for one photograph: results, errors, exit status, and what it loads."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.cli.group import main as group
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.reading import read_picture
from cisi_runtime.pictures.writing import write_picture
from tests.support.commands import run_in_process
from tests.support.folder_runs import cisi_run, cisi_run_alone
from tests.support.networks import PHOTOS

PROFILE = b"16 bytes before RGB a profile"


def failed(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """It failed with this status and one line that has these words."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith("cisi-run: error: ")
    for word in words:
        assert word in result.stderr


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """photo.png (90x70) and its mask.png in a folder of their own."""
    rng = np.random.default_rng(2)
    hole = np.zeros((70, 90), dtype=np.uint8)
    hole[20:50, 30:70] = 255
    write_picture(tmp_path / "photo.png", Picture(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)))
    Image.fromarray(hole).save(tmp_path / "mask.png")
    return tmp_path


def run_files(files: Path, model: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return cisi_run(files / "photo.png", "--mask", files / "mask.png", "-o", files / "out.png", "--model", model, *more)


def test_a_photograph_with_the_shipped_graph(tmp_path: Path) -> None:
    result = cisi_run_alone(
        PHOTOS / "balloon.jpg", "--mask", PHOTOS / "balloon.mask.png", "-o", "out.png", "--sheet", "s.png", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "out.png: 299x299, hole 7.1%" in result.stdout
    photo, out = read_picture(PHOTOS / "balloon.jpg").rgb, read_picture(tmp_path / "out.png").rgb
    hole = np.asarray(Image.open(PHOTOS / "balloon.mask.png"))
    assert np.array_equal(out[~hole], photo[~hole])
    assert (out[hole] != photo[hole]).mean() > 0.5
    original, shown_hole, network, completed = np.split(read_picture(tmp_path / "s.png").rgb[20:-4, 4:], 4, axis=1)
    assert np.array_equal(original[:, :-4], photo)
    assert (shown_hole[:, :-4][hole] == 128).all()
    assert np.array_equal(completed[:, :-4], out)
    assert (network[:, :-4] != out).any()


def test_no_detail_is_the_networks_own_fill(files: Path, tiny_graph: Path) -> None:
    result = run_files(files, tiny_graph, "--no-detail", "--sheet", files / "sheet.png")
    assert result.returncode == 0, result.stderr
    photo, out = read_picture(files / "photo.png").rgb, read_picture(files / "out.png").rgb
    with Inpainter(tiny_graph, detail=False) as inpaint:
        assert np.array_equal(inpaint(photo, np.asarray(Image.open(files / "mask.png")) > 0), out)
    assert read_picture(files / "sheet.png").rgb.shape == (78 + 16, 3 * 94 + 4, 3)
    assert run_files(files, tiny_graph).returncode == 0
    assert not np.array_equal(read_picture(files / "out.png").rgb, out)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_detail_of_grey_pictures_and_of_alpha(files: Path, tiny_graph: Path, mode: str) -> None:
    with Image.open(files / "photo.png") as picture:
        picture.convert(mode).save(files / "photo.png")
    assert run_files(files, tiny_graph, "--no-detail").returncode == 0
    smooth = np.asarray(Image.open(files / "out.png"))
    assert run_files(files, tiny_graph).returncode == 0
    with Image.open(files / "out.png") as out, Image.open(files / "photo.png") as photo:
        assert out.mode == mode
        hole = np.asarray(Image.open(files / "mask.png")) > 0
        assert np.array_equal(np.asarray(out)[~hole], np.asarray(photo)[~hole])
        assert (np.asarray(out)[hole] != smooth[hole]).any()


def test_verbose_says_where_a_hole_got_no_detail(files: Path, tiny_graph: Path) -> None:
    assert "detail" not in run_files(files, tiny_graph, "--verbose").stderr
    hole = np.zeros((70, 90), dtype=np.uint8)
    hole[20:23, 10:70] = 255
    Image.fromarray(hole).save(files / "mask.png")
    note = f"{files / 'photo.png'}: no detail in 1 of 1 windows: the hole is thin\n"
    assert note in run_files(files, tiny_graph, "--verbose").stderr
    assert "detail" not in run_files(files, tiny_graph).stderr


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (70, 90), (250, 130), (5, 300)])
def test_any_size_and_nothing_under_the_hole_matters(tiny_graph: Path, size: tuple[int, int]) -> None:
    from cisi_runtime.backends.ort import OnnxRuntimeBackend

    inpaint = Inpainter(OnnxRuntimeBackend(tiny_graph))
    rng = np.random.default_rng(0)
    image, other = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
    hole = rng.random(size) < 0.4
    hole[0, 0] = True
    completed = inpaint(image, hole)
    assert completed.shape == image.shape
    assert np.array_equal(completed[~hole], image[~hole])
    assert np.array_equal(inpaint(np.where(hole[..., None], other, image), hole), completed)


def test_alpha_and_profile_go_through(files: Path, tiny_graph: Path) -> None:
    photo = read_picture(files / "photo.png").rgb
    alpha = photo[..., 1].copy()
    write_picture(files / "photo.png", Picture(photo, alpha, PROFILE))
    assert run_files(files, tiny_graph).returncode == 0
    out = read_picture(files / "out.png")
    assert out.alpha is not None
    assert np.array_equal(out.alpha, alpha)
    assert out.icc_profile == PROFILE


def test_masks_inverted_grown_and_from_alpha(files: Path, tiny_graph: Path) -> None:
    photo = read_picture(files / "photo.png").rgb
    hole = np.zeros(photo.shape[:2], dtype=bool)
    hole[30:40, 30:50] = True
    Image.fromarray(np.where(hole, np.uint8(0), np.uint8(255))).save(files / "black.png")
    write_picture(files / "clear.png", Picture(photo, np.where(hole, np.uint8(3), np.uint8(250))))
    model = ("--model", tiny_graph, "-o", files / "out.png")

    def result(*arguments: object) -> Picture:
        done = cisi_run(*arguments, *model)
        assert done.returncode == 0, done.stderr
        return read_picture(files / "out.png")

    plain = result(files / "photo.png", "--mask", files / "black.png", "--invert-mask")
    assert np.array_equal(plain.rgb[~hole], photo[~hole])
    assert (plain.rgb[hole] != photo[hole]).any()
    from_alpha = result(files / "clear.png", "--mask-from-alpha")
    assert np.array_equal(from_alpha.rgb, plain.rgb)
    assert from_alpha.alpha is not None
    assert np.array_equal(from_alpha.alpha, np.where(hole, 255, 250))
    grown = np.zeros_like(hole)
    grown[27:43, 27:53] = True
    wider = result(files / "photo.png", "--mask", files / "black.png", "--invert-mask", "--dilate", 3)
    assert np.array_equal(wider.rgb[~grown], photo[~grown])
    assert (wider.rgb[grown & ~hole] != photo[grown & ~hole]).any()
    none = "expected a hole mask: --mask FILE, or --mask-from-alpha"
    failed(cisi_run(files / "photo.png", *model), 2, none)
    both = ("--mask", files / "black.png", "--mask-from-alpha")
    failed(cisi_run(files / "photo.png", *both, *model), 2, "--mask and --mask-from-alpha exclude each other")
    failed(cisi_run(files / "photo.png", "--mask-from-alpha", *model), 1, "photo.png: has no alpha channel")


def test_a_mask_that_is_nearly_all_hole_is_doubted(files: Path, tiny_graph: Path) -> None:
    inverted = ImageOps.invert(Image.open(files / "mask.png"))
    inverted.save(files / "mask.png")
    result = run_files(files, tiny_graph)
    assert result.returncode == 0
    assert "warning: " in result.stderr
    assert (
        "photo.png: more than three quarters of the picture is hole; is the mask the wrong way round" in result.stderr
    )
    assert "warning" not in run_files(files, tiny_graph, "--invert-mask").stderr
    folder = cisi_run(files / "photo.png", files / "mask.png", "--mask", files / "mask.png", "-o", files / "out")
    assert "warning: 2 of them: more than three quarters of the picture is hole" in folder.stderr
    several = (files / "photo.png", files / "mask.png", "--mask", files / "mask.png", "-o", files / "quiet", "-q")
    quiet = cisi_run(*several)
    assert (quiet.returncode, quiet.stdout) == (0, "")
    assert quiet.stderr.splitlines() == [line for line in quiet.stderr.splitlines() if line.startswith("warning: 2 of")]


def test_masks_that_a_shell_made_photographs_are_refused(files: Path) -> None:
    masks = files / "masks"
    masks.mkdir()
    for name in "ab":
        shutil.copy(files / "mask.png", masks / f"{name}.png")
    expanded = cisi_run(files / "photo.png", "--mask", masks / "a.png", masks / "b.png", "-o", files / "out")
    failed(expanded, 2, "b.png lies beside the mask", "expected a folder as --mask")
    assert not (files / "out").exists()


def test_a_folder_for_several_is_not_named_like_a_picture(files: Path) -> None:
    several = cisi_run(files / "photo.png", files / "mask.png", "--mask", files / "mask.png", "-o", files / "out.png")
    failed(several, 2, "out.png: expected a folder, because there are several photographs")


def test_a_mask_without_a_hole_copies_and_says_so(files: Path, tiny_graph: Path) -> None:
    Image.new("L", (90, 70), 0).save(files / "mask.png")
    result = run_files(files, tiny_graph)
    assert result.returncode == 0
    assert "the mask has no hole: the picture is copied as it is" in result.stdout
    assert (files / "out.png").read_bytes() == (files / "photo.png").read_bytes()
    arguments = (files / "photo.png", "--mask", files / "mask.png", "-o", files / "out.bmp")
    assert "the picture is only converted to BMP" in cisi_run(*arguments).stdout
    assert np.array_equal(read_picture(files / "out.bmp").rgb, read_picture(files / "photo.png").rgb)
    # A lossy format changes pixels, also where there is nothing to fill, and not every format takes everything.
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a title")
    with Image.open(files / "photo.png") as photo:
        photo.save(files / "photo.png", pnginfo=text)
    converted = cisi_run(*arguments[:3], "-o", files / "out.jpg").stdout
    assert re.search(r"converted to JPEG, which changed pixels by at most \d+ of 255, not kept: text\n", converted)


def test_the_sheet_is_another_file_than_the_result(files: Path, tiny_graph: Path) -> None:
    (files / "folder").mkdir()
    for output, sheet in (
        (files / "folder", files / "folder" / "photo.png"),
        (files / "o.png", files / "folder" / ".." / "o.png"),
    ):
        arguments = ("--mask", files / "mask.png", "-o", output, "--sheet", sheet, "--model", tiny_graph)
        failed(cisi_run(files / "photo.png", *arguments), 2, "--sheet and --output name the same file")
        assert not sheet.exists()


def test_a_name_that_stdout_cannot_encode(files: Path, tiny_graph: Path) -> None:
    output = files / os.fsdecode(b"b\xff.png")
    result = cisi_run_alone(
        *(files / "photo.png", "--mask", files / "mask.png", "-o", output, "--model", tiny_graph),
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert (result.returncode, result.stderr.count("Traceback")) == (0, 0)
    assert r"b\udcff.png: 90x70" in result.stdout
    assert output.exists()


def test_an_empty_argument_is_not_this_folder(files: Path, tiny_graph: Path) -> None:
    for empty in ("IMAGE", "--output"):
        image, output = ("", "out") if empty == "IMAGE" else (files / "photo.png", "")
        arguments = (image, "--mask", files / "mask.png", "-o", output, "--model", tiny_graph)
        result = cisi_run(*arguments, cwd=files)
        assert result.returncode != 0
        assert "expected a path or an address; the current folder is ." in result.stderr
    assert {path.name for path in files.iterdir()} == {"photo.png", "mask.png"}


def test_a_mask_of_0_and_1_is_one_of_0_and_255(files: Path, tiny_graph: Path) -> None:
    assert run_files(files, tiny_graph).returncode == 0
    expected = (files / "out.png").read_bytes()
    hole = np.asarray(Image.open(files / "mask.png")) > 0
    Image.fromarray(hole.astype(np.uint8)).save(files / "mask.png")
    assert "hole 19.0%" in run_files(files, tiny_graph).stdout
    assert (files / "out.png").read_bytes() == expected
    Image.fromarray(np.where(hole, np.uint8(127), np.uint8(3))).save(files / "mask.png")
    failed(run_files(files, tiny_graph), 1, "--mask: ", "its brightest pixel is 127 of 255, expected white")


def test_a_folder_as_output_and_several_photographs(files: Path, tiny_graph: Path) -> None:
    out, masks = files / "out", files / "masks"
    out.mkdir()
    masks.mkdir()
    (files / "other.png").write_bytes((files / "photo.png").read_bytes())
    for name in ("photo.png", "other.mask.png"):
        (masks / name).write_bytes((files / "mask.png").read_bytes())
    assert run_files(files, tiny_graph).returncode == 0
    expected = (files / "out.png").read_bytes()
    photo, other = files / "photo.png", files / "other.png"
    model = ("--model", tiny_graph)
    assert cisi_run(photo, "--mask", files / "mask.png", "-o", out, *model).returncode == 0
    assert [path.name for path in out.iterdir()] == ["photo.png"]
    result = cisi_run(photo, other, "--mask", masks, "-o", out, *model)
    assert "1 written, 1 there already, 0 failed" in result.stdout
    assert (out / "photo.png").read_bytes() == (out / "other.png").read_bytes() == expected
    one_mask = cisi_run(photo, other, "--mask", files / "mask.png", "-o", files / "new", *model)
    assert "2 written" in one_mask.stdout
    (masks / "other.mask.png").unlink()
    missing = cisi_run(photo, other, "--mask", masks, "-o", files / "third", *model)
    assert missing.returncode == 1
    assert "other.png: expected one mask of this name in" in missing.stderr
    failed(cisi_run(photo, other, "-o", out), 2, "expected a hole mask: --mask FILE, or --mask-from-alpha")
    failed(cisi_run(photo, files, "--mask", masks, "-o", out), 2, "expected several photographs, or one folder")
    failed(cisi_run(photo, photo, "--mask", masks, "-o", out), 1, "photo.png: is the name of two photographs")
    failed(cisi_run(photo, other, "--mask", masks, "-o", files), 1, "is the folder of the photographs")
    failed(cisi_run(photo, "--mask", files / "mask.png", "-o", "none"), 1, "unknown picture format", "or a folder")


def test_what_becomes_opaque_fits_into_a_jpeg_file(files: Path, tiny_graph: Path) -> None:
    photo, hole = read_picture(files / "photo.png").rgb, np.asarray(Image.open(files / "mask.png")) > 0
    for known, status in ((255, 0), (200, 1)):
        write_picture(files / "clear.png", Picture(photo, np.where(hole, np.uint8(0), np.uint8(known))))
        result = cisi_run(files / "clear.png", "--mask-from-alpha", "-o", files / "out.jpg", "--model", tiny_graph)
        assert result.returncode == status, result.stderr
    assert "JPEG cannot hold the picture's alpha channel" in result.stderr
    assert Image.open(files / "out.jpg").mode == "RGB"


def test_it_loads_neither_torch_nor_onnx(files: Path, tiny_graph: Path) -> None:
    arguments = ["x", files / "photo.png", "--mask", files / "mask.png", "-o", files / "o.png", "--model", tiny_graph]
    code = (
        f"import sys; sys.argv = {[str(argument) for argument in arguments]!r}\n"
        "import cisi_runtime.cli.run as m; m.main()\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert not {'torch', 'onnx', 'scipy', 'cv2'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (files / "o.png").exists()


def test_usage_errors_exit_2(files: Path) -> None:
    failed(cisi_run(files / "photo.png", "-o", files / "out.png"), 2, "--mask")
    failed(cisi_run("--mask", files / "mask.png", "-o", files / "out.png"), 2, "IMAGE")
    failed(cisi_run("--surprise"), 2, "--surprise")
    failed(run_files(files, files / "g.onnx", "--sheet", files / "out.png"), 2, "--sheet and --output name the same")
    for model, more in (("g.engine", ()), ("g.onnx", ("--device", "cuda"))):
        result = run_files(files, files / model, "--threads", 4, *more)
        failed(result, 2, "--threads is for networks on the CPU, and this one runs on a GPU")


def test_larger_pictures_are_refused_until_they_are_allowed(files: Path, tiny_graph: Path) -> None:
    failed(
        run_files(files, tiny_graph, "--max-megapixels", 0.006),
        1,
        "IMAGE: ",
        "90x70 is 0.0063 megapixels, expected at most",
    )
    assert not (files / "out.png").exists()
    assert run_files(files, tiny_graph, "--max-megapixels", 0.0063).returncode == 0


def foreign_graph(path: Path) -> Path:
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", floats, [1])], [value("y", floats, [1])]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no image", ("IMAGE: ", "photo.png: no such file")),
        ("bad image", ("IMAGE: ", "photo.png: not a picture that can be read, expected JPEG")),
        ("no mask", ("--mask: ", "mask.png: no such file")),
        ("small mask", ("--mask: ", "mask is 10x20 pixels, expected 90x70 as the picture")),
        ("colour mask", ("--mask: ", "channels differ, expected a black and white mask")),
        ("no folder", ("--output: ", "does not exist")),
        ("output format", ("--output: ", "unknown picture format '.xyz', expected one of .jpg")),
        ("alpha to JPEG", ("--output: ", "JPEG cannot hold the picture's alpha channel")),
        ("no model", ("--model: ", "no.onnx: no such file")),
        ("foreign model", ("--model: ", "has no CISI-net contract, expected a graph written by cisi-export")),
        ("text model", ("--model: ", "is not an ONNX file")),
        ("bad sheet", ("--sheet: ", "unknown picture format")),
        ("long name", ("--output: ", "cannot be written")),
    ],
)
def test_bad_input(files: Path, tiny_graph: Path, fault: str, words: tuple[str, ...]) -> None:
    output, model, more = "out.png", tiny_graph, []
    if fault == "no image":
        (files / "photo.png").unlink()
    elif fault == "bad image":
        (files / "photo.png").write_text("text")
    elif fault == "no mask":
        (files / "mask.png").unlink()
    elif fault == "small mask":
        Image.new("L", (10, 20), 255).save(files / "mask.png")
    elif fault == "colour mask":
        (files / "mask.png").write_bytes((files / "photo.png").read_bytes())
    elif fault == "no folder":
        output = "none/out.png"
    elif fault == "output format":
        output = "out.xyz"
    elif fault == "alpha to JPEG":
        photo = read_picture(files / "photo.png").rgb
        write_picture(files / "photo.png", Picture(photo, photo[..., 0]))
        output = "out.jpg"
    elif fault == "no model":
        model = files / "no.onnx"
    elif fault == "foreign model":
        model = foreign_graph(files / "foreign.onnx")
    elif fault == "text model":
        model = files / "text.onnx"
        model.write_text("hello")
    elif fault == "long name":
        output = "n" * 300 + ".png"
    elif fault == "bad sheet":
        more = ["--sheet", files / "s.xyz"]
    before = sorted(files.rglob("*"))
    arguments = (files / "photo.png", "--mask", files / "mask.png", "-o", files / output, "--model", model)
    failed(cisi_run(*arguments, *more), 1, *words)
    assert sorted(files.rglob("*")) == before


def test_a_missing_backend_is_named_with_its_extra(files: Path) -> None:
    arguments = ["cisi-run", files / "photo.png", "--mask", files / "mask.png", "-o", files / "out.png"]
    code = f"import sys; sys.modules['onnxruntime'] = None; sys.argv = {[str(a) for a in arguments]!r}"
    program = f"{code}\nimport cisi_runtime.cli.run as m; m.main()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    failed(result, 1, "--backend: onnxruntime is not installed: pip install 'cisi-net[cpu]'")


def test_a_float16_graph_is_refused(files: Path, tiny_graphs: dict[tuple[str, str, str], Path]) -> None:
    result = run_files(files, tiny_graphs["float16", "tensorrt", "uint8"])
    failed(
        result,
        1,
        "--model: ",
        "holds float16, which ONNX Runtime's CPU kernels would silently run in float32",
        "expected a",
    )


def test_the_group_alone_shows_its_help() -> None:
    result = run_in_process(group)
    assert result.returncode == 2
    assert "\nCommands:\n" in result.stderr


def test_the_group_has_every_command() -> None:
    result = run_in_process(group, "--help")
    assert result.returncode == 0
    for command in ("run", "train", "eval", "export"):
        assert f"  {command} " in result.stdout


def test_the_shipped_graph_is_there() -> None:
    assert SHIPPED_GRAPH.is_file()


def test_precision_belongs_to_a_backend(files: Path, tiny_graph: Path) -> None:
    result = run_files(files, tiny_graph, "--precision", "bf16")
    failed(result, 1, "--backend: precision bf16: backend auto computes in what tiny.onnx holds", "--backend openvino")
    assert not (files / "out.png").exists()
