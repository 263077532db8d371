"""What operators see: metrics for Prometheus, and a log with a line for each request."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters and histograms of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("cisi_requests", "Answered requests.", ["route", "status"], registry=self.registry)
        self.refusals = Counter("cisi_refusals", "Refused requests.", ["reason"], registry=self.registry)
        self.seconds = Histogram(
            "cisi_request_seconds", "From the request's first byte to its answer.", ["route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.stages = Histogram(
            "cisi_stage_seconds", "Time in each stage of a photograph.", ["stage"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A number that is read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def memory(self, processes: Callable[[], Mapping[str, list[int]]]) -> None:
        """Resident memory of the service's processes."""
        self.registry.register(_Memory(processes))

    def deaths(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Processes that ended and were replaced."""
        self.registry.register(_Deaths(counts))

    def text(self, batches: Mapping[int, int]) -> bytes:
        """Everything, in Prometheus' text format. batches: how often a batch of each number of windows ran."""
        family = CounterMetricFamily("cisi_batches", "Batches by their number of windows.", labels=["windows"])
        for windows, count in sorted(batches.items()):
            family.add_metric([str(windows)], count)
        once = CollectorRegistry()
        once.register(_Fixed(family))
        return generate_latest(self.registry) + generate_latest(once)


class _Fixed(Collector):
    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        """The family."""
        return [self._family]


class _Memory(Collector):
    def __init__(self, processes: Callable[[], Mapping[str, list[int]]]) -> None:
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        """Resident bytes by the name of the process."""
        family = GaugeMetricFamily("cisi_memory_bytes", "Resident memory.", labels=["process"])
        for name, numbers in self._processes().items():
            family.add_metric([name], sum(map(resident_bytes, numbers)))
        family.add_metric(["service"], resident_bytes(os.getpid()))
        return [family]


class _Deaths(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Ended processes by name."""
        family = CounterMetricFamily("cisi_process_deaths", "Processes that ended.", labels=["process"])
        for name, count in self._counts().items():
            family.add_metric([name], count)
        return [family]


def resident_bytes(process: int) -> int:
    """Resident memory of a process on Linux; 0 elsewhere, and when it has ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


# Attributes that every record of the logging module has; others are fields of ours.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}


class _Formatter(logging.Formatter):
    """A record as one line: JSON, or text with the fields behind the message."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback is a field of it, or follows it."""
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if not self._as_json:
            said = " ".join(f"{name}={_plain(value)}" for name, value in fields.items())
            text = f"{record.levelname.lower()}: {record.getMessage()} {said}".rstrip()
            return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _plain(value: object) -> str:
    """A value on one line of text; what clients could have made up is quoted."""
    text = str(value)
    return text if re.fullmatch(r"[\w./:+-]+", text, re.ASCII) else json.dumps(text)


def start_log(*, as_json: bool, quiet: bool = False, verbose: bool = False) -> None:
    """Send the service's log, and the warnings of its libraries, to standard error.

    quiet: warnings alone. verbose: what libraries tell, too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(as_json=as_json))
    ours, theirs = logging.WARNING if quiet else logging.INFO, logging.INFO if verbose else logging.WARNING
    for name, level in (("cisi.serve", ours), ("uvicorn", theirs), ("opentelemetry", theirs)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    # What it warns of is in the refusal that follows.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
