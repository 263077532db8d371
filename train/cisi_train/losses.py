"""The losses, each a mean over images of per-image means, so that two processes give the gradients of one."""

from __future__ import annotations

from torch import Tensor

# Paper, section "Implementation Details": weight of the missing region; the known region has weight 1.
HOLE_WEIGHT = 5.0


def weighted_l1(generated: Tensor, image: Tensor, hole_mask: Tensor) -> Tensor:
    """Equation (7), pixel space: mean of `W * |generated - image|`, W = 5 in the hole and 1 outside.

    Images `[N, 3, H, W]` in [-1, 1], hole_mask `[N, 1, H, W]` in {0, 1}; a scalar. With an all-zero mask: plain L1.
    """
    weight = 1.0 + (HOLE_WEIGHT - 1.0) * hole_mask
    return (weight * (generated - image).abs()).mean()


def latent_l1(code: Tensor, target: Tensor) -> Tensor:
    """Latent loss: mean of `|code - target|` for content `[N, C, h, w]` or style `[N, S]` codes; a scalar.

    Whether the target gets a gradient is the caller's choice. Content: no, SCE is held fixed. Style: yes, both codes
    come from the one style encoder; with a detached target each step scales both up, and the codes grew to 1e10
    within 150 steps.
    """
    return (code.float() - target.float()).abs().mean()
