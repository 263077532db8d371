"""Settings of Pillow, and of memory, for a process that reads and writes photographs."""

from __future__ import annotations

import ctypes
import platform

from PIL import AvifImagePlugin, Image

from cisi_runtime.allocator import keep_memory

# Blocks of 16 MB that Pillow keeps; together they hold a picture of 25 megapixels.
_KEPT_BLOCKS = 6


def prepare_for_photographs() -> None:
    """Once for a process: no limit of Pillow's own, since the reader has one that can be raised, and the memory of one
    photograph used for the next, instead of returned and asked for anew.

    Pillow's memory, up to 100 MB, saves a tenth of the time that 12 megapixels take from file to file. For that of
    arrays see `keep_memory`.
    """
    _link_unwinder()
    keep_memory()
    lift_limit()
    Image.core.set_blocks_max(_KEPT_BLOCKS)  # type: ignore[attr-defined]


def _link_unwinder() -> None:
    """glibc links to libgcc_s when it first unwinds a stack, and aborts the process where memory is too short for that:
    of 33 runs close to their limit 8 ended so, and none with this. `backtrace` links it at once."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).backtrace((ctypes.c_void_p * 1)(), 1)


def lift_limit() -> None:
    """No limit of Pillow's own: for a process that looks at the heads of files alone."""
    Image.MAX_IMAGE_PIXELS = None


def one_thread_a_file() -> None:
    """For a process that is one of several, each with a file of its own."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
