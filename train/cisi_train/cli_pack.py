"""`cisi-pack`: photographs at the size that training reads, so that a folder travels and decodes quickly."""

from __future__ import annotations

from pathlib import Path

import click

from cisi_runtime.command import option, run_command
from cisi_runtime.errors import DataError, PictureError
from cisi_runtime.files import make_folder
from cisi_runtime.pictures import Picture, find_pictures, read_picture, resize_short_side
from cisi_runtime.writing import write_picture


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of photographs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the small ones.")
@click.option(
    "--short-side",
    type=click.IntRange(64),
    default=286,
    show_default=True,
    help="What training at --size 256 resizes to (paper); 143 for --size 128.",
)
def pack(data: Path, out: Path, short_side: int) -> None:
    """Write a small JPEG (quality 95, no chroma subsampling) of each photograph, under the same name.

    Training on them reads the same crops as on the originals, up to JPEG's loss, and holds out the same pictures where
    the originals are called .jpg too. Photographs that are smaller already keep their size. Existing files are kept.
    """
    from tqdm import tqdm

    if out.resolve().is_relative_to(data.resolve()):
        raise click.UsageError(f"--out {out}: lies inside the folder of photographs, expected a place outside")
    with option("--data"):
        paths = find_pictures(data)
        names = [path.relative_to(data).with_suffix(".jpg") for path in paths]
        if not paths:
            raise DataError(f"{data}: no pictures found")
        twice = sorted({str(name) for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise DataError(f"{data}: several pictures would become {twice[0]}, expected names that differ")
    unreadable: list[str] = []
    kept = 0
    for path, name in zip(tqdm(paths, unit="image", mininterval=1.0), names, strict=True):
        target = out / name
        if target.exists():
            kept += 1
            continue
        try:
            rgb = read_picture(path).rgb
        except PictureError as error:
            unreadable.append(str(error))
            continue
        with option("--out"):
            make_folder(target.parent)
            write_picture(target, Picture(resize_short_side(rgb, min(short_side, *rgb.shape[:2]))))
    size = sum(file.stat().st_size for file in out.rglob("*.jpg")) if out.is_dir() else 0
    click.echo(f"{out}: {len(paths) - len(unreadable)} pictures, {size / 2**20:.1f} MiB")
    if kept:
        click.echo(f"{kept} of them were there already and are as they were, whatever their size", err=True)
    for line in unreadable:
        click.echo(f"left out: {line}", err=True)
    if unreadable:
        raise PictureError(f"--data: {len(unreadable)} of {len(paths)} pictures could not be read")


def main() -> None:
    """Entry point of `cisi-pack`."""
    run_command(pack, "cisi-pack")
