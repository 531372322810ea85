"""``mar score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# ruff: noqa: UP045 - typer reads Optional


def score(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    nll: Annotated[bool, typer.Option("--nll", help="Likelihood along each plan.")] = False,
    fid: Annotated[bool, typer.Option("--fid", help="FID, IS, KID, precision and recall of samples.")] = False,
    plans: Annotated[
        str,
        typer.Option(
            help="Comma-separated plans, e.g. raster,spiral/cosine:16,random/sizes:(1,3,60); default the training plan."
        ),
    ] = "",
    paired_with: Annotated[str, typer.Option(help="A plan that the others are compared with, image by image.")] = "",
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    n: Annotated[
        Optional[int],
        typer.Option("-n", "--n", min=2, help="Images: scored (NLL; default all) or generated (FID; default 1000)."),
    ] = None,
    kind: Annotated[
        Optional[str], typer.Option(help="Likelihood kind: exact, bound or ode; default the head's.")
    ] = None,
    guidance: Annotated[float, typer.Option(min=0.0, help="FID only; a likelihood always has guidance 1.")] = 1.0,
    temperature: Annotated[float, typer.Option(min=0.0, help="FID only.")] = 1.0,
    head: Annotated[
        Optional[list[str]], typer.Option(help="FID only: a sampling option of the head, e.g. steps=25, top_k=5.")
    ] = None,
    features: Annotated[str, typer.Option(help="FID: auto, inception or classifier.")] = "auto",
    inception_weights: Annotated[
        Optional[Path], typer.Option(help="FID: torch-fidelity's Inception weights file.")
    ] = None,
    labelled: Annotated[
        str, typer.Option(help="FID of unlabelled data: kind:path of labelled data for the classifier.")
    ] = "",
    budget: Annotated[
        Optional[float], typer.Option(min=0.01, help="GiB of activations; default 0.125 on a CPU, 1 on a GPU.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="FID: images generated at a time.")] = 256,
    last_weights: Annotated[bool, typer.Option("--last-weights", help="Not the averaged (EMA) ones.")] = False,
) -> None:
    """Score a run: exact or bounded likelihood per plan, and FID of its samples. Writes RUN/scores/*.json.

    Examples:

        mar score runs/digits --nll

        mar score runs/digits --nll --plans raster,spiral,random/cosine:16 --paired-with raster

        mar score runs/digits --fid --plans random/cosine:16 -n 1000

        mar score runs/mnist-binary --fid --labelled mnist:~/data/mnist
    """
    from mar.commands.scoring import head_options, score_fid, score_nll
    from mar.errors import UserError, unknown
    from mar.run import load
    from orderings import values

    if not (nll or fid):
        raise UserError("say what to score: --nll, --fid, or both")
    if split not in ("train", "validation", "test"):
        raise unknown("split", split, ("train", "validation", "test"))
    if features not in ("auto", "inception", "classifier"):
        raise unknown("features", features, ("auto", "inception", "classifier"))
    loaded = load(run, ema=not last_weights)
    chosen = [p.strip() for p in values.split(plans, ",") if p.strip()] or [loaded.training_plan]
    weights = "last" if last_weights else "ema"
    if nll:
        score_nll(loaded, chosen, paired_with, split, n, kind, int(budget * 2**30) if budget else None, seed, weights)
    if fid:
        score_fid(
            loaded, chosen, split, n or 1000, guidance, temperature, head_options(head or []), features, inception_weights, labelled, seed,
            batch_size, weights,
        )  # fmt: skip
