"""Muon for the hidden weights of the generator, Adam for the rest."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cisi_runtime.architecture import PRESETS
from cisi_train.network import Generator
from cisi_train.optimisers import Muon, hidden_weights
from cisi_train.training_state import TrainingState
from tests.support.training_runs import Trainer, options

ENDS = (
    *("self_content.down.0.conv", "inferred_content.down.0.conv", "style.convs.0", "style.to_code"),
    *("decoder.mlp.layers.0", "decoder.mlp.layers.4", "decoder.to_rgb"),
)


class Types(TorchDispatchMode):
    """Records the types of all results."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.seen.add(result.dtype)
        return result


def names_of(generator: Generator, parameters: list[torch.nn.Parameter]) -> set[str]:
    numbers = {id(parameter) for parameter in parameters}
    return {name for name, parameter in generator.named_parameters() if id(parameter) in numbers}


def test_hidden_are_the_weights_of_all_layers_but_the_ends() -> None:
    generator = Generator(PRESETS["tiny"])
    layers = [name for name, layer in generator.named_modules() if hasattr(layer, "weight")]
    assert set(ENDS) < set(layers)
    expected = {f"{name}.weight" for name in layers if name not in ENDS}
    assert names_of(generator, hidden_weights(generator)) == expected


@pytest.mark.parametrize("optimiser", ["muon", "adam"])
def test_each_parameter_belongs_to_one_optimiser(tmp_path: Path, optimiser: str) -> None:
    state = TrainingState(options(tmp_path, tmp_path, optimiser=optimiser), torch.device("cpu"))
    trained = [p for group in state.optimiser.param_groups for p in group["params"]]
    muon = [] if state.hidden_optimiser is None else state.hidden_optimiser.param_groups[0]["params"]
    assert (muon == []) == (optimiser == "adam")
    numbers = [id(parameter) for parameter in (*trained, *muon)]
    assert sorted(numbers) == sorted(id(parameter) for parameter in state.generator.parameters())


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("shape", [(8, 16, 3, 3), (48, 4, 3, 3), (12, 40)])
def test_an_update_is_the_orthogonal_part_of_the_gradient(shape: tuple[int, ...], bf16: bool) -> None:
    torch.manual_seed(2)
    before = torch.randn(shape)
    weight = torch.nn.Parameter(before.clone(memory_format=torch.channels_last) if len(shape) == 4 else before.clone())
    weight.grad = torch.randn(shape)
    optimiser = Muon([weight], lr=1e-3, bf16=bf16)
    optimiser.step()
    update = (before - weight.detach()).flatten(1) / (20 * 1e-3 * max(1.0, shape[0] / before[0].numel()) ** 0.5)
    left, _, right = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
    # Five Newton-Schulz iterations leave singular values of 0.68 to 1.14, and a cosine of 0.981 or more (30
    # seeds).
    singular = torch.linalg.svdvals(update)
    assert singular.min().item() > 0.5
    assert singular.max().item() < 1.3
    cosine = torch.nn.functional.cosine_similarity(update.flatten(), (left @ right).flatten(), dim=0)
    assert cosine.item() > 0.97
    assert optimiser.param_groups[0]["lr"] == 1e-3


def test_weights_without_a_gradient_stay() -> None:
    weights = [torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
    optimiser = Muon(weights, lr=1e-3, bf16=False)
    for weight in weights:
        weight.grad = torch.randn(4, 4)
    optimiser.step()
    kept = weights[1].detach().clone()
    optimiser.zero_grad()
    assert all(weight.grad is None for weight in weights)
    weights[0].grad = torch.randn(4, 4)
    optimiser.step()
    assert torch.equal(weights[1], kept)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_matrices_move_as_by_the_muon_of_pytorch(shape: tuple[int, int]) -> None:
    torch.manual_seed(4)
    start = torch.randn(shape)
    weights = [torch.nn.Parameter(start.clone()) for _ in range(3)]
    optimisers: list[torch.optim.Optimizer] = [Muon([weights[number]], lr=1e-3, bf16=number == 0) for number in (0, 1)]
    optimisers.append(torch.optim.Muon([weights[2]], lr=20e-3, weight_decay=0.0))
    for _ in range(4):
        gradient = torch.randn(shape)
        for weight, optimiser in zip(weights, optimisers, strict=True):
            weight.grad = gradient.clone()
            optimiser.step()
    in_bf16, in_float32, pytorch = ((weight.detach() - start).norm() for weight in weights)
    assert in_bf16.item() == pytest.approx(pytorch.item(), rel=1e-3)
    # bfloat16 rounds each element by up to 0.4 %.
    assert torch.allclose(weights[0], weights[2], rtol=0.0, atol=1e-6)
    assert (weights[1] - weights[2]).norm().item() < 0.02 * in_float32.item()


@pytest.mark.parametrize("bf16", [True, False])
def test_muon_computes_in_the_precision_of_the_run(tmp_path: Path, bf16: bool) -> None:
    optimiser = TrainingState(options(tmp_path, tmp_path, bf16=bf16), torch.device("cpu")).hidden_optimiser
    assert optimiser is not None
    for weight in optimiser.param_groups[0]["params"]:
        weight.grad = torch.randn_like(weight)
    with Types() as types:
        optimiser.step()
    assert (torch.bfloat16 in types.seen) == bf16


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_moves_as_its_matrix_does(layout: torch.memory_format) -> None:
    torch.manual_seed(5)
    start, gradient = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    convolution = torch.nn.Parameter(start.clone(memory_format=layout))
    convolution.grad = gradient.clone(memory_format=layout)
    matrix = torch.nn.Parameter(start.permute(0, 2, 3, 1).reshape(6, 36))
    matrix.grad = gradient.permute(0, 2, 3, 1).reshape(6, 36)
    for weight in (convolution, matrix):
        Muon([weight], lr=1e-3, bf16=False).step()
    assert torch.allclose(convolution.permute(0, 2, 3, 1).reshape(6, 36), matrix, rtol=0.0, atol=1e-6)


def test_a_run_moves_hidden_weights_by_muon(photo_folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(options(photo_folder, tmp_path, steps=1))
    generator = trainer.state.generator
    before = {name: tensor.clone() for name, tensor in generator.named_parameters()}
    trainer.run()
    assert trainer.state.hidden_optimiser is not None
    # Each optimiser has stepped, with what is its own.
    hidden = trainer.state.hidden_optimiser.param_groups[0]["params"]
    assert len(trainer.state.hidden_optimiser.state) == len(hidden)
    assert len(trainer.state.optimiser.state) == len(trainer.state.optimiser.param_groups[0]["params"])
    rate = 20 * trainer.lr_at(0, 0.0)
    moved = names_of(generator, hidden)
    for name, tensor in generator.named_parameters():
        change = (tensor.detach() - before[name]).flatten(1 if tensor.dim() > 1 else 0)
        if name in moved and "self_content" in name:  # one update, all others have two
            scale = rate * max(1.0, change.shape[0] / change.shape[1]) ** 0.5
            assert torch.linalg.matrix_norm(change, 2).item() < 1.3 * scale, name
        assert change.abs().max().item() > 0, name
