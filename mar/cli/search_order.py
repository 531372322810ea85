"""``mar search-order``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# ruff: noqa: UP045 - typer reads Optional


def search_order(
    run: Annotated[Path, typer.Argument(help="A run folder of an any-order model.")],
    partition: Annotated[str, typer.Option(help="The sets to find an order for, e.g. singles, cosine:16.")] = "singles",
    minutes: Annotated[float, typer.Option(min=0.0, help="To search, in all; 0 reports what was found.")] = 10.0,
    evaluations: Annotated[Optional[int], typer.Option(min=0, help="Changes of the order to try, in all.")] = None,
    n: Annotated[
        int,
        typer.Option(
            "-n", "--n", min=8, help="Images to search on; a quarter of them only decide which order is kept."
        ),
    ] = 256,
    split: Annotated[str, typer.Option(help="Of those images: validation or train.")] = "validation",
    start: Annotated[
        str, typer.Option(help="Comma-separated fixed orders; lowest-entropy and highest-entropy are found greedily.")
    ] = "lowest-entropy,highest-entropy,raster,fixed-random:0",
    test_n: Annotated[
        Optional[int],
        typer.Option(
            min=2,
            help="Test images of the report; default all, or 256 (GPU: 1000) where a network needs a pass per step.",
        ),
    ] = None,
    kind: Annotated[Optional[str], typer.Option(help="Likelihood kind; default the head's.")] = None,
    budget: Annotated[
        Optional[float], typer.Option(min=0.01, help="GiB of activations; default 1/32 on a CPU, 1 on a GPU.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    name: Annotated[str, typer.Option(help="Of the files in RUN/orders; default searched-PARTITION.")] = "",
    last_weights: Annotated[bool, typer.Option("--last-weights", help="Not the averaged (EMA) ones.")] = False,
) -> None:
    """Find a fixed order that lowers the NLL of a trained any-order model, and test it beside raster and random.

    Writes RUN/orders/NAME.json, an order that every command takes as file:PATH, and NAME.png, NAME.search.json,
    NAME.result.json. Ctrl-C keeps the best order so far; the same command goes on, and more minutes search longer.

    Examples:

        mar search-order runs/digits --minutes 20

        mar search-order runs/digits --partition cosine:16 --evaluations 2000

        mar search-order runs/digits --minutes 0
    """  # fmt: skip
    from mar.cli.searching import Request, search_and_report
    from mar.core.errors import unknown
    from mar.order_search.search import Budget
    from mar.run import load
    from orderings import text as values

    if split not in ("validation", "train"):
        raise unknown("split to search on", split, ("validation", "train"))
    starts = tuple(text.strip() for text in values.split(start, ",") if text.strip())
    spent = Budget(minutes, evaluations)
    request = Request(
        partition, spent, n, split, starts, test_n, kind, int(budget * 2**30) if budget else None, seed, name
    )
    search_and_report(load(run, ema=not last_weights), request)
