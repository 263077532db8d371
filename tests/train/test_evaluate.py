from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cisi_runtime.errors import DataError
from cisi_runtime.masks import centre_hole
from cisi_train.cli_eval import evaluate as command
from cisi_train.evaluate import Method, checkpoint_method, evaluate, graph_method, mean_method, opencv_method
from tests.conftest import SHARED_DATA

# The centre-hole baselines that the data folder states: L1 %, PSNR dB, SSIM.
PARIS = {"mean": (17.54, 14.54, 0.285), "telea": (11.39, 16.36, 0.323), "ns": (11.57, 16.13, 0.317)}


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the evaluation photographs in ../shared/data")
@pytest.mark.parametrize("name", PARIS)
def test_baselines_are_those_of_the_data_folder(name: str) -> None:
    method: Method = mean_method if name == "mean" else opencv_method(name)
    result = evaluate(name, method, SHARED_DATA / "photos" / "eval" / "paris")
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


def test_mean_fill_by_hand() -> None:
    image = np.full((4, 4, 3), 10, dtype=np.uint8)
    image[0] = 20
    hole = np.zeros((4, 4), dtype=np.bool_)
    hole[3] = True
    assert (mean_method(image, hole)[3] == round((4 * 20 + 8 * 10) / 12)).all()


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures found"):
        evaluate("mean", mean_method, tmp_path)


def test_the_command(photo_folder: Path) -> None:
    result = CliRunner().invoke(command, ["--data", str(photo_folder), "--baseline", "mean", "--json"])
    assert result.exit_code == 0
    assert '"method": "mean", "pictures": 20' in result.output
    assert CliRunner().invoke(command, ["--data", str(photo_folder)]).exit_code == 2
