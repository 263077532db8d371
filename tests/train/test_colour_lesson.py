"""Every objective must teach colour: scenes that differ in hue alone are filled with the right hues."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from cisi_runtime.architecture import PRESETS, Architecture
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.writing import write_picture
from cisi_train.checkpoint import load_checkpoint
from cisi_train.cli_train import train
from cisi_train.inpaint import inpaint_pixels
from cisi_train.losses import weighted_l1, weighted_psnr

UInt8Array = npt.NDArray[np.uint8]

# Of one brightness and contrast, so that grey levels tell nothing.
RED, GREEN, BLUE = (204, 51, 51), (51, 204, 51), (51, 51, 204)
SIZE = 64


def scene(one: tuple[int, int, int], other: tuple[int, int, int], *, down: bool) -> UInt8Array:
    """Half of a picture uint8 `[72, 72, 3]` in one colour, half in another, side by side or one above the other."""
    pixels = np.empty((72, 72, 3), np.uint8)
    pixels[:36], pixels[36:] = one, other
    return pixels if down else pixels.swapaxes(0, 1).copy()


# Training crops are mirrored at random and cut from anywhere, and their holes lie anywhere.
SCENES = {
    "red beside green": scene(RED, GREEN, down=False),
    "green beside red": scene(GREEN, RED, down=False),
    "sky over grass": scene(BLUE, GREEN, down=True),
    "red over blue": scene(RED, BLUE, down=True),
}
# Smaller than preset tiny: the lesson takes a fifth of the time.
NETWORK = Architecture(dim=4, mlp_dim=16, decoder_blocks=1, dilations=(4,), discriminator_scales=1)


def right_hues(data: Path, out: Path, *options: object) -> dict[str, float]:
    """Train on the scenes. For each the fraction of its centre hole that is filled with the right one of red, green and
    blue."""
    data.mkdir()
    for name, pixels in SCENES.items():
        write_picture(data / f"{name}.png", Picture(pixels))
    arguments = ["--data", data, "--out", out, "--preset", "tiny", "--size", SIZE, "--batch", 4, "--workers", 0]
    arguments += ["--no-perceptual", "--no-bf16", "--steps", 40, "--lr", 5e-3, "--seed", 1, "--threads", 1, *options]
    result = CliRunner().invoke(train, [str(word) for word in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    generator, hole = load_checkpoint(out / "averaged.pt").generator(), centre_hole(SIZE, SIZE)
    fractions = {}
    for name, pixels in SCENES.items():
        truth = pixels[4:-4, 4:-4]
        filled = inpaint_pixels(generator, truth, hole, torch.device("cpu"))
        fractions[name] = float((filled.argmax(axis=2) == truth.argmax(axis=2))[hole].mean())
    return fractions


@pytest.fixture(autouse=True)
def _small_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(PRESETS, "tiny", NETWORK)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--experiment", 1), ("--recipe", "ours"), ("--recipe", "paper")])
def test_the_right_hue_comes_back(tmp_path: Path, options: tuple[object, ...]) -> None:
    fractions = right_hues(tmp_path / "data", tmp_path / "out", *options)
    # The lowest of the four was 0.94 to 0.97 with this seed, with AVX-512 and AVX2, and 0.81 or more with four others
    # by Adam. A fill in one colour is 0.5 at best for each of the four.
    assert min(fractions.values()) > 0.7, fractions


@pytest.mark.slow
def test_an_objective_without_colour_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_grey(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda generated, image, *more: loss(generated.mean(1, keepdim=True), image.mean(1, keepdim=True), *more)

    for loss in (weighted_l1, weighted_psnr):
        monkeypatch.setattr(f"cisi_train.objective.{loss.__name__}", of_grey(loss))
    fractions = right_hues(tmp_path / "data", tmp_path / "out", "--experiment", 1)
    assert max(fractions.values()) < 0.6, fractions
