"""One run at a time in an output folder.

Two runs at once would spoil no picture: a rename replaces a file as a whole, and equal options give equal bytes. But
the second would write its options over those of the first in the run record, so that results of two kinds pass for one,
and it would remove the first one's list of failures. So it is refused.

Stores have no lock, and Windows has none of this kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cisi_runtime.files import make_folder
from cisi_runtime.folder_lock import locked_folder
from cisi_runtime.storage.addresses import Address


@contextlib.contextmanager
def only_run(output: Address) -> Iterator[None]:
    """Make an output folder and keep other runs out of it during the block. What is made here and is still empty when
    the block raises is removed.

    Enter it before the folder is listed: what another run adds afterwards would not be seen. Raises OutputError when
    another run is at work in it, or the folder cannot be made.
    """
    # A file is refused where what was expected instead is known.
    if not isinstance(output, Path) or (output.exists() and not output.is_dir()):
        yield
        return
    new = [folder for folder in (output, *output.parents) if not folder.exists()]
    make_folder(output)
    with locked_folder(output):
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # one that is not empty ends it
                for folder in new:
                    folder.rmdir()
            raise
