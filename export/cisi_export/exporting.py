"""A checkpoint and options become a verified graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from onnx import ModelProto

from cisi_calibration.model_contract import exporter_versions, sealed_bytes
from cisi_calibration.quantisation import Calibration, CalibrationOptions, calibrate, quantise
from cisi_export.emulate import float32_twin
from cisi_export.golden_cases import make_golden
from cisi_export.inference_graph import inference_module
from cisi_export.onnx_graph import check_opset, onnx_graph
from cisi_export.verification import verify_export
from cisi_export.weight_check import weights_in_graph
from cisi_runtime.errors import ParityError
from cisi_runtime.export_record import ExportRecord
from cisi_runtime.parity.golden import Golden, golden_path, ranges_path, save_golden, within_size_limit
from cisi_runtime.parity.verdict import ParityReport
from cisi_runtime.progress_on_stderr import ShowProgress, show_nothing
from cisi_train.checkpoint import Checkpoint, load_checkpoint


@dataclasses.dataclass(frozen=True)
class GraphOptions:
    """Which graph to export.

    precision: "float32", "float16" or "int8".
    target: whose lowering, "cpu" or "tensorrt".
    face: "uint8" or "tensor".
    size: height and width of the only pictures that it takes; None: any.
    batch: the only batch that it takes; None: any.
    """

    precision: str = "float32"
    target: str = "cpu"
    face: str = "uint8"
    size: tuple[int, int] | None = None
    batch: int | None = None


@dataclasses.dataclass(frozen=True)
class Export:
    """A graph with everything that it was compared with.

    model: the graph, with its contract.
    golden: the golden cases.
    parity: the comparisons.
    calibration: how an INT8 graph was made.
    """

    model: ModelProto
    golden: Golden
    parity: ParityReport
    calibration: Calibration | None = None

    def save(self, path: Path | str) -> None:
        """Write the graph, its golden file beside it, and, of an INT8 graph, its range table: all of them or none.

        Raises ParityError, writing nothing, when a comparison failed; OutputError.
        """
        path = Path(path)
        if not self.parity.passed:
            raise ParityError(
                f"{self.parity.failures} of {self.parity.checks} comparisons failed: {path} was not written"
            )

        def files(golden: Golden) -> dict[Path, bytes]:
            record = ExportRecord(exporter_versions(), golden.sha256)
            if self.calibration is None:
                return {path: sealed_bytes(self.model, record)}
            table = self.calibration.table.to_json().encode()
            return {ranges_path(path): table, path: self.calibration.sealed_bytes(record)}

        save_golden(golden_path(path), within_size_limit(self.golden), files)


def export(
    ckpt: Path | str,
    *,
    precision: str = "float32",
    target: str | None = None,
    face: str = "uint8",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    calibration: CalibrationOptions | None = None,
) -> Export:
    """Export a checkpoint to one ONNX graph and verify it: `export("best.pt",
    precision="float16").save("best.fp16.onnx")`.

    precision, face, size, batch: see `GraphOptions`.
    target: "cpu" or "tensorrt". Default: tensorrt for float16, else cpu.
    calibration: how to find the ranges of an INT8 graph; needed for it.

    Raises CheckpointError for a checkpoint that cannot be used, ParityError when INT8 cannot keep its budget,
    ValueError for options that exclude each other.
    """
    target = target or ("tensorrt" if precision == "float16" else "cpu")
    if precision == "float16" and target == "cpu":
        raise ValueError("float16 graphs are for target tensorrt: CPUs run them in float32, and slower")
    if (precision == "int8") != (calibration is not None):
        raise ValueError("calibration is for precision int8, which needs it")
    return export_graph(
        load_checkpoint(Path(ckpt)), GraphOptions(precision, target, face, size, batch), calibration=calibration
    )


def export_graph(
    checkpoint: Checkpoint,
    options: GraphOptions,
    *,
    calibration: CalibrationOptions | None = None,
    golden: Golden | None = None,
    progress: ShowProgress = show_nothing,
) -> Export:
    """As `export`, for a checkpoint that has been loaded.

    golden: `make_golden` of this checkpoint, size and batch, for exports that share it.
    """
    if options.precision == "int8":
        assert calibration is not None
        model, float_model, result = _int8_graph(checkpoint, options, calibration, progress)
        check_opset(model)
    else:
        model, float_model, result = _float_graph(checkpoint, options, progress), None, None
    if golden is None:
        golden = make_golden(checkpoint, options.size, options.batch, progress)
    return Export(model, golden, verify_export(checkpoint, model, golden, float_model, progress), result)


def float_graph(
    checkpoint: Checkpoint,
    *,
    precision: str,
    target: str,
    face: str,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
) -> ModelProto:
    """The graph of a lowering as exported, "float32" or "float16", not yet verified."""
    return _float_graph(checkpoint, GraphOptions(precision, target, face, size, batch))


def _float_graph(checkpoint: Checkpoint, options: GraphOptions, progress: ShowProgress = show_nothing) -> ModelProto:
    progress(f"exporting to ONNX: {options.precision}, {options.target} lowering", 0, 1)
    contract = dataclasses.replace(
        checkpoint.contract, precision=options.precision, target=options.target, face=options.face
    )
    module = inference_module(
        checkpoint.generator(),
        target=options.target,
        face=options.face,
        as_float16=options.precision == "float16",
    )
    return onnx_graph(module, contract, options.size, options.batch)


def _int8_graph(
    checkpoint: Checkpoint, options: GraphOptions, calibration: CalibrationOptions, progress: ShowProgress
) -> tuple[ModelProto, ModelProto, Calibration]:
    """The INT8 graph, the float32 graph that it must equal but for quantising, and its calibration, which needs graphs
    for any size."""
    any_size = dataclasses.replace(options, size=None, batch=None)
    model, fp16_graph = _float_graphs(checkpoint, any_size, progress)
    result = calibrate(model, calibration, fp16_graph)
    quantised = result.model
    if options != any_size:
        model, fp16_graph = _float_graphs(checkpoint, options, progress)
        kept_float = result.placement.kept_float
        quantised = quantise(model, fp16_graph, result.table, kept_float, reduce_range=calibration.reduce_range)
        result = dataclasses.replace(result, model=quantised)
    if fp16_graph is None:
        return quantised, model, result
    weights = {name: value.numpy() for name, value in checkpoint.weights.items()}
    return quantised, float32_twin(fp16_graph, weights_in_graph(fp16_graph, weights)), result


def _float_graphs(
    checkpoint: Checkpoint, options: GraphOptions, progress: ShowProgress
) -> tuple[ModelProto, ModelProto | None]:
    """The float32 graph of the cpu lowering and, for TensorRT, the float16 graph."""
    model = _float_graph(checkpoint, dataclasses.replace(options, precision="float32", target="cpu"), progress)
    if options.target == "cpu":
        return model, None
    return model, _float_graph(checkpoint, dataclasses.replace(options, precision="float16"), progress)
