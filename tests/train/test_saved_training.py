"""Training states that an attacker would write, or a broken disk: a resumed run takes nothing of them over."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import Contract
from cisi_runtime.errors import CheckpointError
from cisi_train.checkpoint import save_checkpoint
from cisi_train.resuming import saved_options
from cisi_train.training_state import TrainingState
from tests.support.networks import provenance
from tests.support.training_runs import options

Training = dict[str, Any]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> TrainingState:
    folder = tmp_path_factory.mktemp("run")
    return TrainingState(options(folder, folder), torch.device("cpu"))


@pytest.fixture(scope="module")
def training(state: TrainingState) -> Training:
    """After one step of all optimisers, from and to random weights."""
    for network in (state.generator, state.discriminator):
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
    for optimiser in (*state.generator_optimisers, state.adversary_optimiser):
        optimiser.step()
    plain = {"step": 1, "minutes": 0.0, "best": None, "colours": None, "before": None}
    return plain | {name: part.state_dict() for name, part in state.training_parts.items()}


def first_moment(training: Training, name: str, value: object) -> None:
    training["optimiser"]["state"][0][name] = value


def group(training: Training, **changes: object) -> None:
    training["adversary_optimiser"]["param_groups"][0].update(changes)


def best(**changes: object) -> dict[str, object]:
    return {"step": 1, "psnr_db": 20.0, "lpips": None, "has_all_losses": True} | changes


FAULTS: dict[str, tuple[Callable[[Training], object], str]] = {
    "no step": (lambda t: t.pop("step"), r"the run: .*missing keys \['step'\]"),
    "endless step": (lambda t: t.update(step=10**400), "of the wrong kind"),
    "step of text": (lambda t: t.update(step="1"), "of the wrong kind"),
    "step of a tensor": (lambda t: t.update(step=torch.ones(())), "are damaged, expected numbers and text"),
    "minutes of NaN": (lambda t: t.update(minutes=float("nan")), "of the wrong kind"),
    "best of NaN": (lambda t: t.update(best=best(psnr_db=float("nan"))), "best or colours are not finite"),
    "best of more": (lambda t: t.update(best=best(more=1)), r"best: unknown keys \['more'\]"),
    "colours": (lambda t: t.update(colours={"mean": (0.0,) * 4, "std": (float("inf"),) * 4}), "are not finite"),
    "provenance": (lambda t: t.update(before=[1]), "of the wrong kind"),
    "no average": (lambda t: t.pop("averaged"), "averaged does not fit the architecture"),
    "average of NaN": (
        lambda t: t["averaged"].update({"style.to_code.bias": torch.full((8,), torch.nan)}),
        "averaged: style.to_code.bias is not finite",
    ),
    "another discriminator": (lambda t: t["discriminator"].popitem(), "discriminator does not fit the architecture"),
    "no optimiser": (lambda t: t.update(optimiser=torch.zeros(3)), "optimiser has other options or parameters"),
    "rate of NaN": (lambda t: group(t, lr=float("nan")), "adversary_optimiser has other options"),
    "rate of a tensor": (lambda t: group(t, lr=torch.ones(())), "adversary_optimiser has other options"),
    "betas": (lambda t: group(t, betas=(0.5, 2.0)), "adversary_optimiser has other options"),
    "hooks": (lambda t: group(t, surprise=1), "adversary_optimiser has other options"),
    "moment of another": (lambda t: t["optimiser"]["state"].update({10**6: {}}), "moments of other parameters"),
    "no moment": (lambda t: t["optimiser"]["state"][0].popitem(), "optimiser: parameter 0: expected step, exp_avg"),
    "stretched moment": (
        lambda t: first_moment(t, "exp_avg", torch.zeros(1).expand(8, 3, 7, 7)),
        "parameter 0: exp_avg is a view",
    ),
    "moment of another shape": (lambda t: first_moment(t, "exp_avg", torch.zeros(10**6)), "has shape .1000000."),
    "negative squares": (
        lambda t: first_moment(t, "exp_avg_sq", torch.full((8, 3, 7, 7), -1.0)),
        "parameter 0: exp_avg_sq is negative",
    ),
    "steps of NaN": (lambda t: first_moment(t, "step", torch.tensor(torch.nan)), "parameter 0: step is not finite"),
    "no Muon": (lambda t: t.pop("hidden_optimiser"), "hidden_optimiser has other options or parameters"),
    "Adam for Muon": (lambda t: t.update(hidden_optimiser=t["optimiser"]), "hidden_optimiser has other options"),
    "moments of Adam": (
        lambda t: t["hidden_optimiser"]["state"].update({0: t["optimiser"]["state"][0]}),
        "hidden_optimiser: parameter 0: expected momentum_buffer",
    ),
    "momentum of NaN": (
        lambda t: t["hidden_optimiser"]["state"][0].update(momentum_buffer=torch.full((16, 8, 4, 4), torch.nan)),
        "hidden_optimiser: parameter 0: momentum_buffer is not finite",
    ),
}


def write(path: Path, state: TrainingState, training: Training) -> None:
    contract = Contract(PRESETS["tiny"], provenance())
    configuration = {"steps": 1, "minutes": None, "lr": 1e-3}
    save_checkpoint(path, contract, state.generator.state_dict(), configuration=configuration, training=training)


@pytest.mark.parametrize("name", FAULTS)
def test_a_crafted_state_is_refused_and_changes_nothing(
    state: TrainingState, training: Training, tmp_path: Path, name: str
) -> None:
    craft, message = FAULTS[name]
    crafted = copy.deepcopy(training)
    craft(crafted)
    write(tmp_path / "last.pt", state, crafted)
    other = TrainingState(options(tmp_path, tmp_path, seed=2), torch.device("cpu"))
    before = copy.deepcopy(other.generator.state_dict())
    with pytest.raises(CheckpointError, match=rf"last.pt: .*{message}"):
        other.resume(tmp_path / "last.pt", {})
    assert other.step == 0
    assert all(torch.equal(tensor, before[key]) for key, tensor in other.generator.state_dict().items())


def test_the_state_as_it_was_is_taken(state: TrainingState, training: Training, tmp_path: Path) -> None:
    crafted = copy.deepcopy(training) | {"best": best(), "minutes": 0}
    del crafted["optimiser"]["param_groups"][0]["fused"]  # as an older PyTorch wrote it
    group(crafted, lr=3e-4)  # the run sets it anew at each step
    write(tmp_path / "last.pt", state, crafted)
    other = TrainingState(options(tmp_path, tmp_path, seed=2), torch.device("cpu"))
    other.resume(tmp_path / "last.pt", {})
    moments = other.optimiser.state_dict()["state"][0]["exp_avg"]
    assert torch.equal(moments, training["optimiser"]["state"][0]["exp_avg"])
    assert other.best is not None
    assert (other.step, other.best.psnr_db) == (1, 20.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"steps": {"a": 1}}', "'steps' is no value of an option"),
        (b'{"data": "a\\u0000b"}', "'data' is no value of an option"),
        (b'{"categories": [[1]]}', "'categories' is no value of an option"),
        (b'{"steps": 1, "steps": 2}', "the key 'steps' is there twice"),
        (b'{"steps": ' + b"9" * 5000 + b"}", "not JSON in UTF-8"),
        ('{"steps": 1}'.encode("utf-16"), "not JSON in UTF-8"),
        (b" " * (1 << 20) + b"{}", "has more than 1048576 bytes"),
    ],
)
def test_options_that_no_run_wrote(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "options.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=f"options.json: {message}"):
        saved_options(tmp_path)


def test_categories_that_are_one(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text('{"categories": 5}')
    assert saved_options(tmp_path)["categories"] == 5
