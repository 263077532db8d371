import pytest
import torch

from cisi_train.losses import latent_l1, weighted_l1


def test_weighted_l1_by_hand() -> None:
    image = torch.zeros(2, 3, 2, 2)
    generated = image.clone()
    generated[0, :, 0, 0] = 0.5  # in the hole: weight 5
    generated[0, :, 1, 1] = -0.25  # known: weight 1
    mask = torch.zeros(2, 1, 2, 2)
    mask[0, 0, 0, 0] = 1.0
    assert weighted_l1(generated, image, mask).item() == pytest.approx((5 * 0.5 + 0.25) / 4 / 2)
    assert weighted_l1(generated, image, torch.zeros_like(mask)).item() == pytest.approx(0.75 / 4 / 2)


def test_a_mean_over_images_of_means() -> None:
    generated, image = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    mask = (torch.rand(4, 1, 8, 8) < 0.5).float()
    halves = [weighted_l1(generated[i], image[i], mask[i]) for i in (slice(0, 2), slice(2, 4))]
    assert torch.stack(halves).mean().item() == pytest.approx(weighted_l1(generated, image, mask).item())


def test_latent_l1_by_hand_and_both_ends_get_gradients() -> None:
    code, target = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([[0.0, 4.0]], requires_grad=True)
    loss = latent_l1(code, target)
    assert loss.item() == 1.5
    loss.backward()
    assert code.grad is not None
    assert target.grad is not None
    assert code.grad.tolist() == [[0.5, -0.5]]
    assert target.grad.tolist() == [[-0.5, 0.5]]
