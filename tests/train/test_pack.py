from pathlib import Path

import numpy as np
import pytest

from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.reading import read_picture
from cisi_runtime.pictures.writing import write_picture
from cisi_train.cli_pack import main
from cisi_train.data import open_folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["cisi-pack", *map(str, arguments)])
    main()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for number in range(20):
        side = 100 if number else 70
        soft = np.add.outer(np.arange(side), 2 * np.arange(side + 20))[..., None] // 3 + rng.integers(0, 50, 3)
        picture = Picture(np.clip(soft, 0, 255).astype(np.uint8))
        write_picture(folder / ("below" if number % 2 else ".") / f"{number}.jpg", picture)
    return folder


def test_small_pictures_of_the_same_names(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "packed"
    run(monkeypatch, "--data", photos, "--out", out, "--short-side", 80)
    before, after = open_folder(photos), open_folder(out)
    assert [p.relative_to(photos) for p in before.held_out] == [p.relative_to(out) for p in after.held_out]
    assert [p.relative_to(photos) for p in before.training] == [p.relative_to(out) for p in after.training]
    # Other files, the same photographs: a run on the copies adds no data to the provenance of weights.
    assert after.files_sha256 != before.files_sha256
    assert after.names_sha256 == before.names_sha256
    assert read_picture(out / "below" / "1.jpg").size == (80, 96)
    assert read_picture(out / "0.jpg").size == (70, 90)  # smaller already
    existing = out / "2.jpg"
    existing.write_bytes(b"existing")
    run(monkeypatch, "--data", photos, "--out", out, "--short-side", 80)
    assert existing.read_bytes() == b"existing"


def test_bad_input(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "packed"
    (photos / "3.jpg").write_text("text")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--data", photos, "--out", out)
    assert stopped.value.code == 1
    errors = capsys.readouterr().err
    assert "3.jpg: not a picture" in errors
    assert errors.splitlines()[-1] == "cisi-pack: error: --data: 1 of 21 pictures could not be read"
    assert len(list(out.rglob("*.jpg"))) == 20  # all the others are done
    write_picture(photos / "4.png", read_picture(photos / "4.jpg"))
    with pytest.raises(SystemExit):
        run(monkeypatch, "--data", photos, "--out", tmp_path / "other")
    assert "several pictures would become 4.jpg" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
