from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cisi_runtime.codec import decode_pixels
from cisi_runtime.errors import DataError
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.resizing import resize_short_side
from cisi_runtime.pictures.writing import write_picture
from cisi_train.data import TrainingSamples, decode_batch, held_out_pictures, open_folder
from cisi_train.scene_categories import of_categories


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
    one = open_folder(tmp_path)
    write_picture(tmp_path / "b.png", Picture(pixels))
    two = open_folder(tmp_path)
    assert two.files_sha256 != one.files_sha256
    assert two.names_sha256 != one.names_sha256


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
    crop, pair = samples[5]
    assert (crop.shape, crop.dtype) == ((64, 64, 3), torch.uint8)
    assert (pair.shape, pair.dtype) == ((2, 64, 64), torch.bool)
    assert not torch.equal(pair[0], pair[1])
    image, holes = decode_batch(crop[None], pair[None], torch.device("cpu"))
    assert np.array_equal(image.numpy()[0], decode_pixels(crop.numpy()))
    assert holes.shape == (1, 2, 1, 64, 64)
    assert set(holes.unique().tolist()) == {0.0, 1.0}


def test_a_sample_of_a_long_thin_picture(tmp_path: Path) -> None:
    write_picture(tmp_path / "p.png", Picture(np.random.default_rng(0).integers(0, 256, (2, 6000, 3), dtype=np.uint8)))
    samples = TrainingSamples((tmp_path / "p.png",), 64, 3)
    crops = [samples[number][0] for number in range(3)]
    assert {crop.shape for crop in crops} == {(64, 64, 3)}
    assert not torch.equal(crops[0], crops[1])
    assert torch.equal(crops[0], samples[0][0])


def test_kinds_of_holes(photo_folder: Path) -> None:
    paths = open_folder(photo_folder).training
    _, centre = TrainingSamples(paths, 64, 3, "centre")[5]
    assert np.array_equal(centre[0].numpy(), centre_hole(64, 64))
    assert not np.array_equal(centre[1].numpy(), centre_hole(64, 64))
    rectangles, strokes = (TrainingSamples(paths, 64, 3, kind)[5][1] for kind in ("rectangles", "strokes"))
    assert not torch.equal(rectangles, strokes)


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


def test_colours_of_every_other_crop_change_places(photo_folder: Path) -> None:
    paths = open_folder(photo_folder).training
    plain, permuted = TrainingSamples(paths, 64, 3), TrainingSamples(paths, 64, 3, permute_colours=True)
    changed = 0
    for number in range(48):
        (crop, holes), (other, other_holes) = plain[number], permuted[number]
        assert torch.equal(holes, other_holes)
        assert torch.equal(crop.sort(dim=2).values, other.sort(dim=2).values)
        assert torch.equal(other, permuted[number][0])
        changed += not torch.equal(crop, other)
    # Half of the crops, of which one in six keeps its order: 20 of 48 expected, standard deviation 3.4.
    assert 8 <= changed <= 32


def test_zoom_enlarges_by_factors_up_to_it(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(0, 256, dtype=np.uint8)[:, None, None], (256, 256, 3))
    write_picture(tmp_path / "ramp.png", Picture(ramp))
    paths = open_folder(tmp_path).training

    def levels_per_pixel(samples: TrainingSamples, number: int) -> float:
        column = samples[number][0][:, 0, 0].double()
        return float(column[-1] - column[0]) / (len(column) - 1)

    plain, zoomed = TrainingSamples(paths, 128, 3), TrainingSamples(paths, 128, 3, zoom=2.0)
    usual = 256 / 143  # short side resized to 143 for crops of 128
    factors = [usual / levels_per_pixel(zoomed, number) for number in range(64)]
    assert all(usual / levels_per_pixel(plain, number) == pytest.approx(1.0, abs=0.02) for number in range(8))
    # Rounding to whole levels changes a factor by at most 1 / (127 * 0.9), less than 0.01.
    assert 0.98 <= min(factors) < 1.2
    assert 1.8 < max(factors) <= 2.02
    # A uniform distribution has its mean in the middle: 1.5, standard error 0.036.
    assert np.mean(factors) == pytest.approx(1.5, abs=0.15)
    assert torch.equal(zoomed[5][0], TrainingSamples(paths, 128, 3, zoom=2.0)[5][0])
    # Without zoom a sample draws its crop first, as it always has: runs can be compared with those of before.
    rng = np.random.default_rng([3, 1, 5])
    top, left = rng.integers(0, 143 - 128 + 1, 2)
    usual_crop = resize_short_side(ramp, 143)[top : top + 128, left : left + 128]
    assert np.array_equal(plain[5][0].numpy(), usual_crop[:, ::-1] if rng.random() < 0.5 else usual_crop)


