"""``mar bench``: training, sampling and likelihood speed, alone or beside a checkout of the published code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mar.cli.options import HeadOptions, Json, Overrides, Precision, key_values


def bench(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe with its data, or, without data: mar-base, mar-large, mar-huge (published sizes)."
        ),
    ] = "digits",
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Write the numbers to this JSON file.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Checkout of the published MAR, measured in the same run.")
    ] = None,
    reference_as_published: Annotated[
        bool,
        typer.Option(
            "--reference-as-published",
            help="Run the checkout in its own precision and with its own 100 head steps, to include the gain of our settings.",
        ),
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images of a batch; sampling is measured at 1 as well.")] = 16,
    seconds: Annotated[float, typer.Option(min=0, help="Time of each kind of work; --rounds is the minimum.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Minimum rounds of each kind of work.")] = 3,
    count: Annotated[
        bool,
        typer.Option(help="Count operations and memory, and time the parts of the reference's generation: more runs."),
    ] = True,
    only: Annotated[str, typer.Option(help="Comma-separated kinds of work: train, sample, nll.")] = "train,sample,nll",
    compile: Annotated[bool, typer.Option(help="Measure compiled code beside eager code.")] = False,
    precision: Annotated[Precision, typer.Option(help="Precision of matrix products; bf16: autocast.")] = "fp32",
    guidance: Annotated[float, typer.Option(help="Guidance scale of sampling, linear schedule; 1: off.")] = 1.0,
    temperature: Annotated[float, typer.Option(help="Temperature of sampling.")] = 1.0,
    head: HeadOptions = None,
    clock: Annotated[
        Literal["wall", "cpu"], typer.Option(help="cpu: processor time of this process, for a busy machine.")
    ] = "wall",
    json: Json = False,
) -> None:
    """Measure images per second of training, sampling and likelihood; memory, operations, share of the matrix peak.

    Examples:

        mar bench

        mar bench mar-base --batch 4 --only train --reference ../mar --out speed.json

        mar bench mar-base partition.k=16 --batch 2 --only sample --guidance 2.9 --head solver=unipc --reference ../mar

        mar bench mar-base --batch 4 --only train --precision bf16 --compile --reference ../mar --reference-as-published
    """
    options = key_values(head or [], "--head")
    if "=" in recipe:  # no recipe is named, only changes
        recipe, overrides = "digits", [recipe, *(overrides or ())]

    from dataclasses import asdict
    from json import dumps

    from mar.bench import contenders
    from mar.bench.run import run, tables
    from mar.core.files import write_atomic
    from mar.core.progress import wide_console

    console = wide_console()
    chosen, data = contenders.read(recipe, overrides or ())
    report = run(
        chosen, data, batch=batch, seconds=seconds, works=[work.strip() for work in only.split(",") if work.strip()],
        compile=compile, precision=precision, guidance=guidance, temperature=temperature, head=options,
        reference=reference, own_settings=reference_as_published, clock=clock, rounds=rounds, count=count,
        say=lambda line: None if json else console.print(line, style="dim"),
    )  # fmt: skip
    numbers = dumps(asdict(report), indent=2) + "\n"
    if json:
        print(numbers, end="")
    else:
        console.print(tables(report))
    if out is not None:
        write_atomic(out, numbers)
        if not json:
            console.print(f"written to {out}")
