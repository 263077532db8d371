"""`cisi-serve`: photographs over HTTP, with a page for people."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cisi_runtime.backends.registry import BackendOptions
from cisi_runtime.cli.backend_options import backend_options, check_threads, take_backend_options
from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.cli.numbers import FiniteRange
from cisi_runtime.console import LOUDNESS, say
from cisi_runtime.errors import error_prefix

if TYPE_CHECKING:
    from cisi_runtime.serve.limits import Limits

_POSITIVE = FiniteRange(0, min_open=True, max=1e6)


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """What `cisi-serve` was asked to do; each field is the option of its name."""

    model: Path | None
    backend: BackendOptions
    host: str
    port: int
    workers: int
    max_megapixels: float
    queue_megapixels: float
    deadline: float
    grace: float
    token_file: Path | None
    insecure: bool
    log: str | None
    static: Path | None

    def limits(self) -> Limits:
        """What the service takes."""
        from cisi_runtime.serve.limits import Limits

        return Limits(self.max_megapixels, self.queue_megapixels, self.deadline, self.grace)


@command(summary="Serve photographs over HTTP, with a page.", verbose="Also what libraries log.", as_json=None)
@click.option("--model", type=PATH, help="Graph, engine or checkpoint; default: the INT8 graph that ships.")
@backend_options
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads of the network.  [default: all cores]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free; the log says."
)
@click.option(
    "--workers", type=click.IntRange(0), default=0, help="Processes that work on photographs.  [default: all cores]"
)
@click.option(
    "--max-megapixels", type=_POSITIVE, default=40.0, show_default=True, help="Refuse larger photographs (413)."
)
@click.option(
    "--queue-megapixels", type=_POSITIVE, default=128.0, show_default=True, help="Refuse more that waits (429)."
)
@click.option("--deadline", type=_POSITIVE, default=60.0, show_default=True, help="Seconds for an answer (504).")
@click.option(
    "--grace", type=FiniteRange(0, 1e6), default=30.0, show_default=True, help="Seconds to finish after SIGTERM."
)
@click.option("--token-file", type=PATH, help="File with the token that requests must bear.")
@click.option("--insecure", is_flag=True, help="Let other machines in without a token.")
@click.option(
    "--log", type=click.Choice(["text", "json"]), help="Lines of the log.  [default: text in a terminal, else json]"
)
@click.option(
    "--static", type=PATH, help="Instead: write the page into this folder; it then runs in the browser alone."
)
def serve(**values: Any) -> None:
    """Serve photographs over HTTP: a page at /, POST /inpaint, KServe's v2 protocol and IOPaint's interface.

    docs/serving.md has a line of curl for each; /openapi.json describes them. Other machines need a token, or
    --insecure. Ctrl-C and SIGTERM finish what was accepted; a second one ends at once.
    """
    named = dict(values)
    options = ServeOptions(backend=take_backend_options(values), **values)
    if options.static is not None:
        given = click.get_current_context().get_parameter_source
        others = [name for name in named if given(name) is ParameterSource.COMMANDLINE]
        if set(others) - {"static", "model"}:
            raise click.UsageError("--static goes with --model alone")
        _write_static(options, options.static)
    else:
        _serve(options)


def _serve(options: ServeOptions) -> None:
    from cisi_runtime.backends.cores import available_cores
    from cisi_runtime.serve.monitoring import start_log
    from cisi_runtime.serve.network_info import NetworkOptions
    from cisi_runtime.serve.server import ServiceOptions, is_loopback
    from cisi_runtime.serve.server import serve as run_service
    from cisi_runtime.token_file import read_token

    with error_prefix("--token-file"):
        token = None if options.token_file is None else read_token(options.token_file)
    if token is None and not is_loopback(options.host) and not options.insecure:
        raise click.UsageError(
            f"--host {options.host}: other machines could use the service, expected --token-file too, or --insecure"
        )
    if options.max_megapixels > options.queue_megapixels:
        raise click.UsageError("--queue-megapixels: expected at least --max-megapixels")
    check_threads(options.backend.threads, options.backend, options.model)
    as_json = options.log == "json" or (options.log is None and not sys.stderr.isatty())
    start_log(as_json=as_json, quiet=LOUDNESS.quiet, verbose=LOUDNESS.verbose)
    network = NetworkOptions(options.model, options.backend)
    workers = options.workers or available_cores()
    run_service(ServiceOptions(network, options.host, options.port, workers, token, options.limits()))


def _write_static(options: ServeOptions, folder: Path) -> None:
    from cisi_runtime.backends.registry import SHIPPED_GRAPH
    from cisi_runtime.serve.static_page import write_static_page

    write_static_page(folder, options.model or SHIPPED_GRAPH)
    say(f"{folder}: the page, the graph and onnxruntime-web; serve it with any web server")


def main() -> None:
    """Entry point of `cisi-serve`."""
    run_command(serve, "cisi-serve")
