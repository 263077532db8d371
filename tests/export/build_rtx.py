"""Builds an engine with TensorRT-RTX, one process for each: after a failed build the next one in the same process
silently uses the failed one's target. Run as a program by `test_independent_tools.py`; needs no GPU."""

import sys
from pathlib import Path

import tensorrt_rtx as trt


def build(path: Path, *, is_static: bool) -> tuple[int, list[str]]:
    """Parse and build for SM 8.9; a graph that is not static with a profile of batches 1 to 4 and sides 64 to 512.
    Returns the engine's size in bytes and what went wrong."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        return 0, [str(parser.get_error(index)) for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    if not is_static:
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            shapes = []
            for batch, side in ((1, 64), (1, 256), (4, 512)):
                pixels = tensor.dtype == trt.uint8
                shape = (batch, side, side, 3) if pixels else (batch, tensor.shape[1], side, side)
                shapes.append(shape[: len(tensor.shape)])
            profile.set_shape(tensor.name, *shapes)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    return (0, ["the builder returned nothing"]) if engine is None else (engine.nbytes, [])


if __name__ == "__main__":
    built, errors = build(Path(sys.argv[1]), is_static="static" in sys.argv[2:])
    print(built, *errors, sep="\n")
    sys.exit(0 if built else 1)
