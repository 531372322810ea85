"""``mar bench``: training, sampling and likelihood speed, alone or beside a checkout of the published code."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

from mar.cli.options import (
    Device,
    Guidance,
    HeadOptions,
    Json,
    Overrides,
    Precision,
    Temperature,
    arg,
    key_values,
    listed,
    opt,
    print_tables,
    printer,
)
from mar.core.files import check_file, write_atomic


def bench(
    recipe: Annotated[str, arg("A recipe with its data, or, without data: mar-base, mar-large, mar-huge.")] = "digits",
    overrides: Overrides = None,
    out: Annotated[Path | None, opt("Write the numbers to this JSON file.")] = None,
    reference: Annotated[Path | None, opt("Checkout of the published MAR, measured in the same run.")] = None,
    reference_as_published: Annotated[
        bool, opt("Run the checkout in its own precision and with its own 100 head steps.", "--reference-as-published")
    ] = False,
    batch: Annotated[int, opt("Images of a batch; sampling is measured at 1 as well.", min=1)] = 16,
    seconds: Annotated[float, opt("Time of each kind of work; --rounds is the minimum.", min=0)] = 10.0,
    rounds: Annotated[int, opt("Minimum rounds of each kind of work.", min=1)] = 3,
    count: Annotated[bool, opt("Count operations and memory, and time the reference's parts; takes longer.")] = True,
    only: Annotated[str, opt("Comma-separated kinds of work: train, sample, nll.")] = "train,sample,nll",
    compile: Annotated[bool, opt("Measure compiled code beside eager code.")] = False,
    precision: Annotated[Precision, opt("Precision of matrix products; bf16: autocast.")] = "fp32",
    device: Device = "",
    guidance: Guidance = 1.0,
    temperature: Temperature = 1.0,
    head: HeadOptions = None,
    clock: Annotated[Literal["wall", "cpu"], opt("cpu: processor time of this process, for a busy machine.")] = "wall",
    json: Json = False,
) -> None:
    """Measure images/s of training, sampling and likelihood.

    Memory, operations and the share of the matrix peak as well, alone or beside the published code.

    Examples:

        mar bench mar-base partition.k=16 --batch 2 --only sample --guidance 2.9 --head solver=unipc --reference ../mar
        mar bench mar-base --batch 4 --only train --precision bf16 --compile --reference ../mar --reference-as-published
    """
    if out is not None:
        check_file(out)
    options = key_values(head or [], "--head")
    if "=" in recipe:  # no recipe is named, only changes
        recipe, overrides = "digits", [recipe, *(overrides or ())]

    from mar.bench import contenders
    from mar.bench.run import run, tables

    chosen, data = contenders.read(recipe, overrides or ())
    report = run(
        chosen, data, batch=batch, seconds=seconds, works=listed(only),
        compile=compile, precision=precision, guidance=guidance, temperature=temperature, head=options,
        reference=reference, own_settings=reference_as_published, clock=clock, rounds=rounds, count=count,
        say=printer(json),
    )  # fmt: skip
    numbers = dumps(asdict(report), indent=2) + "\n"
    if out is not None:
        write_atomic(out, numbers)
    if json:
        print(numbers, end="")
    else:
        print_tables([tables(report)], False, *([f"wrote {out}"] if out is not None else []))
