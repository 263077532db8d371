from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cisi_runtime.errors import DataError
from cisi_runtime.pictures import Picture, write_picture
from cisi_train.data import TrainingSamples, held_out_pictures, open_folder


def test_a_folder_is_searched_below_and_split(photo_folder: Path) -> None:
    folder = open_folder(photo_folder)
    assert len(folder.training) == 18
    assert len(folder.held_out) == 2
    assert not set(folder.training) & set(folder.held_out)
    assert any(path.parent.name == "below" for path in folder.training)
    assert open_folder(photo_folder) == folder


def test_the_hash_follows_the_data(tmp_path: Path) -> None:
    pixels = np.zeros((70, 70, 3), dtype=np.uint8)
    write_picture(tmp_path / "a.png", Picture(pixels))
    one = open_folder(tmp_path).sha256
    write_picture(tmp_path / "b.png", Picture(pixels))
    assert open_folder(tmp_path).sha256 != one


def test_unreadable_pictures_are_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", Picture(np.zeros((70, 70, 3), dtype=np.uint8)))
    (tmp_path / "b.jpg").write_text("text")
    noise = np.random.default_rng(0).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    write_picture(tmp_path / "c.jpg", Picture(noise))
    (tmp_path / "c.jpg").write_bytes((tmp_path / "c.jpg").read_bytes()[:3000])  # the header is whole
    folder = open_folder(tmp_path)
    assert len(folder.training) == 1
    assert [name for name in ("b.jpg", "c.jpg") if any(name in error for error in folder.unreadable)] == [
        "b.jpg",
        "c.jpg",
    ]
    assert len(folder.report()) == 3


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_folder(tmp_path / "missing")
    with pytest.raises(DataError, match="no pictures found, expected .jpg"):
        open_folder(tmp_path)
    (tmp_path / "b.jpg").write_text("text")
    with pytest.raises(DataError, match="1 unreadable, the first: .*b.jpg"):
        open_folder(tmp_path)


def test_a_sample_is_what_it_says(photo_folder: Path) -> None:
    samples = TrainingSamples(open_folder(photo_folder).training, 64, 3)
    image, holes = samples[5]
    assert image.shape == (3, 64, 64)
    assert image.dtype == torch.float32
    assert -1.0 <= image.min() < image.max() <= 1.0
    assert holes.shape == (2, 1, 64, 64)
    assert set(holes.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(holes[0], holes[1])


def test_samples_depend_on_seed_and_number_alone(photo_folder: Path) -> None:
    paths = open_folder(photo_folder).training
    numbers = [[7, 8], [30, 2]]
    direct = [TrainingSamples(paths, 64, 3)[n] for batch in numbers for n in batch]
    loader = DataLoader(TrainingSamples(paths, 64, 3), batch_sampler=numbers, num_workers=2)
    loaded = [(image[i], holes[i]) for image, holes in loader for i in range(2)]
    for (image, holes), (other_image, other_holes) in zip(direct, loaded, strict=True):
        assert torch.equal(image, other_image)
        assert torch.equal(holes, other_holes)
    assert not torch.equal(TrainingSamples(paths, 64, 4)[7][0], direct[0][0])


def test_an_epoch_has_every_picture_once(tmp_path: Path) -> None:
    for level in range(7):
        write_picture(tmp_path / f"{level}.png", Picture(np.full((64, 64, 3), 30 * level, dtype=np.uint8)))
    samples = TrainingSamples(open_folder(tmp_path).training, 64, 0)
    for epoch in range(3):
        seen = [round((samples[7 * epoch + n][0].mean().item() + 1) * 127.5) for n in range(7)]
        assert sorted(seen) == [0, 30, 60, 90, 120, 150, 180]


def test_held_out_pictures_are_central(tmp_path: Path) -> None:
    wide = np.zeros((64, 128, 3), dtype=np.uint8)
    wide[:, 32:96] = 200
    write_picture(tmp_path / "w.png", Picture(wide))
    crops = held_out_pictures((tmp_path / "w.png",), 64)
    assert crops.shape == (1, 64, 64, 3)
    assert (crops == 200).all()
