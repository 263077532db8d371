"""`cisi-run`: a photograph and a mask in, the inpainted photograph out."""

from __future__ import annotations

import dataclasses
import statistics
import time
from pathlib import Path

import click

from cisi_runtime.command import option, run_command


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--mask", type=click.Path(path_type=Path), help="Hole mask of the same size; white = hole.")
@click.option("--mask-from-alpha", is_flag=True, help="Instead: what is transparent in IMAGE; it becomes opaque.")
@click.option("--invert-mask", is_flag=True, help="Black is the hole.")
@click.option("--dilate", type=click.IntRange(0), default=0, help="Grow the hole by so many pixels.  [default: 0]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Result; its suffix is the format."
)
@click.option("--model", type=click.Path(path_type=Path), help="ONNX graph or engine; default: the graph that ships.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt"]),
    default="auto",
    show_default=True,
    help="auto: onnxruntime for a graph, tensorrt for an engine.",
)
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads of the CPU's backends; default: all cores.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Also write original, input and result side by side.")
@click.option("--repeat", type=click.IntRange(1), default=1, help="Run the network N times, to print a median latency.")
def run(
    image: Path,
    mask: Path | None,
    mask_from_alpha: bool,
    invert_mask: bool,
    dilate: int,
    output: Path,
    model: Path | None,
    backend: str,
    threads: int,
    sheet: Path | None,
    repeat: int,
) -> None:
    """Inpaint IMAGE where the mask is white (128 and above).

    A graph runs on ONNX Runtime on the CPU, an engine on the GPU that it was built for. In PNG, WebP, TIFF and BMP
    output every known pixel is byte-identical. Of a file's metadata its orientation is applied and its RGB colour
    profile kept; the rest is not written yet.
    """
    if (mask is None) != mask_from_alpha:
        raise click.UsageError("expected --mask or --mask-from-alpha, and not both")
    if sheet is not None and sheet == output:
        raise click.UsageError("--sheet and --output name the same file")
    import numpy as np

    from cisi_runtime import pictures
    from cisi_runtime.contract import MASK_THRESHOLD
    from cisi_runtime.files import check_writable, whole_file
    from cisi_runtime.masks import dilated

    with option("IMAGE"):
        picture = pictures.read_picture(image)
    if mask is None:
        if picture.alpha is None:
            raise click.UsageError(f"--mask-from-alpha: {image} has no alpha channel")
        hole_mask = picture.alpha < MASK_THRESHOLD
    else:
        with option("--mask"):
            hole_mask = pictures.read_mask(mask, picture.size)
    if invert_mask:
        hole_mask = ~hole_mask
    if dilate:
        hole_mask = dilated(hole_mask, dilate)
    if mask is None and picture.alpha is not None:
        picture = dataclasses.replace(picture, alpha=np.where(hole_mask, np.uint8(255), picture.alpha))
    with option("--output"):
        pictures.check_output_format(output, has_alpha=picture.alpha is not None)
        check_writable(output)
    if sheet is not None:
        with option("--sheet"):
            pictures.check_output_format(sheet)
            check_writable(sheet)
    is_copied = not hole_mask.any() and output.suffix.lower() == image.suffix.lower()
    if not hole_mask.any():
        how = "copied as it is" if is_copied else f"only converted to {output.suffix}"
        click.echo(f"{mask or image}: the mask has no hole: the picture is {how}", err=True)
        completed, report = picture.rgb, "no hole"
    else:
        from cisi_runtime.inpainter import SHIPPED_GRAPH, Inpainter
        from cisi_runtime.self_check import check_on_this_cpu

        with option("--model"):
            inpainter = Inpainter(model or SHIPPED_GRAPH, backend, threads=threads)
            warning = check_on_this_cpu(inpainter.backend, model or SHIPPED_GRAPH)
        if warning is not None:
            click.echo(f"warning: {warning}", err=True)
        click.echo(inpainter.chosen, err=True)
        latencies_ms = []
        for _ in range(repeat):
            start = time.perf_counter()
            completed = inpainter(picture.rgb, hole_mask)
            latencies_ms.append((time.perf_counter() - start) * 1e3)
        first = f", first call {latencies_ms[0]:.0f} ms" if repeat > 1 else " (first call)"
        where = inpainter.chosen.partition(":")[0]
        report = (
            f"{where}, {statistics.median(latencies_ms):.0f} ms{f' median of {repeat}' if repeat > 1 else ''}{first}"
        )
    with option("--output"):
        if is_copied:
            content = image.read_bytes()
            with whole_file(output) as temporary:
                temporary.write_bytes(content)
        else:
            pictures.write_picture(output, dataclasses.replace(picture, rgb=completed))
    if sheet is not None:
        from cisi_runtime.sheet import picture_sheet, show_hole

        rows = [[picture.rgb, show_hole(picture.rgb, hole_mask), completed]]
        with option("--sheet"):
            pictures.write_picture(sheet, pictures.Picture(picture_sheet(rows)))
    height, width = picture.size
    click.echo(f"{output}: {width}x{height}, hole {hole_mask.mean():.1%}, {report}")


def main() -> None:
    """Entry point of `cisi-run`."""
    run_command(run, "cisi-run")