def test_an_epoch_has_every_picture_once(tmp_path: Path) -> None:
    for level in range(7):
        write_picture(tmp_path / f"{level}.png", Picture(np.full((64, 64, 3), 30 * level, dtype=np.uint8)))
    samples = TrainingSamples(open_folder(tmp_path).training, 64, 0)
    for epoch in range(3):
        seen = [int(samples[7 * epoch + n][0].unique().item()) for n in range(7)]
        assert sorted(seen) == [0, 30, 60, 90, 120, 150, 180]


def test_held_out_pictures_are_central(tmp_path: Path) -> None:
    wide = np.zeros((64, 128, 3), dtype=np.uint8)
    wide[:, 32:96] = 200
    write_picture(tmp_path / "w.png", Picture(wide))
    crops = held_out_pictures((tmp_path / "w.png",), 64)
    assert crops.shape == (1, 64, 64, 3)
    assert (crops == 200).all()


def test_scene_categories_in_the_layouts_of_places365(tmp_path: Path) -> None:
    names = ["train/field-wild/1.jpg", "data_256/f/field/cultivated/2.jpg", "data_256/v/valley/3.jpg"]
    names += ["train/battlefield/4.jpg", "train/field_road/5.jpg", "train/synagogue-outdoor/6.jpg"]
    paths = [tmp_path / name for name in names]
    selected = of_categories(tmp_path, paths, ["field", "valley"])
    assert {path.name for path in selected} == {"1.jpg", "2.jpg", "3.jpg"}
    assert [path.name for path in of_categories(tmp_path, paths, ["synagogue"])] == ["6.jpg"]
    with pytest.raises(DataError, match="no pictures of category butte, tundra, expected folders of these names"):
        of_categories(tmp_path, paths, ["butte", "field", "tundra"])


def test_the_validation_list_of_places365(tmp_path: Path) -> None:
    (tmp_path / "places365_val.txt").write_text("val_1.jpg 152\nval_2.jpg 7\n")
    (tmp_path / "categories_places365.txt").write_text("/b/butte 7\n/f/field/wild 152\n")
    folder = tmp_path / "val_256"
    folder.mkdir()
    paths = [folder / "val_1.jpg", folder / "val_2.jpg"]
    assert of_categories(folder, paths, ["field"]) == paths[:1]
    assert of_categories(folder, paths, ["butte", "field"]) == paths


def test_a_folder_of_one_category(photo_folder: Path) -> None:
    below = open_folder(photo_folder, ["below"])
    assert {path.parent.name for path in (*below.training, *below.held_out)} == {"below"}
    assert below.files_sha256 != open_folder(photo_folder).files_sha256


def test_every_kind_of_file_that_people_have(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(rng.integers(0, 65536, (90, 90)).astype(np.uint16)).save(tmp_path / "deep.png")
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    frames[0].save(tmp_path / "animated.webp", save_all=True, append_images=frames[1:], lossless=True)
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=3)
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.jpg")
    exif = Image.Exif()
    exif[274] = 6  # orientation: to be turned by 90 degrees
    Image.fromarray(rgb).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(rgb[:20, :30]).save(tmp_path / "small.png")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png")
    folder = open_folder(tmp_path)
    assert [path.name for path in folder.training] == ["grey.jpg", "palette.png", "small.png", "turned.jpg"]
    assert len(folder.unreadable) == 4
    for name, reason in {
        "animated.webp": "several frames",
        "cmyk.jpg": "CMYK",
        "deep.png": "more than 8 bits",
        "huge.png": "exceeds limit",
    }.items():
        (error,) = [error for error in folder.unreadable if name in error]
        assert reason in error
    samples = TrainingSamples(folder.training, 64, 0)
    assert all(samples[number][0].shape == (64, 64, 3) for number in range(8))
