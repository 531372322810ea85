"""Measure speculation with a trained run: passes, speed, and whether the samples are those of one token at a time.

    python scripts/speculation.py runs/digits --n 256 --orders raster,random,halton,subsample --drafts self:8,jacobi:8

Rows of an order: one token at a time; each draft; and independent sets of as many passes as the best draft. The NLL is
that of the samples, one token at a time along the same order: only chance separates speculated ones from the first row.
"window" is what a model of independent windows loses: the NLL of the first row's samples in sets of 8, minus theirs one
at a time, in nats a token; drafts are rejected where it is large.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import mar
from mar.bench.measure import synchronise
from mar.core.files import write_atomic
from mar.core.table import Column, Table
from mar.metrics.fid import score_images
from mar.run import Run
from mar.sampling.speculate import Speculation

_WINDOW = 8  # tokens


@dataclass(frozen=True)
class Row:
    order: str
    how: str
    passes: float  # of the model for each image
    seconds: float
    n: int
    nats: float  # of an image, one token at a time
    nats_se: float
    window: float | None = None  # nats a token lost by independent windows
    fid: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=256, help="images of a row")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--orders", default="raster,random,halton,subsample")
    parser.add_argument("--drafts", default="self:8,jacobi:4,jacobi:8,jacobi:16")
    parser.add_argument("--fid", action="store_true", help="score the images against the run's test split")
    parser.add_argument("--out", type=Path, default=None, help="also write the table as Markdown")
    asked = parser.parse_args()
    run, rows = mar.load(asked.run), []
    for order in asked.orders.split(","):
        rows += measure(run, order, asked)
    columns: list[Column[Row]] = [
        Column("order", lambda row: row.order, words=True),
        Column("drawn", lambda row: row.how, words=True),
        Column("passes an image", lambda row: row.passes, "lower", 1),
        Column("images/s", lambda row: row.n / row.seconds, "higher", text=lambda row: f"{row.n / row.seconds:.3g}"),
        Column("nats/image", lambda row: row.nats, text=lambda row: f"{row.nats:.2f} ± {row.nats_se:.2f}"),
        Column("window, nats/token", lambda row: row.window, "lower"),
        Column("FID", lambda row: row.fid, "lower", 2),
    ]
    note = f"{asked.run}: {asked.n} images, batches of {asked.batch_size}, on {run.device}; median of 3 runs"
    table = Table(columns, rows, [note], "speculation").without_empty()
    print(table.markdown())
    if asked.out is not None:
        write_atomic(asked.out, table.markdown())


def measure(run: Run, order: str, asked: argparse.Namespace) -> list[Row]:
    """Return the rows of an order."""
    n_tokens = len(run.grid)
    labels = torch.arange(asked.n) % run.model.n_classes if run.model.n_classes else None

    def row(how: str, plan: str, passes: float = 0.0, **options) -> tuple[Row, torch.Tensor]:
        seconds = []
        for _ in range(4):  # the first warms up
            ahead = Speculation.parse(how) if options else None
            synchronise(run.device)
            start = time.perf_counter()
            images = run.sample(asked.n, plan, seed=1, batch_size=asked.batch_size, speculate=ahead)
            synchronise(run.device)
            seconds.append(time.perf_counter() - start)
        if ahead is not None:
            passes = float(torch.cat(ahead.passes).float().mean())
        found = run.nll(images, order, labels)
        fid = score_images(images, run.images, run.folder.path / "scores").generated.fid if asked.fid else None
        nats, error = found.nats_per_image, found.standard_error_nats
        return Row(order, how, passes, sorted(seconds[1:])[1], asked.n, nats, error, fid=fid), images

    singles, images = row("one at a time", order, n_tokens)
    lost = run.nll(images, f"{order}/equal:{_WINDOW}", labels).nats_per_image - singles.nats
    singles = replace(singles, window=lost / n_tokens)
    drafts = [row(draft, order, speculate=True)[0] for draft in asked.drafts.split(",")]
    least = min(drafts, key=lambda found: found.passes)
    size = -(-n_tokens // max(1, round(least.passes)))
    sets = row(f"sets of {size}", f"{order}/equal:{size}", -(-n_tokens // size))[0]
    return [singles, *drafts, sets]


if __name__ == "__main__":
    main()
