"""Two processes on halves of a batch against one process on the whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cisi_runtime.errors import CisiError
from cisi_train.processes import Processes
from tests.support.shared import TIMEOUT_S, shared_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent

# Runs under torchrun with two processes, and alone with twice the batch; writes the gradients of the first step. In
# float64: in float32 the last bit of a pixel, which depends on the CPU and the batch, decides the sign of an L1 loss's
# gradient.
PROGRAM = """
import sys, torch
from pathlib import Path
from cisi_train.data import decode_batch, open_folder
from cisi_train.processes import Processes
from cisi_train.trainer import Trainer
from cisi_train.vgg import VggFeatures
from tests.support.training_runs import options

torch.set_num_threads(1)
data, out = Path(sys.argv[1]), Path(sys.argv[2])
processes = Processes("cpu")
torch.manual_seed(5)
chosen = options(data, out, batch=8 // processes.count, perceptual=True)
trainer = Trainer(chosen, open_folder(data), VggFeatures().double(), processes)
for network in (trainer.state.generator, trainer.state.averaged, trainer.state.discriminator):
    network.double()
seen = []
update = trainer._update

def keep(optimisers, loss, parameters):
    update(optimisers, loss, parameters)
    seen.append([p.grad.clone() for p in parameters if p.grad is not None])

trainer._update = keep
crops, holes = next(trainer._batches())
image, holes = decode_batch(crops, holes, torch.device("cpu"))
trainer.train_step(image.double(), holes.double(), progress=0.0)
if processes.is_first:
    torch.save(seen, out.with_suffix(".pt"))
processes.close()
"""


@pytest.mark.parametrize("step", [0, 1, 2], ids=["self-content", "inferred-content", "discriminator"])
def test_two_processes_give_the_gradients_of_one(gradients: list[list[list[torch.Tensor]]], step: int) -> None:
    two, one = gradients[0][step], gradients[1][step]
    assert len(two) == len(one) > 0
    flat_two, flat_one = (torch.cat([gradient.flatten() for gradient in part]) for part in (two, one))
    # Only the order of sums differs: relative 1.8e-16 measured. The losses round to float32, which may show elsewhere.
    assert ((flat_two - flat_one).norm() / flat_one.norm()).item() < 1e-7


@pytest.fixture(scope="module")
def gradients(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[list[torch.Tensor]]]:
    def write(folder: Path) -> None:
        program = folder / "program.py"
        program.write_text(PROGRAM)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        for start, name in ((torchrun, "two"), ([sys.executable], "one")):
            command = [*start, str(program), str(photo_folder), str(folder / name)]
            result = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
            assert result.returncode == 0, result.stderr

    folder = shared_folder(tmp_path_factory, "processes", write)
    return [torch.load(folder / f"{name}.pt") for name in ("two", "one")]


def test_half_of_an_environment_of_torchrun_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CisiError, match="WORLD_SIZE is 2 in the environment and RANK is not set: expected torchrun"):
        Processes("cpu")
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(CisiError, match="WORLD_SIZE is 'two' in the environment, expected a number"):
        Processes("cpu")


def test_the_command_under_torchrun(photo_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "cisi_train.cli_train", "--data", str(photo_folder), "--out", str(tmp_path), "--preset", "tiny"]
    command += ["--size", "64", "--steps", "3", "--batch", "2", "--save-every", "2", "--no-perceptual"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("best.pt: step 3, held-out") == 1
    assert [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert (tmp_path / "best.pt").is_file()
