"""`cisi-pack`: photographs at the size that training reads, so that a folder copies and decodes quickly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.console import say, say_json, tell, tell_always, tell_more
from cisi_runtime.errors import DataError, PictureError, error_prefix
from cisi_runtime.files import make_folder
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.reading import find_pictures, left_out_masks, read_picture
from cisi_runtime.pictures.resizing import resize_short_side
from cisi_runtime.pictures.writing import write_picture
from cisi_runtime.progress_on_stderr import counted


@command(
    summary="Make small copies of photographs, for training.", verbose="Also the name of each picture that is written."
)
@click.option("--data", type=PATH, required=True, help="Folder of photographs.")
@click.option("--out", type=PATH, required=True, help="Folder for the small ones.")
@click.option(
    "--short-side",
    type=click.IntRange(64),
    default=286,
    show_default=True,
    help="What training at --size 256 resizes to (paper); 143 for --size 128. More for --zoom: 429 for --zoom 1.5.",
)
def pack(data: Path, out: Path, short_side: int) -> None:
    """Write a small JPEG (quality 95, no chroma subsampling) of each photograph, under the same name.

    Training on them without --zoom reads the same crops as on the originals, up to JPEG's loss. It holds out the same
    pictures if the originals are .jpg files too. Smaller photographs keep their size. Existing files are kept.
    """
    if out.resolve().is_relative_to(data.resolve()):
        raise click.UsageError(f"--out {out}: lies inside the folder of photographs, expected a place outside")
    with error_prefix("--data"):
        targets = _targets(data, out)
    existing, unreadable = _pack(targets, short_side)
    size = sum(file.stat().st_size for file in out.rglob("*.jpg")) if out.is_dir() else 0
    packed = len(targets) - len(unreadable)
    say(f"{out}: {packed} pictures, {size / 2**20:.1f} MiB")
    say_json({"out": str(out), "pictures": packed, "existing": existing, "bytes": size, "left_out": unreadable})
    if existing:
        tell(f"{existing} of them existed already and were left unchanged, whatever their size")
    if (masks := left_out_masks(data)) is not None:
        tell(masks)
    for line in unreadable:
        tell_always(f"left out: {line}")
    if unreadable:
        raise PictureError(f"--data: {len(unreadable)} of {len(targets)} pictures could not be read")


def _targets(data: Path, out: Path) -> dict[Path, Path]:
    """The file to write for each photograph. Raises DataError for no photographs, and for two with one target."""
    paths = find_pictures(data)
    if not paths:
        raise DataError(f"{data}: no pictures found")
    names = [path.relative_to(data).with_suffix(".jpg") for path in paths]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{data}: several pictures would become {min(map(str, repeated))}, expected names that differ")
    return {path: out / name for path, name in zip(paths, names, strict=True)}


def _pack(targets: dict[Path, Path], short_side: int) -> tuple[int, list[str]]:
    """Write those that do not exist. Returns how many existed, and the errors of those that cannot be read."""
    existing = 0
    unreadable: list[str] = []
    for path, target in counted(targets.items(), "packing", "image"):
        if target.exists():
            existing += 1
            continue
        try:
            rgb = read_picture(path).rgb
        except PictureError as error:
            unreadable.append(str(error))
            continue
        with error_prefix("--out"):
            make_folder(target.parent)
            tell_more(str(target))
            write_picture(target, Picture(resize_short_side(rgb, min(short_side, *rgb.shape[:2]))))
    return existing, unreadable


def main() -> None:
    """Entry point of `cisi-pack`."""
    run_command(pack, "cisi-pack")
