"""One model generating along several orderings, side by side: pixels appear as they are drawn, unknown ones are tinted.

usage: python scripts/orderings_gif.py RUN OUT.gif [ORDERING …]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw

import mar
from mar.sampling.output import to_bytes

ORDERINGS = ("raster", "spiral", "hilbert", "blocks:4", "subsample", "diagonal", "random")
ROWS, SIDE, GAP, TOP = 3, 96, 8, 22  # samples per ordering; pixels
UNKNOWN = torch.tensor([214, 224, 240], dtype=torch.uint8)


def frames(run: mar.Run, ordering: str) -> list[torch.Tensor]:
    """(ROWS, H, W, 3) uint8 before the first step and after each."""
    known_BL = torch.zeros(ROWS, len(run.grid), dtype=torch.bool)
    shown: list[torch.Tensor] = []

    def show(step: int, token: torch.Tensor, target_BL: torch.Tensor) -> None:
        known_BL.logical_or_(target_BL.cpu())
        pixels = to_bytes(run.model.tokenizer.decode(token).cpu(), run.data.spec.levels)
        shown.append(torch.where(known_BL.reshape(*pixels.shape[:3], 1), pixels, UNKNOWN))

    run.sample(ROWS, ordering, labels=torch.tensor([3, 8, 2]), seed=1, on_step=show)
    return shown


def main() -> None:
    run, out = mar.load(sys.argv[1]), Path(sys.argv[2])
    columns = {name: frames(run, name) for name in sys.argv[3:] or ORDERINGS}
    steps = len(next(iter(columns.values())))
    pictures = []
    for step in range(steps):
        canvas = Image.new("RGB", (GAP + len(columns) * (SIDE + GAP), TOP + ROWS * (SIDE + GAP)), "white")
        draw = ImageDraw.Draw(canvas)
        for column, (name, shown) in enumerate(columns.items()):
            left = GAP + column * (SIDE + GAP)
            draw.text((left, 5), name, fill="black")
            for row in range(ROWS):
                image = Image.fromarray(shown[step][row].numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)
                canvas.paste(image, (left, TOP + row * (SIDE + GAP)))
        pictures.append(canvas.quantize(48))
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(out, save_all=True, append_images=pictures[1:], duration=[90] * (steps - 1) + [2500], loop=0)
    print(f"{steps} frames: {out}")


if __name__ == "__main__":
    main()
