from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cisi_runtime.errors import WeightsError
from cisi_train import published
from cisi_train.published import fetch
from cisi_train.vgg import feature_masks, fetch_notice, load_vgg
from tests.support.networks import SHARED_DATA
from tests.support.published_weights import write_vgg


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vgg{suffix}"
    weights = write_vgg(path)
    vgg = load_vgg(path)
    assert all(torch.equal(value, weights[name]) for name, value in vgg.state_dict().items())
    assert not any(parameter.requires_grad for parameter in vgg.parameters())
    image = torch.rand(2, 3, 32, 48) * 2 - 1
    assert [tuple(layer.shape) for layer in vgg(image)] == [(2, 64, 16, 24), (2, 128, 8, 12), (2, 256, 4, 6)]


def test_the_first_stage_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "vgg.npz"
    weights = write_vgg(path)
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    x = ((image + 1) / 2 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    for number in (0, 2):
        x = F.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1).relu()
    assert torch.allclose(load_vgg(path)(image)[0], F.max_pool2d(x, 2), atol=1e-6)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the published weights in ../shared/data")
def test_published_weights_see_edges() -> None:
    vgg = load_vgg(SHARED_DATA / "weights" / "vgg16_through_conv3_3.npz")
    flat = torch.zeros(1, 3, 32, 32)
    edge = flat.clone()
    edge[..., 16:] = 1.0
    inner = np.s_[..., 2:-2, 2:-2]  # away from the zero padding
    assert vgg(flat)[0][inner].std(dim=(2, 3)).max() < 1e-5
    assert vgg(edge)[0][inner].std(dim=(2, 3)).max() > 0.5


def test_bad_files_of_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="missing.npz: no such file"):
        load_vgg(tmp_path / "missing.npz")
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(WeightsError, match="text.pth: cannot be read as weights"):
        load_vgg(tmp_path / "text.pth")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(WeightsError, match="text.npz: cannot be read as weights"):
        load_vgg(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", **{"features.0.weight": np.zeros((64, 3, 5, 5))})
    with pytest.raises(WeightsError, match=r"features.0.weight has shape \(64, 3, 5, 5\), expected \(64, 3, 3, 3\)"):
        load_vgg(tmp_path / "other.npz")


def test_fetching_checks_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    source = tmp_path / "weights.pth"
    source.write_bytes(b"published")
    digest = published.hashlib.sha256(b"published").hexdigest()
    with pytest.raises(WeightsError, match="cannot be fetched: .*; expected a connection, or --file"):
        fetch(source.as_uri(), "0" * 8, instead="--file")
    assert not list((tmp_path / "cache").rglob("*.pth"))
    path = fetch(source.as_uri(), digest[:8], instead="--file")
    assert path.read_bytes() == b"published"
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="expected .*; removed, try again"):
        fetch(source.as_uri(), digest[:8], instead="--file")
    assert not path.exists()


def test_what_has_been_fetched_is_not_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    notice = fetch_notice()
    assert notice is not None
    assert str(tmp_path / "cisi-net" / "vgg16-397923af.pth") in notice
    (tmp_path / "cisi-net").mkdir()
    (tmp_path / "cisi-net" / "vgg16-397923af.pth").write_bytes(b"")
    assert fetch_notice() is None


def test_feature_masks_by_hand() -> None:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1.0
    pool1, pool2, pool3 = feature_masks(mask)
    assert [tuple(layer.shape[2:]) for layer in (pool1, pool2, pool3)] == [(16, 16), (8, 8), (4, 4)]
    # Two 3x3 box filters soften the edge over two pixels; above one half lies the hole itself, and the pooling keeps
    # the larger of two: cells 4 to 11 of pool1 and no other.
    expected = torch.zeros(16, 16)
    expected[4:12, 4:12] = 1.0
    corners = [(4, 4), (4, 11), (11, 4), (11, 11)]
    difference = {tuple(cell) for cell in (pool1[0, 0] != expected).nonzero().tolist()}
    assert difference <= set(corners)
    assert pool2[0, 0, 3:5, 3:5].all()
    assert not pool2[0, 0, 0].any()
    assert pool3[0, 0, 1:3, 1:3].all()
    assert not feature_masks(torch.zeros_like(mask))[2].any()
    one_pixel = torch.zeros_like(mask)
    one_pixel[..., 16, 16] = 1.0
    assert not feature_masks(one_pixel)[0].any()
