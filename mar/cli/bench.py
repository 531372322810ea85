"""``mar bench``: training, sampling and likelihood speed, alone or beside a checkout of the published code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

# ruff: noqa: UP045 - typer reads Optional


def bench(
    recipe: Annotated[
        str,
        typer.Argument(
            help="mar-base, mar-large, mar-huge (published sizes), pixels-1024, text-256, sound-4000: no data needed; or any recipe whose data are there."
        ),
    ] = "digits",
    overrides: Annotated[Optional[list[str]], typer.Argument(help="key=value changes of the recipe.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Write the numbers as JSON.")] = None,
    reference: Annotated[
        Optional[Path], typer.Option(help="Checkout of the published MAR, measured in the same run.")
    ] = None,
    reference_as_published: Annotated[
        bool,
        typer.Option(
            "--reference-as-published",
            help="The checkout in its own precision and with its own 100 head steps, not in ours: what our settings gain, too.",
        ),
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images of a batch; sampling is measured at 1 as well.")] = 16,
    seconds: Annotated[float, typer.Option(help="For each kind of work; at least --rounds.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="At least so many rounds of each kind of work.")] = 3,
    count: Annotated[
        bool,
        typer.Option(help="Also count operations and memory, and take the reference's generation apart: more runs."),
    ] = True,
    only: Annotated[
        str, typer.Option(help="Some of train,sample,nll, and when asked for: cache, streams.")
    ] = "train,sample,nll",
    compile: Annotated[bool, typer.Option(help="Measure compiled code beside eager code.")] = False,
    precision: Annotated[str, typer.Option(help="fp32 or bf16 (autocast).")] = "fp32",
    guidance: Annotated[float, typer.Option(help="Guidance scale of sampling, linear schedule; 1 is none.")] = 1.0,
    temperature: Annotated[float, typer.Option(help="Of sampling.")] = 1.0,
    head_steps: Annotated[
        Optional[int], typer.Option(min=2, help="Diffusion head: timesteps of sampling and NLL.")
    ] = None,
    solver: Annotated[
        Optional[str], typer.Option(help="Diffusion head: ancestral, ddim, dpm-solver++, unipc, heun.")
    ] = None,
    sampling: Annotated[
        Optional[list[str]],
        typer.Option(help="A sampling option of the head or the network, e.g. final_steps=10, refresh=4."),
    ] = None,
    clock: Annotated[
        str, typer.Option(help="wall, or cpu: this process's processor time, for a busy machine.")
    ] = "wall",
    budget: Annotated[
        Optional[float], typer.Option(min=0.01, help="NLL: GiB of activations; default 1/32 on a CPU, 1 on a GPU.")
    ] = None,
) -> None:
    """Images per second of training, sampling and likelihood; memory, operations, share of the matrix peak.

    Examples:

        mar bench

        mar bench mar-base --batch 4 --only train --reference ../mar --out speed.json

        mar bench pixels-1024 partition=equal:16 --batch 2 --only nll

        mar bench text-256 --only cache,streams

        mar bench sound-4000 --batch 1 --only cache

        mar bench mar-base partition.k=16 --batch 2 --only sample --guidance 2.9 --reference ../mar

        mar bench mar-base --batch 4 --only train --precision bf16 --compile --reference ../mar --reference-as-published
    """
    import json

    from rich.console import Console

    from mar.bench import contenders
    from mar.bench.run import run, tables
    from mar.cli.scoring import options_of

    console = Console()
    head: dict[str, Any] = {} if head_steps is None else {"steps": head_steps, "bound_steps": head_steps}
    if solver is not None:
        head["solver"] = solver
    head |= options_of(sampling or [], "sampling")
    if "=" in recipe:  # no recipe is named, only changes
        recipe, overrides = "digits", [recipe, *(overrides or ())]
    chosen, data = contenders.read(recipe, overrides or ())
    report = run(
        chosen,
        data,
        batch=batch,
        seconds=seconds,
        works=[work.strip() for work in only.split(",") if work.strip()],
        compile=compile,
        precision=precision,
        guidance=guidance,
        temperature=temperature,
        head=head,
        reference=reference,
        own_settings=reference_as_published,
        clock=clock,
        budget=int(budget * 2**30) if budget else None,
        rounds=rounds,
        count=count,
        say=lambda line: console.print(f"[dim]{line}"),
    )
    console.print(tables(report))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
        console.print(f"written to {out}")
