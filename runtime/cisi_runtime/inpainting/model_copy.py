"""A model as it was when a run began, for processes that open it later, or on another machine."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cisi_runtime.backends.registry import is_engine
from cisi_runtime.engines.sidecar import sidecar_path
from cisi_runtime.errors import GraphError
from cisi_runtime.parity.checks import golden_path_of


@dataclasses.dataclass(frozen=True)
class ModelCopy:
    """name: of the model's file. files: it and what belongs beside it, by name."""

    name: str
    files: dict[str, bytes]

    @classmethod
    def read(cls, model: Path) -> ModelCopy:
        """A model, its golden file, and an engine's sidecar. Raises GraphError, and EngineError for an engine without
        its sidecar."""
        if not model.is_file():
            raise GraphError(f"{model}: no such file")
        paths = [model, golden_path_of(model), *([sidecar_path(model)] if is_engine(model) else [])]
        try:
            return cls(model.name, {path.name: path.read_bytes() for path in paths if path.is_file()})
        except OSError as error:
            raise GraphError(f"{model}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def written(self) -> Iterator[Path]:
        """The model as a file, for as long as the block lasts: every backend has read it when it is open."""
        with tempfile.TemporaryDirectory(prefix="cisi-") as folder:
            for name, data in self.files.items():
                (Path(folder) / name).write_bytes(data)
            yield Path(folder) / self.name
