"""Which mask belongs to which photograph, and which folders cannot be."""

from pathlib import Path
from typing import Any

import pytest

from cisi_runtime.batch.folder import plan_folder
from cisi_runtime.batch.job import Job
from cisi_runtime.errors import DataError, OutputError
from tests.support.folder_runs import touch


def plan(photographs: Path, masks: Path | None, output: Path) -> tuple[list[Any], list[str]]:
    """Jobs, and a line for each photograph that cannot be done."""
    with plan_folder(photographs, masks, output, overwrite=True) as planned:
        return list(planned.jobs()), [reason for _, reason in planned.refusals()]


def planned(folder: Path, masks: str | None) -> tuple[dict[str, str | None], list[str]]:
    jobs, faults = plan(folder / "p", folder / masks if masks else None, folder / "out")
    names = {
        job.image.relative_to(folder / "p").as_posix(): job.mask and job.mask.relative_to(folder).as_posix()
        for job in jobs
    }
    assert all(job.output == folder / "out" / job.image.relative_to(folder / "p") for job in jobs)
    return names, faults


def test_masks_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "p/a.jpg", "p/b.png", "p/c/a.jpg", "p/notes.txt", "p/.hidden.jpg", "p/twice.jpg", "p/none.jpg")
    touch(tmp_path, "m/a.png", "m/b.mask.webp", "m/c/a.bmp", "m/twice.png", "m/twice.tif", "m/other.png")
    names, faults = planned(tmp_path, "m")
    assert names == {"a.jpg": "m/a.png", "b.png": "m/b.mask.webp", "c/a.jpg": "m/c/a.bmp"}
    assert len(faults) == 2
    assert "none.jpg: expected one mask of this name in" in faults[0]
    assert "found none" in faults[0]
    assert "twice.jpg: expected one mask" in faults[1]
    assert "found 2" in faults[1]
    assert planned(tmp_path, None)[0]["a.jpg"] is None
    assert set(planned(tmp_path, "m/other.png")[0].values()) == {"m/other.png"}


def test_masks_and_results_inside_the_folder_of_photographs(tmp_path: Path) -> None:
    touch(tmp_path, "p/a.jpg", "p/a.mask.png", "p/masks/a.png", "p/out/a.jpg")
    jobs, faults = plan(tmp_path / "p", tmp_path / "p" / "masks", tmp_path / "p" / "out")
    assert [job.image.name for job in jobs] == ["a.jpg"]
    assert len(faults) == 1
    assert "a.mask.png: expected one mask" in faults[0]  # a photograph like any other, where masks are elsewhere
    (tmp_path / "p/masks/a.png").unlink()
    jobs, faults = plan(tmp_path / "p", tmp_path / "p", tmp_path / "p" / "out")
    assert faults == []
    assert jobs == [Job(tmp_path / "p/a.jpg", tmp_path / "p/a.mask.png", tmp_path / "p/out/a.jpg")]


def test_folders_above_hidden_ones_and_names_that_end_like_masks(tmp_path: Path) -> None:
    touch(
        tmp_path, "p/a.jpg", "p/.thumbnails/a.jpg", "p/album.png/b.jpg", "p/x.mask.jpg", "m/a.png", "m/album.png/b.png"
    )
    touch(tmp_path, "m/x.mask.png")
    names, faults = planned(tmp_path, "m")
    assert names == {"a.jpg": "m/a.png", "album.png/b.jpg": "m/album.png/b.png", "x.mask.jpg": "m/x.mask.png"}
    assert faults == []
    jobs, _ = plan(tmp_path / "p", tmp_path / "m", tmp_path)  # a folder above is no reason to find nothing
    assert len(jobs) == 3


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    touch(tmp_path, "p/a.jpg", "file", "empty/x.txt")
    with pytest.raises(OutputError, match="is the folder of the photographs, expected another"):
        plan(tmp_path / "p", None, tmp_path / "p")
    touch(tmp_path, "m/a.png")
    with pytest.raises(OutputError, match="is the folder of the masks, expected another"):
        plan(tmp_path / "p", tmp_path / "m", tmp_path / "m")
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        plan(tmp_path / "p", None, tmp_path / "file")
    with pytest.raises(DataError, match="no photographs found"):
        plan(tmp_path / "empty", None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_inside_the_masks_are_no_masks(tmp_path: Path) -> None:
    touch(tmp_path, "p/out/a.jpg", "p/b.jpg", "m/out/a.png", "m/b.png", "m/out/b.png")
    jobs, faults = plan(tmp_path / "p", tmp_path / "m", tmp_path / "m" / "out")
    assert [job.mask for job in jobs] == [tmp_path / "m" / "b.png"]
    assert "out/a.jpg: expected one mask of this name" in faults[0]
