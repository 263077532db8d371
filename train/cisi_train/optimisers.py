"""The optimisers of the generator: Adam, or Muon for what lies between its first and last layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cisi_train.network import Generator

# Moments of Adam for both networks. The text of the paper that we have lost the numbers; these are usual for GANs.
_BETAS = (0.5, 0.999)
# Rate of Muon over that of Adam. The elements of an orthogonal matrix `[out, in]` have root mean square 1 / sqrt(in),
# those of Adam's update at most about 1: for a 3x3 convolution of 96 channels this makes them two thirds of Adam's.
_MUON_RATE_RATIO = 20.0
# Of Muon, as its authors have them: momentum, and the quintic polynomial that is iterated on the singular values. It
# takes those between 0 and 1 near to 1 quickly, and not exactly.
_MUON_MOMENTUM = 0.95
_NEWTON_SCHULZ, _NEWTON_SCHULZ_STEPS = (3.4445, -4.775, 2.0315), 5
_NORM_MIN = 1e-7
# Layers at the ends of the networks, whose inputs or outputs are colours, masks or style codes. Muon is for the others
# (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).
_ENDS = ("down.0.conv", "style.convs.0", "style.to_code", "mlp.layers.0", "mlp.layers.4", "to_rgb")


def adam(parameters: list[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Adam with the moments of this project."""
    return torch.optim.Adam(parameters, lr=lr, betas=_BETAS)


def hidden_weights(generator: Generator) -> list[nn.Parameter]:
    """The weights that Muon can train: of convolutions and linear layers between features, none of the ends."""
    weights: list[nn.Parameter] = []
    for name, layer in generator.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not name.endswith(_ENDS):
            assert isinstance(layer.weight, nn.Parameter)
            weights.append(layer.weight)
    return weights


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov's momentum: the averaged gradient as an orthogonal matrix (Jordan et al. 2024).

    `torch.optim.Muon` is the same for matrices in bfloat16. This one takes weights of convolutions too, and computes in
    float32 in a run that does: where bfloat16 is emulated that one made a step take 1.65 times as long
    (docs/recipes.md).

    parameters: weights `[out, in]` or `[out, in, kh, kw]`; the latter are taken as matrices `[out, kh*kw*in]`.
    lr: Adam's rate, so that one rate does for both optimisers.
    bf16: orthogonalise in bfloat16, else in float32.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, *, bf16: bool) -> None:
        super().__init__(parameters, {"lr": lr})
        self._dtype = torch.bfloat16 if bf16 else torch.float32

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the gradients of the weights; a weight with none stays as it is."""
        del closure
        (group,) = self.param_groups
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            average = state["momentum_buffer"].lerp_(weight.grad, 1.0 - _MUON_MOMENTUM)
            # Channels last, as the weights are: then the matrix is a view.
            update = weight.grad.lerp(average, _MUON_MOMENTUM)
            update = update.permute(0, 2, 3, 1) if weight.dim() == 4 else update
            matrix = _orthogonal(update.flatten(1).to(self._dtype)).view(update.shape)
            matrix = matrix.permute(0, 3, 1, 2) if weight.dim() == 4 else matrix
            rows, columns = len(weight), weight[0].numel()
            weight.add_(matrix, alpha=-group["lr"] * _MUON_RATE_RATIO * max(1.0, rows / columns) ** 0.5)


def _orthogonal(matrix: Tensor) -> Tensor:
    """The matrix `[R, C]` with all its singular values at about 1 (0.68 to 1.14), by Newton-Schulz iterations."""
    wide = matrix.T if matrix.size(0) > matrix.size(1) else matrix
    wide = wide / wide.norm().clamp(min=_NORM_MIN)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = wide @ wide.T
        polynomial = torch.addmm(gram, gram, gram, beta=_NEWTON_SCHULZ[1], alpha=_NEWTON_SCHULZ[2])
        wide = torch.addmm(wide, polynomial, wide, beta=_NEWTON_SCHULZ[0])
    return wide.T if matrix.size(0) > matrix.size(1) else wide
