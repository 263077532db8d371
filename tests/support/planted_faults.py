"""Faults that exporters and people make, planted one at a time, and which comparison finds each of them.

`python -m tests.support.planted_faults CKPT` prints the table. `test_planted_faults.py` requires that each fault is
found by the comparison that is there for it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import click
import numpy as np
import torch
import torch.nn.functional as F
from onnx import ModelProto, NodeProto, helper, numpy_helper
from torch import Tensor, nn

from cisi_calibration.model_contract import set_contract
from cisi_export import inference_graph, verification
from cisi_export.exporting import float_graph
from cisi_export.golden_cases import make_golden
from cisi_export.inference_graph import TensorFace, Uint8Face, inference_module
from cisi_export.onnx_graph import onnx_graph
from cisi_export.rewrites import InstanceNormNode, WrittenOutNorm
from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import Contract
from cisi_runtime.errors import ContractError, GraphError
from cisi_runtime.parity.golden import Golden
from cisi_train.checkpoint import Checkpoint, load_checkpoint, weights_sha256
from cisi_train.network import composite, encoders
from cisi_train.network.generator import Generator
from cisi_train.network.layers import sub_pixel_weight
from tests.support.networks import provenance, roughen

REWRITTEN, ONNX32, ONNX16 = "rewritten network", "ONNX float32", "ONNX float16"
# Of pictures, and of exports that a fault takes: with fixed sides one takes a third of the time.
_SIZE = (128, 160)
TWIN, WEIGHTS, CHECKER = "ONNX float32 twin", "weights", "checker"


class Lab:
    """The sound network and its exports, made once. Each fault works on a copy.

    float32, float16: exports of the checkpoint, if there are some already.
    """

    def __init__(
        self, checkpoint: Checkpoint, float32: ModelProto | None = None, float16: ModelProto | None = None
    ) -> None:
        self.checkpoint = checkpoint
        if float32 is not None:
            self.float32 = float32
        if float16 is not None:
            self.float16 = float16

    @functools.cached_property
    def golden(self) -> Golden:
        """Without the cases for sizes and batches, which these faults do not depend on."""
        golden = make_golden(self.checkpoint, _SIZE)
        return dataclasses.replace(golden, cases=golden.cases[:6])

    @functools.cached_property
    def float32(self) -> ModelProto:
        return float_graph(self.checkpoint, precision="float32", target="cpu", face="uint8")

    @functools.cached_property
    def float16(self) -> ModelProto:
        return float_graph(self.checkpoint, precision="float16", target="tensorrt", face="uint8")

    @functools.cached_property
    def short(self) -> Lab:
        """A network with one residual block in each part, for faults that take an export of their own: the depth does
        not matter to them, and the export takes half the time."""
        architecture = dataclasses.replace(PRESETS["tiny"], decoder_blocks=1, dilations=(2,))
        torch.manual_seed(3)
        generator = Generator(architecture)
        roughen(generator)
        with torch.no_grad():
            generator.decoder.to_rgb.weight.mul_(0.5)
        return Lab(_checkpoint(Contract(architecture, provenance()), generator.state_dict()))

    @functools.cached_property
    def loud(self) -> Lab:
        """A short network with activations beyond 255 in front of ICE's first norm, which removes the factor."""
        checkpoint = self.short.checkpoint
        weights = {name: value.clone() for name, value in checkpoint.weights.items()}
        weights["inferred_content.down.0.conv.weight"] *= 400.0
        return Lab(_checkpoint(checkpoint.contract, weights))

    def network(self) -> nn.Module:
        return inference_module(self.checkpoint.generator(), target="cpu", face="tensor", as_float16=False)

    def failed_comparisons(self, subject: nn.Module | ModelProto) -> set[str]:
        """What `verify_export` finds: of a faulty network beside a sound graph, or of a faulty graph."""
        model = subject if isinstance(subject, ModelProto) else self.float32
        with contextlib.ExitStack() as stack:
            if isinstance(subject, nn.Module):
                stack.enter_context(mock.patch.object(verification, "inference_module", return_value=subject))
            report = verification.verify_export(self.checkpoint, model, self.golden)
        failed = {item.variant for item in report.comparisons if not item.passed}
        variants = (REWRITTEN, TWIN, ONNX32, ONNX16)
        names = {next(variant for variant in variants if name.startswith(variant)) for name in failed}
        return names | {WEIGHTS for item in report.weights or [] if not item.passed}


