"""`make fuzz`: the property tests with new random examples, again and again, until the time is up or one fails."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import click


@click.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True)
def main(minutes: float) -> None:
    """Exit with 1 at the first failure. The seed that is printed repeats it."""
    end = time.monotonic() + 60.0 * minutes
    passes = 0
    while passes == 0 or time.monotonic() < end:
        seed = random.randrange(1 << 32)
        click.echo(f"pass {passes + 1}, --hypothesis-seed={seed}")
        options = ["-q", "-m", "hypothesis", "--hypothesis-profile=fuzz", f"--hypothesis-seed={seed}"]
        status = subprocess.run([sys.executable, "-m", "pytest", "-n", "auto", *options], check=False).returncode
        if status:
            sys.exit(1)
        passes += 1
    click.echo(f"{passes} passes, nothing found")


if __name__ == "__main__":
    main()
