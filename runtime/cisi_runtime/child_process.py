"""What a process that another one started with `multiprocessing` does first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def prepare_child(*signals: signal.Signals) -> None:
    """Leave these signals to the first process, which decides what they mean, and end with it: otherwise this one would
    wait for work for ever."""
    for number in signals:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
