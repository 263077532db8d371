"""Checkpoints that an attacker would write: each is refused with an error of ours, before it costs time or memory."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cisi_runtime.errors import CheckpointError
from cisi_train.checkpoint import load_checkpoint, weights_sha256
from cisi_train.damage import DAMAGE, damage_reason

Content = dict[str, Any]
WEIGHT = "style.to_code.bias"


def with_contract(content: Content, **changes: object) -> Content:
    values = json.loads(content["contract"])
    architecture = {name: changes.pop(name) for name in list(changes) if name in values["architecture"]}
    values["architecture"] |= architecture
    return content | {"contract": json.dumps(values | changes)}


def with_weight(content: Content, value: object) -> Content:
    """With the hash of these weights, where they have one."""
    weights = content["weights"] | {WEIGHT: value}
    is_plain = isinstance(value, torch.Tensor) and value.layout is torch.strided and value.device.type == "cpu"
    if not is_plain or value.is_quantized or value.nbytes > 1 << 20:  # type: ignore[union-attr]
        return content | {"weights": weights}
    return with_contract(content | {"weights": weights}, weights_sha256=weights_sha256(weights))


def saved(content: object, **changes: bytes) -> bytes:
    """changes: members to replace, by the last part of their name."""
    target = io.BytesIO()
    torch.save(content, target)
    return repacked(target.getvalue(), changes) if changes else target.getvalue()


def repacked(data: bytes, changes: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(target, "w", compression) as after:
        for name in before.namelist():
            after.writestr(name, changes.get(name.rpartition("/")[2], before.read(name)))
    return target.getvalue()


def overlapping(data: bytes) -> bytes:
    """Every member of the directory twice, so that few bytes pretend to be many."""
    with zipfile.ZipFile(target := io.BytesIO(data), "a") as archive:
        archive.filelist += archive.filelist
        archive.writestr("archive/more", b"")
    return target.getvalue()


def of_pickle(opcodes: bytes) -> bytes:
    return saved({}, **{"data.pkl": b"\x80\x02" + opcodes + b"."})


def damaged_id(content: Content) -> bytes:
    data = saved(content)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    return repacked(data, {"data.pkl": member.replace(b"storage", b"storagf")})


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.zeros(8), 1.0, 0, torch.qint8)


def nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.zeros(3), torch.zeros(2)])


def shared(content: Content) -> bytes:
    first, second = (f"decoder.mlp.layers.{number}.bias" for number in (0, 2))
    return saved(content | {"weights": content["weights"] | {first: content["weights"][second]}})


# A key of a dictionary that hashes by recursion, 200,000 tuples deep.
_DEEP_KEY = b"})" + b"\x85" * 200_000 + b"Ns"
# A storage of 2**71 numbers.
_ENDLESS = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpu\x8a\x09" + bytes(8) + b"\x7ftQ"
_OTHER_THINGS = "expected tensors of float32 or float16, numbers and text"

CRAFTED: dict[str, tuple[Callable[[Content], bytes], str]] = {
    "dim of 1e12": (lambda c: saved(with_contract(c, dim=10**12)), "dim must be .* at most 1024, got 1000000000000"),
    "dim of 1e30": (lambda c: saved(with_contract(c, dim=10**30)), "dim must be .* at most 1024"),
    "wide MLP": (lambda c: saved(with_contract(c, mlp_dim=10**19)), "mlp_dim must be .* at most 8192"),
    "many blocks": (lambda c: saved(with_contract(c, decoder_blocks=100_000)), "decoder_blocks must be"),
    "many dilations": (lambda c: saved(with_contract(c, dilations=[2] * 100_000)), "dilations must be 1 to 32"),
    "large dilation": (lambda c: saved(with_contract(c, dilations=[10**12])), "dilations must be .* at most 1024"),
    "many scales": (lambda c: saved(with_contract(c, discriminator_scales=10**9)), "discriminator_scales must be"),
    "true for a number": (lambda c: saved(with_contract(c, hole_value=True)), "of the wrong kind: Expected `int`"),
    "deep contract": (lambda c: saved(c | {"contract": "[" * 100_000}), "contract: not JSON .*recursion"),
    "NaN": (lambda c: saved(with_weight(c, torch.full((8,), torch.nan))), f"{WEIGHT}, which is not finite"),
    "infinity": (lambda c: saved(with_weight(c, torch.full((8,), -torch.inf))), f"{WEIGHT}, which is not finite"),
    "stretched": (lambda c: saved(with_weight(c, torch.zeros(1).expand(8))), f"{WEIGHT}, which is a view"),
    "terabytes": (lambda c: saved(with_weight(c, torch.zeros(1).expand(10**12))), "which has shape .1000000000000."),
    "part of another": (lambda c: saved(with_weight(c, torch.zeros(10)[2:])), f"{WEIGHT}, which is a view"),
    "another name": (lambda c: saved(c | {"weights": c["weights"] | {"x\33[2J": torch.zeros(1)}}), r"'x\\x1b\[2J'"),
    "twice the same": (shared, "several weights share their numbers"),
    "complex": (lambda c: saved(with_weight(c, torch.zeros(8, dtype=torch.complex64))), _OTHER_THINGS),
    "float64": (lambda c: saved(with_weight(c, torch.zeros(8, dtype=torch.float64))), _OTHER_THINGS),
    "meta": (lambda c: saved(with_weight(c, torch.zeros(8, device="meta"))), _OTHER_THINGS),
    "sparse": (lambda c: saved(with_weight(c, torch.zeros(8).to_sparse())), _OTHER_THINGS),
    "quantised": (lambda c: saved(with_weight(c, quantised())), _OTHER_THINGS),
    "nested": (lambda c: saved(c | {"weights": {WEIGHT: nested()}}), _OTHER_THINGS),
    "settings of tensors": (lambda c: saved(c | {"configuration": {"lr": torch.zeros(2)}}), "not a checkpoint of"),
    "a long buffer": (lambda _: of_pickle(b"c__builtin__\nbytearray\n\x8a\x06" + bytes(5) + b"\1\x85R"), _OTHER_THINGS),
    "deep tuples": (lambda _: of_pickle(_DEEP_KEY), "nested more than 100 deep"),
    "a long pickle": (lambda _: of_pickle(b"N0" * (1 << 20)), "data.pkl has 2097155 bytes, at most 1048576"),
    "damaged id": (damaged_id, "cannot be read as a checkpoint: it holds other things .* or is damaged"),
    "compressed": (lambda c: repacked(saved(c), {}, zipfile.ZIP_DEFLATED), "it is compressed"),
    "overlapping": (lambda c: overlapping(saved(c)), "its members overlap"),
    "a number without end": (lambda _: of_pickle(_ENDLESS), "cannot be read as a checkpoint: "),
}


@pytest.mark.parametrize("name", CRAFTED)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_each_is_refused(tmp_path: Path, tiny_checkpoint_path: Path, name: str) -> None:
    craft, message = CRAFTED[name]
    path = tmp_path / "c.pt"
    path.write_bytes(craft(torch.load(tiny_checkpoint_path, weights_only=True)))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_what_is_refused_is_so_for_its_fault_alone(tmp_path: Path, tiny_checkpoint_path: Path) -> None:
    content = torch.load(tiny_checkpoint_path, weights_only=True)
    for changed in (content, with_weight(content, torch.zeros(8)), with_contract(content)):
        (tmp_path / "c.pt").write_bytes(repacked(saved(changed), {}))
        assert load_checkpoint(tmp_path / "c.pt").generator()


def test_too_little_memory_is_said() -> None:
    assert damage_reason(MemoryError()) == "there is not enough memory for it"
    assert issubclass(MemoryError, DAMAGE)
    assert issubclass(pickle.UnpicklingError, DAMAGE)
