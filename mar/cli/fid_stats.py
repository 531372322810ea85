"""``mar fid-stats``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional, cast

import typer

# ruff: noqa: UP045 - typer reads Optional


def fid_stats(
    source: Annotated[
        str, typer.Argument(help="kind:path of a data set, a run (its data), a store of images, or a folder of images.")
    ],
    out: Annotated[Path, typer.Option(help="The .npz file to write.")],
    split: Annotated[str, typer.Option(help="Of a data set: train, validation or test.")] = "train",
    size: Annotated[
        Optional[int], typer.Option(min=1, help="Side that a folder's images are cropped to; default the first's.")
    ] = None,
    features: Annotated[str, typer.Option(help="auto, inception or classifier.")] = "auto",
    inception_weights: Annotated[Optional[Path], typer.Option(help="torch-fidelity's Inception weights file.")] = None,
    labelled: Annotated[
        str, typer.Option(help="For images without labels: kind:path of labelled data for the classifier.")
    ] = "",
) -> None:
    """Mean and covariance of the features of real images, in ADM's layout (mu, sigma), for mar fid --against.

    Examples:

        mar fid-stats folder:imagenet --out imagenet256.npz --inception-weights weights.pth

        mar fid-stats fashion-mnist:~/data/fashion-mnist --split test --out fashion.npz
    """
    from mar.cli.fid_sources import Features, Looks, device, open_source, statistics_of
    from mar.core.errors import UserError, unknown
    from mar.core.progress import wide_console
    from mar.core.spec import DataSpec
    from mar.metrics.images import write_statistics

    if features not in ("auto", "inception", "classifier"):
        raise unknown("features", features, ("auto", "inception", "classifier"))
    if out.suffix != ".npz":
        raise UserError(f"--out is an .npz file, not {out}")
    found = open_source(source, split, DataSpec((3, size, size), 256) if size else None)
    if found.images is None:
        raise UserError(f"{source} holds statistics already")
    looks = Looks(cast(Features, features), inception_weights, labelled, device=device())
    statistics = statistics_of(found.images, found.data, looks)
    write_statistics(statistics, out)
    wide_console().print(f"{out}: {statistics.n_images} images of {found.name}, features {statistics.extractor}")
