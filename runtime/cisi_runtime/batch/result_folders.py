"""The folders that results are written into, where one of them may be a link."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cisi_runtime.errors import OutputError
from cisi_runtime.files import make_folder
from cisi_runtime.storage.addresses import Address, name_below


class ResultFolders:
    """Makes the folders below an output folder.

    output: the folder of all results. originals: folders of photographs and masks; nothing is written into them.
    """

    def __init__(self, output: Path, originals: Sequence[Address]) -> None:
        self._output, self._originals = output, originals
        self._last: tuple[Path, bool] | None = None

    def make(self, folder: Path) -> bool:
        """Make a folder unless it is there. Returns whether it is reached through a link: the list of what is in the
        output folder does not say what is in it.

        Raises OutputError when it cannot be made, or lies in a folder of originals.
        """
        if self._last is None or self._last[0] != folder:
            make_folder(folder)
            real, expected = folder.resolve(), self._output.resolve() / folder.relative_to(self._output)
            if real != expected:
                for originals in self._originals:
                    if name_below(real, originals) is not None:
                        raise OutputError(f"{folder}: is a link into {originals}: an original is kept")
            self._last = folder, real != expected
        return self._last[1]
