"""What a graph expects and promises, written into the checkpoint and the ONNX metadata."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from cisi_runtime.architecture import MIN_SIZE, SIZE_MULTIPLE, Architecture, check_keys
from cisi_runtime.errors import ContractError

REVISION = 1
# Masks are 8-bit pictures in which white is the hole; grey from here on counts as hole.
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
    "inputs": (("image", "hole_mask"),),
    "output": ("completed",),
}


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where weights come from. `data` is a name for people, `data_sha256` a hash over names and sizes of the files."""

    data: str
    data_licence: str
    data_sha256: str
    images: int
    steps: int
    preset: str

    def __post_init__(self) -> None:
        kinds = {"images": int, "steps": int}
        faults = [
            f"{field.name} is {value!r}"
            for field in dataclasses.fields(self)
            if type(value := getattr(self, field.name)) is not kinds.get(field.name, str)
        ]
        if faults:
            raise ContractError("provenance: of the wrong kind: " + "; ".join(faults))

    def then(self, later: Provenance) -> Provenance:
        """Of weights that were trained on one set and then on another, or on the same one again: nothing is lost."""
        steps = self.steps + later.steps
        if self.data_sha256 == later.data_sha256:
            return dataclasses.replace(self, steps=steps)
        return dataclasses.replace(
            later,
            data=f"{self.data}; then {later.data}",
            data_licence=f"{self.data_licence}; then {later.data_licence}",
            images=self.images + later.images,
            steps=steps,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Provenance:
        """Raises ContractError for an unknown or missing key."""
        check_keys("provenance", values, cls)
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Contract:
    """Everything that inpainting code tends to leave implicit. Defaults are the only values that this revision knows,
    except where `_ALLOWED` lists several.

    Face `uint8`: image uint8 `[N, H, W, 3]`, hole_mask uint8 `[N, H, W]` (>= `mask_threshold` = hole), completed uint8
    `[N, H, W, 3]`. Face `tensor`: image float32 `[N, 3, H, W]` in `value_range`, hole_mask float32 `[N, 1, H, W]` in
    {0, 1}, completed float32 `[N, 3, H, W]`. Pictures of other sizes are padded to the right and below to multiples of
    `size_multiple`, at least `min_size`, by `padding`, and cropped back.
    """

    architecture: Architecture
    provenance: Provenance
    precision: str = "float32"
    target: str = "pytorch"
    face: str = "tensor"
    # SHA-256 over names, shapes and float32 bytes of the weights; ties graph, golden file and checkpoint together.
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
    inputs: tuple[str, str] = ("image", "hole_mask")
    output: str = "completed"
    revision: int = REVISION

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)!r}, expected {' or '.join(repr(value) for value in allowed)}"
            for name, allowed in _ALLOWED.items()
            if getattr(self, name) not in allowed
        ]
        if not isinstance(self.weights_sha256, str):
            faults.append(f"weights_sha256 is {self.weights_sha256!r}, expected text")
        if faults:
            raise ContractError("contract: " + "; ".join(faults))

    def to_json(self) -> str:
        """One line of JSON with sorted keys: the same contract gives the same bytes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read and check. Raises ContractError for what is not a contract, has an unknown key or a newer revision."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ContractError(f"contract: not JSON: {error}") from error
        if not isinstance(values, dict) or type(values.get("revision")) is not int or values["revision"] < 1:
            raise ContractError("contract: expected a JSON object with a revision number")
        if values["revision"] > REVISION:
            raise ContractError(
                f"contract: revision {values['revision']} is newer than {REVISION}, the newest known here; "
                "install a newer cisi-net"
            )
        check_keys("contract", values, cls)
        try:
            tuples = {name: tuple(values[name]) for name in ("value_range", "inputs")}
            parts = {
                "architecture": Architecture.from_dict(values["architecture"]),
                "provenance": Provenance.from_dict(values["provenance"]),
            }
            return cls(**{**values, **tuples, **parts})
        except TypeError as error:
            raise ContractError(f"contract: a value is of the wrong kind: {error}") from error
