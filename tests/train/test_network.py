import pytest
import torch
from torch import Tensor

from cisi_runtime.architecture import PRESETS
from cisi_train.checkpoint import load_checkpoint
from cisi_train.network import Discriminator, Generator, corrupt
from cisi_train.network.encoders import known_region_mean
from cisi_train.network.layers import AdaptiveNorm, Normalise


@pytest.fixture(scope="module")
def generator(tiny_checkpoint_path: object) -> Generator:
    return load_checkpoint(tiny_checkpoint_path).generator().double()  # type: ignore[arg-type]


def inputs(batch: int, height: int = 128, width: int = 160) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(4)
    image = torch.rand(batch, 3, height, width, generator=rng, dtype=torch.float64) * 2 - 1
    mask = (torch.rand(batch, 1, height // 16, width // 16, generator=rng) < 0.3).double()
    return image, mask.repeat_interleave(16, 2).repeat_interleave(16, 3)


@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_of_every_preset(preset: str) -> None:
    architecture = PRESETS[preset]
    with torch.device("meta"):
        network = Generator(architecture)
        image, corrupted = torch.empty(2, 3, 256, 192), torch.empty(2, 4, 256, 192)
        content_shape = (2, 4 * architecture.dim, 64, 48)
        assert network.self_content(image).shape == content_shape
        assert network.inferred_content(corrupted).shape == content_shape
        assert network.style(corrupted).shape == (2, 8)
        assert network.decoder(torch.empty(content_shape), torch.empty(2, 8)).shape == image.shape


def test_the_size_of_preset_paper() -> None:
    with torch.device("meta"):
        network = Generator(PRESETS["paper"])
    at_inference = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("self_content"))
    assert 14.5e6 < at_inference < 16e6


def test_known_pixels_are_untouched_and_the_hole_is_in_range(generator: Generator) -> None:
    image, mask = inputs(2)
    with torch.no_grad():
        completed = generator.inpaint(image, mask)
    hole = (mask > 0).expand_as(image)
    assert torch.equal(completed[~hole], image[~hole])
    assert completed.abs().max() <= 1.0
    assert completed[hole].std() > 0.1  # the test weights do render something


def test_what_lies_under_the_hole_has_no_influence(generator: Generator) -> None:
    image, mask = inputs(2)
    other = torch.where(mask > 0, torch.full_like(image, float("nan")), image)
    with torch.no_grad():
        assert torch.equal(generator(image, mask), generator(other, mask))


def test_a_batch_is_its_pictures_one_by_one(generator: Generator) -> None:
    image, mask = inputs(2)
    with torch.no_grad():
        both = generator(image, mask)
        for index in range(2):
            one = generator(image[index : index + 1], mask[index : index + 1])
            assert (both[index] - one[0]).abs().max() < 1e-12


def test_every_dilation_matters(generator: Generator) -> None:
    image, mask = inputs(1)
    with torch.no_grad():
        before = generator.inferred_content(corrupt(image, mask))
        for block in generator.inferred_content.blocks:
            dilation = block.conv1.dilation
            block.conv1.dilation = block.conv1.padding = (1, 1)
            changed = generator.inferred_content(corrupt(image, mask))
            block.conv1.dilation = block.conv1.padding = dilation
            assert (before - changed).abs().mean() > 0.01


def test_normalise_and_adain_by_hand() -> None:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64) * 5 + 2
    gamma, beta = torch.randn(2, 3).double(), torch.randn(2, 3).double()
    mean = x.mean(dim=(2, 3), keepdim=True)
    deviation = (x.var(dim=(2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    expected = (x - mean) / deviation
    assert (Normalise()(x) - expected).abs().max() < 1e-12
    styled = expected * gamma[:, :, None, None] + beta[:, :, None, None]
    assert (AdaptiveNorm()(x, gamma, beta) - styled).abs().max() < 1e-12


def test_half_precision_statistics_are_made_in_float32() -> None:
    x = (torch.randn(1, 2, 16, 16) * 3 + 400).half()  # x squared overflows float16
    assert Normalise()(x).dtype == torch.float32
    assert torch.isfinite(Normalise()(x)).all()


def test_known_region_mean_by_hand() -> None:
    features = torch.arange(4.0).reshape(1, 1, 2, 2).repeat(3, 1, 1, 1).requires_grad_()
    mask = torch.zeros(3, 1, 32, 32)
    mask[1, 0, :16, :16] = 1.0  # the first cell unknown
    mask[1, 0, 16:, :8] = 1.0  # the third cell half known
    mask[2] = 1.0  # nothing known: every cell weighs 1
    mean = known_region_mean(features, mask)
    assert mean[:, 0].tolist() == pytest.approx([1.5, (1 + 0.5 * 2 + 3) / 2.5, 1.5])
    mean.sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_discriminator_maps_and_hole_patches() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(PRESETS["tiny"]).double()
    image = torch.rand(2, 3, 128, 160, dtype=torch.float64) * 2 - 1
    mask = torch.zeros(2, 1, 128, 160, dtype=torch.float64)
    mask[0, 0, 40:44, 90:93] = 1.0
    with torch.no_grad():
        before = discriminator(image)
        after = discriminator(torch.where(mask > 0, -image, image))
    assert [tuple(scale.shape) for scale in before] == [(2, 1, 8, 10), (2, 1, 4, 5), (2, 1, 2, 2)]
    patches = discriminator.hole_patches(mask)
    for scale, other, patch in zip(before, after, patches, strict=True):
        # A patch overlaps the hole exactly where changing the hole changes the patch.
        assert torch.equal(patch, scale != other)
        assert patch[0].any()
        assert not patch[1].any()
