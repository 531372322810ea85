"""One picture of a run's samples under every ordering: a row of samples for each, beside its name.

usage: python scripts/contact_sheet.py RUN OUT.png [--partition cosine:16] [--columns 10] [--guidance 1.0] [KEY=VALUE …]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw

import mar
from mar.cli.options import key_values
from mar.sampling.output import image_grid
from orderings import ORDERINGS, Unsupported

WIDTH = 110  # pixels for the names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--partition", default="cosine:16")
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("head", nargs="*", help="sampling options of the head, e.g. steps=50")
    options = parser.parse_intermixed_args()
    run = mar.load(options.run)
    head = key_values(options.head, "--head")
    rows = []
    for name in ORDERINGS:
        plan = f"{name}/{options.partition}"
        try:
            x = run.sample(options.columns, plan, guidance=options.guidance, seed=options.seed, **head)
        except Unsupported as error:
            print(f"{name}: {error}")
            continue
        rows.append((name, image_grid(x, run.data.spec.levels, columns=options.columns, side=40)))
    height = rows[0][1].height
    sheet = Image.new("RGB", (WIDTH + rows[0][1].width, height * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (name, picture) in enumerate(rows):
        draw.text((6, k * height + height // 2 - 6), name, fill="black")
        sheet.paste(picture, (WIDTH, k * height))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.out)
    print(f"{len(rows)} orderings, plan ORDERING/{options.partition}, {torch.get_num_threads()} threads: {options.out}")


if __name__ == "__main__":
    main()
