"""`make fuzz`: the property tests with new random examples until the time is up, and damaged files for every reader."""

from __future__ import annotations

import collections
import concurrent.futures
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import click

from tests.support.fuzz_readers import READERS, Reader
from tests.support.fuzz_workers import OUTCOMES, Outcome, Worker, make_input, minimise

# Readers that get more inputs than the others, because strangers send such files, or fewer, because PyTorch takes a
# hundred times as long for a file.
_SHARES = {"pictures": 8, "jobs": 8, "checkpoints": 1, "training states": 1}
_SHARE = 4
_MINIMISE_S = 20.0


@click.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Property tests for so long.")
@click.option("--inputs", type=click.IntRange(1), help="So many damaged files, over all readers.")
@click.option("--seed", type=int, help="Of the damaged files, to repeat a run.  [default: a random one]")
@click.option("--reader", "readers", multiple=True, type=click.Choice(tuple(READERS)), help="These readers alone.")
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="all cores")
@click.option("--findings", type=click.Path(path_type=Path), default=Path("fuzz-findings"), show_default=True)
def main(
    minutes: float | None, inputs: int | None, seed: int | None, readers: tuple[str, ...], workers: int, findings: Path
) -> None:
    """Exit with 1 where something was found. The seeds that are printed repeat it."""
    if minutes is None and inputs is None:
        raise click.UsageError("expected --minutes, --inputs or both")
    if minutes is not None and not _property_tests(minutes):
        sys.exit(1)
    if inputs is None:
        return
    seed = random.randrange(1 << 32) if seed is None else seed
    click.echo(f"--seed {seed}; findings go to {findings}")
    chosen = readers or tuple(READERS)
    shares = {reader: _SHARES.get(reader, _SHARE) for reader in chosen}
    click.echo(f"{'':16}{'inputs':>8}" + "".join(f"{kind:>9}" for kind in OUTCOMES) + f"{'seconds':>9}")
    found = 0
    for reader, share in shares.items():
        found += Campaign(READERS[reader], seed, findings).run(max(1, inputs * share // sum(shares.values())), workers)
    click.echo(f"{found} kinds of findings" + (f" in {findings}" if found else ""))
    sys.exit(found > 0)


def _property_tests(minutes: float) -> bool:
    end = time.monotonic() + 60.0 * minutes
    passes = 0
    while passes == 0 or time.monotonic() < end:
        seed = random.randrange(1 << 32)
        click.echo(f"pass {passes + 1}, --hypothesis-seed={seed}")
        options = ["-q", "-m", "hypothesis", "--hypothesis-profile=fuzz", f"--hypothesis-seed={seed}"]
        status = subprocess.run([sys.executable, "-m", "pytest", "-n", "auto", *options], check=False).returncode
        if status:
            return False
        passes += 1
    click.echo(f"{passes} passes, nothing found")
    return True


class Campaign:
    """Damaged files for one reader.

    seed: of the damage. findings: folder for the inputs that are no good.
    """

    def __init__(self, reader: Reader, seed: int, findings: Path) -> None:
        self._reader, self._seed = reader, seed
        self._folder = findings / reader.name.replace(" ", "-")
        self._seeds = reader.seeds()
        self._counts: collections.Counter[str] = collections.Counter()
        self._found: dict[str, int] = {}
        self._lock = threading.Lock()

    def run(self, inputs: int, workers: int) -> int:
        """Print a line of counts, and one for each kind of finding. Returns how many kinds there are."""
        self._folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda first: self._feed(range(first, inputs, workers)), range(workers)))
        seconds = time.monotonic() - start
        counts = "".join(f"{self._counts[kind]:>9}" for kind in OUTCOMES)
        click.echo(f"{self._reader.name:16}{inputs:>8}{counts}{seconds:>9.0f}")
        for signature, times in self._found.items():
            click.echo(f"    {times} times: {signature}")
        return len(self._found)

    def _feed(self, numbers: range) -> None:
        with Worker(self._reader, self._seeds, self._folder / "output.log") as worker:
            for number in numbers:
                outcome = worker.read((self._seed, number))
                with self._lock:
                    self._counts[outcome.kind] += 1
                    is_new = outcome.is_finding and outcome.signature not in self._found
                    if outcome.is_finding:
                        self._found[outcome.signature] = self._found.get(outcome.signature, 0) + 1
                if is_new:
                    self._keep(worker, number, outcome)

    def _keep(self, worker: Worker, number: int, outcome: Outcome) -> None:
        """Write the input, as small as it gets, and what happened."""
        name, data = make_input(self._seeds, self._reader, self._seed, number)
        if outcome.kind != "hung":
            data = minimise(
                data, lambda shorter: worker.read((name, shorter)).signature == outcome.signature, _MINIMISE_S
            )
        folder = self._folder / hashlib.sha256(outcome.signature.encode()).hexdigest()[:8]
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        text = (
            f"--seed {self._seed} --reader '{self._reader.name}', input {number}\n{outcome.signature}\n{outcome.text}\n"
        )
        (folder / "finding.txt").write_text(text)


if __name__ == "__main__":
    main()
