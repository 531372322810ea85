"""``mar score RUN --exposure``: the NLL of each step on data beside that on the model's own samples."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mar.cli.scoring import save, scores_folder
from mar.cli.units import Units
from mar.core.errors import Unsupported
from mar.core.progress import bar, wide_console
from mar.likelihood.exposure import Exposure, exposure
from mar.reports.exposure import draw_exposure
from mar.run import Run
from mar.sampling.samplers import generate

IMAGES = 256
_SHARES = 8  # rows of the table: the order in so many parts


def score_exposure(
    run: Run,
    plans: Sequence[str],
    split: str = "test",
    n: int | None = None,
    kind: str | None = None,
    seed: int = 0,
    budget: int | None = None,
    weights: str = "ema",
) -> None:
    """Along each plan: RUN/scores/exposure-PLAN-….json and .png, and a table of parts of the order.

    Args:
        plans: short texts.
        split: where the data come from.
        n: so many images, spread over it, and as many samples; None: 256.
        budget: bytes of activations; None: what suits the device.

    Raises:
        Unsupported: a plan whose order is found while the model generates.
        UserError: RUN/scores cannot be written.
    """
    scores_folder(run)
    chosen = [run.plans(plan) for plan in plans]
    for plan in chosen:
        if plan.rule is not None or plan.learned:
            raise Unsupported(f"--exposure compares images and samples along one plan; {plan.text} finds one for each")
    images, labels = run.some(split, n or IMAGES)
    labels = labels if run.model.n_classes else None
    console = wide_console()
    for plan in chosen:
        with bar(f"exposure {plan.text}") as progress:
            result = exposure(
                run.model, images, labels, plan.sample, lambda rows, label_B, noise: generate(run.model, rows, label_B, noise),
                plan.text, seed, kind, budget, progress,
            )  # fmt: skip
        content = {"split": split, "seed": seed, "weights": weights, **result.to_dict()}
        file = save(run, "exposure", plan.text, content)
        example = Units.of_run(run).example
        title = f"{run.data.name}, {plan.text}: {result.n_images} {split} {example}s and as many samples"
        draw_exposure(title, result, file.with_suffix(".png"))
        console.print(_table(run, result, split, weights))
        console.print(
            "± is one standard error over pairs; misfit: the data cost more than the model expects, exposure: it expects "
            "something else after its own samples (docs/sets-and-exposure.md)"
        )
        console.print(f"wrote {file} and {file.with_suffix('.png').name}")


def _table(run: Run, r: Exposure, split: str, weights: str) -> Table:
    """Nats per token in parts of the order, and what misfit and exposure add up to at the end of each."""
    units = Units.of_run(run)
    table = Table(
        title=f"{run.data.name} {split}, {r.plan}, {r.kind}, {r.n_images} {units.example}s, {weights} weights"
    )
    columns = (
        "steps", "data, nats/token", "expected after data", "own samples", f"misfit up to here, {units.nats}",
        f"exposure up to here, {units.nats}",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right")
    steps = len(r.tokens_per_step)
    parts = min(_SHARES, steps)
    for part in range(parts):
        first, last = part * steps // parts, (part + 1) * steps // parts
        tokens = sum(r.tokens_per_step[first:last])
        means = (sum(curve.nats[first:last]) / tokens for curve in (r.data, r.expected_after_data, r.own))
        sums = (
            f"{curve.nats[last - 1]:+.2f} ± {curve.standard_error[last - 1]:.2f}"
            for curve in (r.misfit_summed, r.exposure_summed)
        )
        label = f"{first}–{last - 1}" if last - first > 1 else str(first)
        table.add_row(label, *(f"{mean:.3f}" for mean in means), *sums)
    return table