def _checkpoint(contract: Contract, weights: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint(dataclasses.replace(contract, weights_sha256=weights_sha256(weights)), dict(weights), {})


@dataclasses.dataclass(frozen=True)
class Fault:
    """A planted fault.

    comparison: the one that must find it.
    plant: makes the faulty network or graph.
    network: of the lab; "", "short" or "loud".
    """

    name: str
    comparison: str
    plant: Callable[[Lab], nn.Module | ModelProto]
    network: str = ""

    def found_by(self, lab: Lab) -> set[str]:
        lab = getattr(lab, self.network) if self.network else lab
        try:
            return lab.failed_comparisons(self.plant(lab))
        except GraphError as error:
            if "unexpected operators" not in str(error):
                raise
            return {CHECKER}
        except ContractError as error:
            if "the contract says" not in str(error) and "the graph casts" not in str(error):
                raise
            return {CHECKER}


# Faults of the network's code.


def _changed_generator(**methods: Callable[..., Tensor]) -> Callable[[Lab], nn.Module]:
    """Replace `forward` of parts of the generator ("style", "decoder.mlp", ...; dots as double underscores)."""

    def plant(lab: Lab) -> nn.Module:
        face = lab.network()
        for path, forward in methods.items():
            part = face.get_submodule("generator." + path.replace("__", "."))
            part.forward = functools.partial(forward, part, part.forward)  # type: ignore[method-assign]
        return face

    return plant


def _swapped(_part: nn.Module, forward: Callable[..., tuple[Tensor, Tensor]], style: Tensor) -> tuple[Tensor, Tensor]:
    gamma, beta = forward(style)
    return beta, gamma


def _no_style(_part: nn.Module, forward: Callable[..., Tensor], corrupted: Tensor) -> Tensor:
    return torch.zeros_like(forward(corrupted))


def _first_style(_part: nn.Module, forward: Callable[..., Tensor], corrupted: Tensor) -> Tensor:
    style = forward(corrupted)
    return style[:1].expand_as(style)


def _no_mask_channel(_part: nn.Module, forward: Callable[..., Tensor], corrupted: Tensor) -> Tensor:
    return forward(torch.cat([corrupted[:, :3], torch.zeros_like(corrupted[:, 3:])], dim=1))


def _pooled_everywhere(lab: Lab) -> nn.Module:
    def style(part: encoders.StyleEncoder, _forward: object, corrupted: Tensor) -> Tensor:
        x = corrupted
        for conv in part.convs:
            x = F.relu(conv(x))
        code: Tensor = part.to_code(x.mean(dim=(2, 3)))
        return code

    return _changed_generator(style=style)(lab)


def _reflecting_border(lab: Lab) -> nn.Module:
    face = lab.network()
    last = face.get_submodule("generator.decoder.to_rgb.conv")
    assert isinstance(last, nn.Conv2d)
    last.padding_mode = "reflect"
    last._reversed_padding_repeated_twice = [2, 2, 2, 2]
    return face


class _Leaking(TensorFace):
    def forward(self, image: Tensor, hole_mask: Tensor) -> Tensor:
        corrupted = torch.cat([image, hole_mask], dim=1)  # the hole is not taken out
        generated = self.generator.decoder(self.generator.inferred_content(corrupted), self.generator.style(corrupted))
        return composite(image, generated, hole_mask)


class _WrongEdge(TensorFace):
    def forward(self, image: Tensor, hole_mask: Tensor) -> Tensor:
        wider = F.max_pool2d(hole_mask, 3, 1, 1)
        return composite(image, self.generator(image, hole_mask), wider)


class _FlippedMask(Uint8Face):
    def forward(self, image: Tensor, hole_mask: Tensor) -> Tensor:
        return super().forward(image, 255 - hole_mask)


class _Bgr(Uint8Face):
    def forward(self, image: Tensor, hole_mask: Tensor) -> Tensor:
        return super().forward(image.flip(3), hole_mask).flip(3)


class _Truncating(Uint8Face):
    def forward(self, image: Tensor, hole_mask: Tensor) -> Tensor:
        known = image.float().permute(0, 3, 1, 2)
        hole = (hole_mask.float() >= 128).float()[:, None]
        generated = ((self.generator(known / 127.5 - 1.0, hole) + 1.0) * 127.5).clamp(0.0, 255.0)
        return composite(known, generated, hole).permute(0, 2, 3, 1).to(torch.uint8)


def _face(kind: type[TensorFace]) -> Callable[[Lab], nn.Module]:
    def plant(lab: Lab) -> nn.Module:
        generator = lab.network().generator
        assert isinstance(generator, Generator)
        return kind(generator).eval()

    return plant


def _exported_face(kind: type[Uint8Face]) -> Callable[[Lab], ModelProto]:
    def plant(lab: Lab) -> ModelProto:
        generator = lab.network().generator
        assert isinstance(generator, Generator)
        contract = dataclasses.replace(lab.checkpoint.contract, precision="float32", target="cpu", face="uint8")
        return onnx_graph(kind(generator).eval().requires_grad_(False), contract, _SIZE)

    return plant


# Faults of an exporter: they pass through an export.


class _BatchNormTrick(nn.Module):
    """AdaIN's normalisation as older code has it: batch norm in training mode over a reshaped batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        flat = x.reshape(1, batch * channels, *x.shape[2:])
        mean, variance = x.new_zeros(batch * channels), x.new_ones(batch * channels)
        return F.batch_norm(flat, mean, variance, training=True).reshape(x.shape)


class _Float16Statistics(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=(2, 3), keepdim=True)
        variance = (centred * centred).mean(dim=(2, 3), keepdim=True)
        return centred * torch.rsqrt(variance + 1e-5)


def _exported_with_norm(norm: type[nn.Module], *, precision: str, target: str) -> Callable[[Lab], ModelProto]:
    def plant(lab: Lab) -> ModelProto:
        name = "use_instance_norm_nodes" if target == "cpu" else "write_out_statistics"
        original = getattr(inference_graph, name)

        def rewrite(network: nn.Module) -> None:
            original(network)
            for parent in list(network.modules()):
                for key, child in list(parent.named_children()):
                    if isinstance(child, InstanceNormNode | WrittenOutNorm):
                        setattr(parent, key, norm())

        with mock.patch.object(inference_graph, name, rewrite):
            module = inference_module(
                lab.checkpoint.generator(), target=target, face="uint8", as_float16=precision == "float16"
            )
        contract = dataclasses.replace(lab.checkpoint.contract, precision=precision, target=target, face="uint8")
        return onnx_graph(module, contract, _SIZE)

    return plant


# Faults of a graph.


def _graph(change: Callable[[ModelProto], None], precision: str = "float32") -> Callable[[Lab], ModelProto]:
    def plant(lab: Lab) -> ModelProto:
        model = copy.deepcopy(lab.float32 if precision == "float32" else lab.float16)
        change(model)
        return model

    return plant


def _weight(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[ModelProto], None]:
    def apply(model: ModelProto) -> None:
        (item,) = (item for item in model.graph.initializer if item.name == name)
        array = numpy_helper.to_array(item)
        item.CopyFrom(numpy_helper.from_array(change(array.astype(np.float64)).astype(array.dtype), name))

    return apply


def _node(model: ModelProto, operator: str, uses: str = "") -> NodeProto:
    return next(n for n in model.graph.node if n.op_type == operator and (not uses or uses in n.input))


def _set(node: NodeProto, **attributes: object) -> None:
    for attribute in node.attribute:
        if attribute.name in attributes:
            value = attributes[attribute.name]
            if isinstance(value, list):
                attribute.ints[:] = value
            elif isinstance(value, bytes):
                attribute.s = value
            else:
                attribute.f = float(value)  # type: ignore[arg-type]


def _lost_dilation(model: ModelProto) -> None:
    conv = _node(model, "Conv", "generator.inferred_content.blocks.3.conv2.weight")
    _set(conv, dilations=[8, 8], pads=[8, 8, 8, 8])


def _other_epsilon(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "InstanceNormalization":
            _set(node, epsilon=1e-3)


def _written_out_epsilon(model: ModelProto) -> None:
    """Every Add of 1e-5 in front of a square root."""
    for item in model.graph.initializer:
        array = numpy_helper.to_array(item)
        if array.size == 1 and array.dtype == np.float32 and np.isclose(array, 1e-5):
            item.CopyFrom(numpy_helper.from_array(np.full_like(array, 1e-3), item.name))


def _other_threshold(model: ModelProto) -> None:
    node = _node(model, "GreaterOrEqual")
    (item,) = (item for item in model.graph.initializer if item.name == node.input[1])
    item.CopyFrom(numpy_helper.from_array(np.array(200.0, dtype=np.float32), item.name))


def _half_a_pixel(lab: Lab) -> ModelProto:
    """The 5x5 kernel one pixel of the upsampled map to the side, which is half a pixel of the map before."""
    weight = lab.checkpoint.weights["decoder.up.1.conv.weight"].double()
    shifted = sub_pixel_weight(weight.roll(1, dims=3)).numpy()
    return _graph(_weight(f"{DECODER}.up.1.conv.weight", lambda _: shifted))(lab)


def _hidden_weight(model: ModelProto) -> None:
    """A convolution reads a perturbed copy whose name looks like a scale of quantisation."""
    conv = _node(model, "Conv", f"{ICE}.infer.conv.conv.weight")
    (item,) = (item for item in model.graph.initializer if item.name == conv.input[1])
    array = numpy_helper.to_array(item)
    model.graph.initializer.append(numpy_helper.from_array(_perturbed(array).astype(array.dtype), "w_scale"))
    conv.input[1] = "w_scale"


def _scaled_weight(model: ModelProto) -> None:
    """The stored weight is right, but an operator changes it on its way to the convolution."""
    conv = _node(model, "Conv", f"{ICE}.infer.conv.conv.weight")
    model.graph.initializer.append(numpy_helper.from_array(np.array(1.005, dtype=np.float16), "factor"))
    model.graph.node.insert(0, helper.make_node("Mul", [conv.input[1], "factor"], ["scaled"]))
    conv.input[1] = "scaled"


def _constant_weight(model: ModelProto) -> None:
    conv = _node(model, "Conv", f"{ICE}.infer.conv.weight")
    (item,) = (item for item in model.graph.initializer if item.name == conv.input[1])
    other = numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(1.05))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["constant"], value=other))
    conv.input[1] = "constant"


def _relabelled(model: ModelProto) -> None:
    """A float32 graph that says float16."""
    contract = Contract.from_json(model.metadata_props[0].value)
    set_contract(model, dataclasses.replace(contract, precision="float16"))


ICE, SE, DECODER = "generator.inferred_content", "generator.style", "generator.decoder"


def _perturbed(weight: np.ndarray) -> np.ndarray:
    """By half a percent, at random."""
    return weight * (1.0 + 0.005 * np.random.default_rng(0).standard_normal(weight.shape))


def _one_lost(weight: np.ndarray) -> np.ndarray:
    return np.where(np.arange(weight.size).reshape(weight.shape) == 17, 0.0, weight)


FAULTS = (
    Fault("gamma and beta swapped", REWRITTEN, _changed_generator(decoder__mlp=_swapped)),
    Fault("style path cut", REWRITTEN, _changed_generator(style=_no_style)),
    Fault("second picture gets the first one's style", REWRITTEN, _changed_generator(style=_first_style)),
    Fault("style pooled over the hole too", REWRITTEN, _pooled_everywhere),
    Fault("mask channel lost on the way to ICE", REWRITTEN, _changed_generator(inferred_content=_no_mask_channel)),
    Fault("reflecting instead of zero padding", REWRITTEN, _reflecting_border),
    Fault("hole not taken out of the input", REWRITTEN, _face(_Leaking)),
    Fault("composite one pixel beyond the hole", REWRITTEN, _face(_WrongEdge)),
    Fault("mask polarity flipped", ONNX32, _exported_face(_FlippedMask), "short"),
    Fault("BGR instead of RGB", ONNX32, _exported_face(_Bgr), "short"),
    Fault("codec truncates", ONNX32, _exported_face(_Truncating), "short"),
    Fault(
        "AdaIN by batch norm", CHECKER, _exported_with_norm(_BatchNormTrick, precision="float32", target="cpu"), "short"
    ),
    Fault(
        "float16 statistics, large activations",
        ONNX16,
        _exported_with_norm(_Float16Statistics, precision="float16", target="tensorrt"),
        network="loud",
    ),
    Fault("one dilation lost", ONNX32, _graph(_lost_dilation)),
    Fault("another epsilon in the norms", ONNX32, _graph(_other_epsilon)),
    Fault("mask threshold 200", ONNX32, _graph(_other_threshold)),
    Fault("depth to space in the other order", ONNX32, _graph(lambda m: _set(_node(m, "DepthToSpace"), mode=b"DCR"))),
    Fault("upsampling off by half a pixel", ONNX32, _half_a_pixel),
    Fault("a bias dropped that matters", WEIGHTS, _graph(_weight(f"{SE}.convs.2.bias", np.zeros_like))),
    Fault(
        "weights of one layer off by 0.5 %, float32", ONNX32, _graph(_weight(f"{ICE}.infer.conv.weight", _perturbed))
    ),
    Fault(
        "one layer's weights off by 0.5 %, float16",
        WEIGHTS,
        _graph(_weight(f"{ICE}.infer.conv.conv.weight", _perturbed), "float16"),
    ),
    Fault("one weight of a linear layer lost", WEIGHTS, _graph(_weight(f"{DECODER}.mlp.layers.2.weight", _one_lost))),
    Fault("another epsilon in the norms, float16", TWIN, _graph(_written_out_epsilon, "float16")),
    Fault("a perturbed weight under another name, float16", WEIGHTS, _graph(_hidden_weight, "float16")),
    Fault("a weight changed on its way, float16", WEIGHTS, _graph(_scaled_weight, "float16")),
    Fault("a weight in a Constant node", CHECKER, _graph(_constant_weight)),
    Fault("float32 that says float16", CHECKER, _graph(_relabelled)),
)


def table(lab: Lab) -> str:
    """A line for each fault: which comparison must find it, and which did."""
    lines = [f"{'fault':<44} {'must be found by':<18} found by"]
    for fault in FAULTS:
        found_by = fault.found_by(lab)
        verdict = "" if fault.comparison in found_by else "   NOT FOUND"
        lines.append(f"{fault.name:<44} {fault.comparison:<18} {', '.join(sorted(found_by)) or 'nothing'}{verdict}")
    return "\n".join(lines)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
def main(checkpoint: Path) -> None:
    """Print the table for CHECKPOINT and exit with 1 when a fault was not found."""
    report = table(Lab(load_checkpoint(checkpoint)))
    click.echo(report)
    sys.exit(1 if "NOT FOUND" in report else 0)


if __name__ == "__main__":
    main()
