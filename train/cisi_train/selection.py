"""Which checkpoint of a run is its best."""

from __future__ import annotations

import dataclasses

from cisi_train.recipe import Selection


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A checkpoint, by what it makes of the held-out pictures with the centre hole.

    step: iterations done.
    psnr_db: mean over the holes.
    lpips: mean over the pictures; None when it was not measured.
    has_all_losses: the image and code losses alone (`--l1-first`) were over.
    """

    step: int
    psnr_db: float
    lpips: float | None
    has_all_losses: bool

    def is_better_than(self, other: Candidate | None, selection: Selection) -> bool:
        """Whether it takes the other's place as `best.pt`.

        A checkpoint with all losses goes before any without: L1 alone makes blur, which PSNR prefers. Among those with,
        the selection decides; among those without, PSNR.
        """
        if other is None or selection == "last":
            return True
        if self.has_all_losses != other.has_all_losses:
            return self.has_all_losses
        if selection == "lpips" and self.has_all_losses and self.lpips is not None and other.lpips is not None:
            return self.lpips < other.lpips
        return self.psnr_db > other.psnr_db

    def __str__(self) -> str:
        lpips = "" if self.lpips is None else f", LPIPS {self.lpips:.4f}"
        return f"PSNR {self.psnr_db:.2f} dB{lpips}"
