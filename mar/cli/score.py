"""``mar score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional, cast

import typer

# ruff: noqa: UP045 - typer reads Optional


_NLL, _FID = "Likelihood", "FID"


def score(
    runs: Annotated[list[Path], typer.Argument(help="A run folder; with --matrix any number of them.")],
    nll: Annotated[bool, typer.Option("--nll", help="Likelihood along each plan.")] = False,
    fid: Annotated[bool, typer.Option("--fid", help="FID, IS, KID, precision and recall of samples.")] = False,
    matrix: Annotated[
        bool,
        typer.Option("--matrix", help="Every run along every plan, and each row compared with its run's own plan."),
    ] = False,
    sets: Annotated[
        bool, typer.Option("--sets", help="Cost of parallel generation along each ordering, and the best set sizes.")
    ] = False,
    exposure: Annotated[
        bool, typer.Option("--exposure", help="Each step's NLL on data beside that on the model's own samples.")
    ] = False,
    plans: Annotated[
        str,
        typer.Option(
            help="Comma-separated plans, e.g. raster,spiral/cosine:16,random/sizes:(1,3,60); default the training plan."
        ),
    ] = "",
    partitions: Annotated[
        str,
        typer.Option(
            help="Comma-separated partitions, e.g. singles,cosine:16: every one with every ordering of --plans."
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    n: Annotated[
        Optional[int],
        typer.Option(
            "-n",
            "--n",
            min=2,
            help="Images: scored (NLL; default all), generated (FID; default 1000), both (sets, exposure; default 256).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    last_weights: Annotated[bool, typer.Option("--last-weights", help="Not the averaged (EMA) ones.")] = False,
    paired_with: Annotated[
        str, typer.Option(help="A plan that the others are compared with, image by image.", rich_help_panel=_NLL)
    ] = "",
    kind: Annotated[
        Optional[str],
        typer.Option(help="Likelihood kind: exact, bound or ode; default the head's.", rich_help_panel=_NLL),
    ] = None,
    likelihood: Annotated[
        Optional[list[str]],
        typer.Option(help="A scoring option of the head, e.g. tolerance=1e-5, timesteps=100.", rich_help_panel=_NLL),
    ] = None,
    estimator: Annotated[
        str,
        typer.Option(
            help="exact (every AR step) or steps:8 (an unbiased draw of 8, stratified).",
            rich_help_panel=_NLL,
        ),
    ] = "exact",
    orders: Annotated[
        int,
        typer.Option(
            min=0,
            help="Random orders shared by all images: their mean, and the ensemble of 1, 2, 4, … of them.",
            rich_help_panel=_NLL,
        ),
    ] = 0,
    draws: Annotated[
        int,
        typer.Option(
            min=1,
            help="Dequantisations of each image, combined by log-mean-exp over whole images.",
            rich_help_panel=_NLL,
        ),
    ] = 1,
    target_se: Annotated[
        str,
        typer.Option(
            help="A standard error to reach, 0.01 (bits/dim) or 0.5nats (per image): ever more images are scored until it is reached.",
            rich_help_panel=_NLL,
        ),
    ] = "",
    budget: Annotated[
        Optional[float],
        typer.Option(min=0.01, help="GiB of activations; default 1/32 on a CPU, 1 on a GPU.", rich_help_panel=_NLL),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Of the network: fp32, or bf16, faster and some hundredths of a nat off.", rich_help_panel=_NLL
        ),
    ] = "fp32",
    past: Annotated[
        Optional[int],
        typer.Option(
            min=0,
            help="Of text and sound: every token once, after so many earlier ones or all there are, in overlapping windows.",
            rich_help_panel=_NLL,
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Score anew what was scored before with the same settings.", rich_help_panel=_NLL),
    ] = False,
    ks: Annotated[
        str, typer.Option(help="--sets: numbers of sets that are scored on test images.", rich_help_panel=_NLL)
    ] = "4,8,16",
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder of the matrix; default: matrix, beside the first run.", rich_help_panel=_NLL),
    ] = None,
    guidance: Annotated[
        float, typer.Option(min=0.0, help="A likelihood always has guidance 1.", rich_help_panel=_FID)
    ] = 1.0,
    temperature: Annotated[float, typer.Option(min=0.0, rich_help_panel=_FID)] = 1.0,
    head: Annotated[
        Optional[list[str]],
        typer.Option(help="A sampling option of the head, e.g. steps=25, top_k=5.", rich_help_panel=_FID),
    ] = None,
    features: Annotated[str, typer.Option(help="auto, inception or classifier.", rich_help_panel=_FID)] = "auto",
    inception_weights: Annotated[
        Optional[Path], typer.Option(help="torch-fidelity's Inception weights file.", rich_help_panel=_FID)
    ] = None,
    labelled: Annotated[
        str,
        typer.Option(help="For unlabelled data: kind:path of labelled data for the classifier.", rich_help_panel=_FID),
    ] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="Images generated at a time.", rich_help_panel=_FID)] = 256,
) -> None:
    """Score a run: exact or bounded likelihood per plan, and FID of its samples. Writes RUN/scores/*.json and *.png.

    An interrupted scoring goes on with the same command; what was scored before is kept.

    Examples:

        mar score runs/digits --nll

        mar score runs/digits --nll --plans raster,spiral,random/cosine:16 --paired-with raster

        mar score runs/digits --nll --plans raster,hilbert --partitions singles,linear:16,cosine:16

        mar score runs/mnist-binary --nll --plans random --orders 16 -n 256

        mar score runs/mnist-binary --nll --plans raster,random --estimator steps:16 --paired-with raster

        mar score runs/mnist-binary --nll --plans random --target-se 0.5nats

        mar score runs/mnist-diffusion --nll --kind ode --likelihood tolerance=1e-4

        mar score runs/spoken-digits --nll --past 512

        mar score runs/digits --sets --plans random,raster --ks 4,8,16

        mar score runs/digits --exposure --plans random,raster/cosine:16

        mar score runs/raster runs/spiral runs/random --matrix --plans raster,spiral,random,blocks

        mar score runs/digits --fid --plans random/cosine:16 -n 1000

        mar score runs/mnist-binary --fid --labelled mnist:~/data/mnist
    """
    from mar.cli.score_nll import Request, score_nll
    from mar.cli.scoring import options_of, product, whole_numbers
    from mar.core.errors import UserError, unknown
    from mar.likelihood.estimate import Estimator, Repeats
    from mar.run import Precision, load

    alone = nll or fid or sets or exposure
    if not (alone or matrix):
        raise UserError("say what to score: --nll, --fid, --sets, --exposure, or several of them; or --matrix")
    if matrix and (alone or (partitions and not plans)):
        raise UserError("--matrix stands alone, and its --partitions take --plans")
    if len(runs) > 1 and not matrix:
        raise UserError(f"{len(runs)} runs are scored together by --matrix alone: name one run")
    of_nll = {
        "--paired-with": paired_with, "--likelihood": likelihood, "--estimator": estimator != "exact", "--orders": orders,
        "--draws": draws > 1, "--target-se": target_se, "--precision": precision != "fp32", "--past": past is not None,
    }  # fmt: skip
    of_fid = {
        "--guidance": guidance != 1.0, "--temperature": temperature != 1.0, "--head": head, "--labelled": labelled,
        "--features": features != "auto", "--inception-weights": inception_weights,
    }  # fmt: skip
    for asked_for, mode, its_own in ((nll or matrix, "--nll", of_nll), (fid, "--fid", of_fid)):
        if not asked_for and (unread := [name for name, given in its_own.items() if given]):
            raise UserError(f"{', '.join(unread)}: of {mode} alone, which is not asked for")
    if split not in ("train", "validation", "test"):
        raise unknown("split", split, ("train", "validation", "test"))
    if precision not in ("fp32", "bf16"):
        raise unknown("precision", precision, ("fp32", "bf16"))
    if features not in ("auto", "inception", "classifier"):
        raise unknown("features", features, ("auto", "inception", "classifier"))
    weights, memory = "last" if last_weights else "ema", int(budget * 2**30) if budget else None

    def request(chosen: list[str]) -> Request:
        return Request(
            tuple(chosen), product(paired_with, "", "")[0] if paired_with else "", split, n, kind,
            Estimator.parse(estimator), Repeats(orders=orders, draws=draws), target_se,
            options_of(likelihood or [], "scoring"), memory, seed, weights, again, cast(Precision, precision), past,
        )  # fmt: skip

    if matrix:
        from mar.cli.score_matrix import score_runs

        score_runs(runs, request(product(plans, partitions, "") if plans else []), out)
        return
    loaded = load(runs[0], ema=not last_weights)
    chosen = product(plans, partitions, loaded.training_plan)
    if nll:
        score_nll(loaded, request(chosen))
    if sets:
        from mar.cli.score_sets import score_sets

        score_sets(loaded, chosen if plans else [], whole_numbers(ks, "--ks"), n, seed, memory, weights, kind)
    if exposure:
        from mar.cli.score_exposure import score_exposure

        score_exposure(loaded, chosen, split, n, kind, seed, memory, weights)
    if fid:
        from mar.cli.fid_sources import Features, Looks
        from mar.cli.generating import Setting
        from mar.cli.score_fid import FidRequest, score_run
        from mar.core.processes import Processes

        sampled = options_of(head or [], "sampling")
        settings = (Setting(plan, guidance, temperature=temperature, head=sampled, seed=seed) for plan in chosen)
        looks = Looks(cast(Features, features), inception_weights, labelled, seed)
        asked = FidRequest(
            tuple(settings), n or 1000, split=split, looks=looks, weights=weights, batch_size=batch_size, again=again
        )
        score_run(loaded, Processes(), asked)
