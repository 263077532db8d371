"""Muon for the hidden weights of the generator, Adam for the rest."""

from pathlib import Path

import pytest
import torch

from cisi_runtime.architecture import PRESETS
from cisi_train.network import Generator
from cisi_train.optimisers import ConvolutionMuon, hidden_weights
from cisi_train.training_state import TrainingState
from tests.support.training_runs import Trainer, options

ENDS = (
    *("self_content.down.0.conv", "inferred_content.down.0.conv", "style.convs.0", "style.to_code"),
    *("decoder.mlp.layers.0", "decoder.mlp.layers.4", "decoder.to_rgb"),
)


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
    muon = [] if state.hidden_optimiser is None else state.hidden_optimiser.weights
    assert (muon == []) == (optimiser == "adam")
    numbers = [id(parameter) for parameter in (*trained, *muon)]
    assert sorted(numbers) == sorted(id(parameter) for parameter in state.generator.parameters())


@pytest.mark.parametrize("shape", [(8, 16, 3, 3), (48, 4, 3, 3), (12, 40)])
def test_an_update_is_the_orthogonal_part_of_the_gradient(shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    before = torch.randn(shape)
    weight = torch.nn.Parameter(before.clone(memory_format=torch.channels_last) if len(shape) == 4 else before.clone())
    weight.grad = torch.randn(shape)
    optimiser = ConvolutionMuon([weight], lr=1e-3)
    optimiser.step()
    update = (before - weight.detach()).flatten(1) / (20 * 1e-3 * max(1.0, shape[0] / before[0].numel()) ** 0.5)
    left, _, right = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
    # Five Newton-Schulz iterations in bfloat16 leave singular values of 0.68 to 1.14, and a cosine of 0.981 or more (30
    # seeds).
    singular = torch.linalg.svdvals(update)
    assert singular.min().item() > 0.5
    assert singular.max().item() < 1.3
    cosine = torch.nn.functional.cosine_similarity(update.flatten(), (left @ right).flatten(), dim=0)
    assert cosine.item() > 0.97
    assert optimiser.param_groups[0]["lr"] == 1e-3


def test_weights_without_a_gradient_stay() -> None:
    weights = [torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
    optimiser = ConvolutionMuon(weights, lr=1e-3)
    for weight in weights:
        weight.grad = torch.randn(4, 4)
    optimiser.step()
    kept = weights[1].detach().clone()
    optimiser.zero_grad()
    assert all(weight.grad is None for weight in weights)
    weights[0].grad = torch.randn(4, 4)
    optimiser.step()
    assert torch.equal(weights[1], kept)


def test_a_weight_in_another_layout_is_refused() -> None:
    with pytest.raises(RuntimeError, match="view"):
        ConvolutionMuon([torch.nn.Parameter(torch.ones(4, 4, 3, 3))], lr=1e-3)


def test_a_run_moves_hidden_weights_by_muon(photo_folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(options(photo_folder, tmp_path, steps=1))
    generator = trainer.state.generator
    before = {name: tensor.clone() for name, tensor in generator.named_parameters()}
    trainer.run()
    assert trainer.state.hidden_optimiser is not None
    # Each optimiser has stepped, with what is its own.
    assert len(trainer.state.hidden_optimiser.state) == len(trainer.state.hidden_optimiser.weights)
    assert len(trainer.state.optimiser.state) == len(trainer.state.optimiser.param_groups[0]["params"])
    rate = 20 * trainer.lr_at(0, 0.0)
    moved = names_of(generator, trainer.state.hidden_optimiser.weights)
    for name, tensor in generator.named_parameters():
        change = (tensor.detach() - before[name]).flatten(1 if tensor.dim() > 1 else 0)
        if name in moved and "self_content" in name:  # one update, all others have two
            scale = rate * max(1.0, change.shape[0] / change.shape[1]) ** 0.5
            assert torch.linalg.matrix_norm(change, 2).item() < 1.3 * scale, name
        assert change.abs().max().item() > 0, name
