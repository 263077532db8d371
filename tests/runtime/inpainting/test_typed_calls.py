"""What type checkers make of calls: mypy reads this file too (`modules` in pyproject.toml)."""

from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cisi_runtime import Inpainter, inpaint


def test_the_kind_of_the_result_is_known(tiny_graph: Path, tmp_path: Path) -> None:
    rgb, hole = np.zeros((64, 64, 3), dtype=np.uint8), np.zeros((64, 64), dtype=np.bool_)
    image, path = Image.fromarray(rgb), tmp_path / "photo.png"
    image.save(path)
    with Inpainter(tiny_graph, threads=1) as fill:
        array = assert_type(fill(rgb, hole), npt.NDArray[np.uint8])
        single = assert_type(fill(rgb.astype(np.float32), hole.astype(np.uint8)), npt.NDArray[np.float32])
        double = assert_type(fill(rgb.astype(np.float64), hole.astype(np.float64)), npt.NDArray[np.float64])
        batch = assert_type(fill(rgb[None], [hole]), npt.NDArray[np.uint8])
        of_image = assert_type(fill(image, Image.fromarray(hole)), Image.Image)
        of_path = assert_type(fill(path, hole), Image.Image)
        of_name = assert_type(fill(str(path), hole), Image.Image)
        arrays = assert_type(fill([rgb, rgb], hole), list[npt.NDArray[np.uint8]])
        images = assert_type(fill((image, image), [hole, hole]), list[Image.Image])
        paths = assert_type(fill([path, path], hole), list[Image.Image])
        with pytest.raises(TypeError):
            fill(3, hole)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="float32 or float64"):
            fill(rgb.astype(np.int64), hole)  # type: ignore[type-var]
        with pytest.raises(TypeError):
            fill(image, [hole])  # type: ignore[call-overload]
    one = assert_type(inpaint(rgb, hole, model=tiny_graph, threads=1), npt.NDArray[np.uint8])
    one_image = assert_type(inpaint(image, hole, model=tiny_graph, threads=1, detail=False), Image.Image)
    one_list = assert_type(inpaint([str(path)], [hole], model=tiny_graph, threads=1), list[Image.Image])
    dtypes = [result.dtype for result in (array, single, double, batch, arrays[0], one)]
    assert dtypes == [np.uint8, np.float32, np.float64, np.uint8, np.uint8, np.uint8]
    for result in (of_image, of_path, of_name, images[0], paths[0], one_image, one_list[0]):
        assert isinstance(result, Image.Image)
