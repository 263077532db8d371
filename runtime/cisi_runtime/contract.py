"""What a graph expects and promises. Written into the checkpoint, the ONNX metadata and the engine's sidecar."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from cisi_runtime.architecture import MIN_SIZE, SIZE_MULTIPLE, Architecture
from cisi_runtime.errors import ContractError
from cisi_runtime.face import COMPLETED, FACES, HOLE_MASK, IMAGE, Face
from cisi_runtime.strict_json import check_revision, convert, parse_json

REVISION = 1
# Between the sets that weights were trained on one after the other.
_THEN = "; then "
# Masks are 8-bit pictures in which white is the hole. Grey from this level on counts as hole.
MASK_THRESHOLD = 128

# Key of the contract in ONNX `metadata_props`.
METADATA_KEY = "cisi_contract"

_ALLOWED: dict[str, tuple[Any, ...]] = {
    "precision": ("float32", "float16", "int8"),
    "target": ("pytorch", "cpu", "tensorrt"),
    "face": ("tensor", "uint8"),
    "colour_order": ("RGB",),
    "value_range": ((-1.0, 1.0),),
    "hole_value": (1,),
    "mask_threshold": (MASK_THRESHOLD,),
    "hole_fill": (0.0,),
    "size_multiple": (SIZE_MULTIPLE,),
    "min_size": (MIN_SIZE,),
    "resize_filter": ("lanczos",),
    "composite_in_graph": (True,),
    "padding": ("reflect", "edge", "hole"),
    "rounding": ("half_even",),
    "inputs": ((IMAGE, HOLE_MASK),),
    "output": (COMPLETED,),
}


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where weights come from.

    data: name of the training data, for people.
    data_licence: its licence, for people.
    data_sha256: hash over the names of its photographs, without suffixes.
    images: number of training pictures.
    steps: training iterations.
    preset: name of the architecture preset.
    """

    data: str
    data_licence: str
    data_sha256: str
    images: int
    steps: int
    preset: str

    @property
    def last_data(self) -> str:
        """Name of the set that was trained on last; `data_sha256` is of that one."""
        return self.data.split(_THEN)[-1]

    @property
    def last_licence(self) -> str:
        """Licence of the set that was trained on last."""
        return self.data_licence.split(_THEN)[-1]

    def then(self, later: Provenance) -> Provenance:
        """Provenance of weights that were trained on one set and then on another, or again on the same one: the same
        photographs under the same name and licence."""
        steps = self.steps + later.steps
        same = self.last_data, self.last_licence, self.data_sha256
        if same == (later.data, later.data_licence, later.data_sha256):
            return dataclasses.replace(self, steps=steps)
        return dataclasses.replace(
            later,
            data=f"{self.data}{_THEN}{later.data}",
            data_licence=f"{self.data_licence}{_THEN}{later.data_licence}",
            images=self.images + later.images,
            steps=steps,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Provenance:
        """Read what `dataclasses.asdict` wrote. Raises ContractError for unknown or missing keys and wrong types."""
        return convert(values, cls, "provenance", ContractError)


@dataclasses.dataclass(frozen=True)
class Contract:
    """Everything that inpainting code tends to leave implicit. `docs/architecture.md` explains each field.

    Most fields have a single allowed value, their default; `_ALLOWED` lists the others. `io` gives the layout of inputs
    and output. Pictures of other sizes are padded at the right and at the bottom to multiples of `size_multiple`, at
    least `min_size`, by the rule `padding`, and cropped back.
    """

    architecture: Architecture
    provenance: Provenance
    precision: str = "float32"
    target: str = "pytorch"
    face: str = "tensor"
    # SHA-256 over names, shapes and float32 bytes of the weights. Ties graph, golden file and checkpoint together.
    weights_sha256: str = ""
    colour_order: str = "RGB"
    value_range: tuple[float, float] = (-1.0, 1.0)
    hole_value: int = 1
    mask_threshold: int = MASK_THRESHOLD
    hole_fill: float = 0.0
    size_multiple: int = SIZE_MULTIPLE
    min_size: int = MIN_SIZE
    resize_filter: str = "lanczos"
    composite_in_graph: bool = True
    padding: str = "reflect"
    rounding: str = "half_even"
    inputs: tuple[str, str] = (IMAGE, HOLE_MASK)
    output: str = COMPLETED
    revision: int = REVISION

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)!r}, expected {' or '.join(repr(value) for value in allowed)}"
            for name, allowed in _ALLOWED.items()
            if getattr(self, name) not in allowed
        ]
        if faults:
            raise ContractError("contract: " + "; ".join(faults))

    @property
    def io(self) -> Face:
        """Layout and type of the graph's inputs and output."""
        return FACES[self.face]

    @property
    def holds_float16(self) -> bool:
        """Whether the graph computes in float16: a float16 graph, and what is not INT8 in an INT8 graph for
        TensorRT."""
        return self.precision == "float16" or (self.precision, self.target) == ("int8", "tensorrt")

    def to_json(self) -> str:
        """One line of JSON with sorted keys: the same contract gives the same bytes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read and check. Raises ContractError for what is not a contract of a revision known here."""
        return cls.from_dict(parse_json(text, "contract", ContractError))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Contract:
        """As `from_json`, for JSON that has been parsed."""
        check_revision(values, REVISION, "contract", ContractError)
        return convert(values, cls, "contract", ContractError)
