"""``mar score RUN --fid``: samples of each plan against real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from mar import build
from mar.commands.progress import bar, wide_console
from mar.commands.scoring import save
from mar.config import parse
from mar.data.base import Data
from mar.evaluation.fid import score_images
from mar.run import Run

Features = Literal["auto", "inception", "classifier"]


def score_fid(
    run: Run, plans: list[str], split: str, n: int, guidance: float, temperature: float,
    head: dict[str, Any], features: Features,
    inception_weights: Path | None, labelled: str, seed: int, batch_size: int, weights: str,
) -> None:  # fmt: skip
    """FID and the rest of samples along each plan, beside the noise floor of real images."""
    cache = run.folder.path / "scores" / "features"
    other = _labelled(labelled) if labelled else None
    table = Table(title=f"{n} samples against {run.data.name} {split}, {weights} weights")
    for column in ("plan", "FID ↓", "noise floor", "KID ↓", "IS ↑", "precision ↑", "recall ↑"):
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=column == "plan")
    result = None
    for plan in plans:
        with bar(f"sampling {plan}") as progress:
            x = run.sample(
                n, plan, guidance=guidance, temperature=temperature, seed=seed, batch_size=batch_size,
                progress=progress, **head,
            )  # fmt: skip
        result = score_images(
            x, run.images, cache, extractor=features, weights=inception_weights, labelled=other, on=split, seed=seed,
            device=run.device,
        )  # fmt: skip
        sampling = {"guidance": guidance, "temperature": temperature, "head": head, "seed": seed}
        sampling |= {"weights": weights, "split": split}
        save(run, "fid", plan, {"plan": plan, "n_images": n, **sampling, **result.to_dict()})
        g, floor = result.generated, result.noise_floor
        table.add_row(
            plan, f"{g.fid:.3f}", f"{floor.fid:.3f}", f"{g.kid_mean:.4f} ± {g.kid_std:.4f}",
            f"{g.inception_score_mean:.2f} ± {g.inception_score_std:.2f}", f"{g.precision:.3f}", f"{g.recall:.3f}",
        )  # fmt: skip
    assert result is not None
    console = wide_console()
    console.print(table)
    console.print(
        f"features: {result.extractor}; {result.n_real} real images; KID subsets of {result.kid_subset_size}; "
        f"the noise floor is real {result.noise_floor_split} images scored alike (docs/evaluation.md)"
    )
    for note in result.notes:
        console.print(f"note: {note}")
    console.print(f"wrote {len(plans)} JSON file(s) to {run.folder.path / 'scores'}")


def _labelled(text: str) -> Data:
    """``kind:path`` -> the data set whose labels train the classifier."""
    kind, _, path = text.partition(":")
    options = {"path": str(Path(path).expanduser())} if path else {}
    return build.data(parse({"data": {"kind": kind, **options}}))
