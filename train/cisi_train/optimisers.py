"""The optimisers of the generator: Adam, or Muon for what lies between its first and last layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cisi_train.network import Generator

# Moments of Adam for both networks. The paper says Adam, and not which moments.
_BETAS = (0.5, 0.999)
# Rate of Muon over that of Adam. The elements of an orthogonal matrix `[out, in]` have root mean square 1 / sqrt(in),
# those of Adam's update at most about 1: for a 3x3 convolution of 96 channels this makes them two thirds of Adam's.
_MUON_RATE_RATIO = 20.0
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


class ConvolutionMuon(torch.optim.Muon):
    """`torch.optim.Muon`, which takes matrices alone, for the weights of convolutions too.

    Each weight `[out, in, kh, kw]` is the matrix `[out, kh*kw*in]`, a view of it. Rates are given in Adam's scale, so
    that one rate does for both optimisers.

    parameters: in channels-last layout if they have four dimensions.
    lr: Adam's rate.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        self.weights = parameters
        super().__init__([_as_matrix(weight.detach()) for weight in parameters], lr=lr, weight_decay=0.0)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients of the weights, whatever `set_to_none`: a weight with none stays as it is."""
        del set_to_none
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the gradients of the weights; a weight with none stays as it is."""
        (group,) = self.param_groups
        for matrix, weight in zip(group["params"], self.weights, strict=True):
            # Anew at each step: another type or device gives the weight other memory.
            matrix.data = _as_matrix(weight.detach())
            gradient = weight.grad
            if gradient is not None and gradient.dim() == 4:
                gradient = gradient.permute(0, 2, 3, 1).flatten(1)
            matrix.grad = gradient
        rate = group["lr"]
        group["lr"] = rate * _MUON_RATE_RATIO
        try:
            super().step(closure)  # type: ignore[no-untyped-call]
        finally:
            group["lr"] = rate


def _as_matrix(weight: Tensor) -> Tensor:
    """`[out, kh*kw*in]`, a view of `[out, in, kh, kw]`. Raises RuntimeError where there is none."""
    return weight.permute(0, 2, 3, 1).view(len(weight), -1) if weight.dim() == 4 else weight
