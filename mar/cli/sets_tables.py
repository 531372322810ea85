"""The tables of ``mar score sets`` and ``mar score exposure``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mar.likelihood.exposure import Exposure
from mar.likelihood.set_sizes import SCHEDULES, Predicted, plans_of
from mar.likelihood.summary import Likelihood
from mar.metrics.base import Units
from mar.metrics.statistics import Difference
from orderings.optimal import SetCosts

_SHARES = 8  # rows of the table of exposure: the order in so many parts


def predicted_table(costs: SetCosts, predicted: Sequence[Predicted], units: Units) -> Table:
    """Every schedule by the measured costs, and the best sets of each K."""
    table = Table(
        title=f"parallel generation along {costs.ordering}: {units.nats} above one token at a time, "
        f"by the costs of {costs.n_images} validation {units.example}s (lower is better)"
    )
    for column in ("K", *SCHEDULES):
        table.add_column(column, justify="right")
    table.add_column("the best sets", overflow="fold")
    for row in predicted:
        excess = (f"{row.excess_nats[schedule]:.2f}" for schedule in SCHEDULES)
        table.add_row(str(row.k), *excess, _brief(row.optimal_sizes))
    return table


def _brief(sizes: tuple[int, ...], most: int = 16) -> str:
    """The sizes, the middle of a long list left out."""
    if len(sizes) <= most:
        return " ".join(map(str, sizes))
    half = most // 2
    return f"{' '.join(map(str, sizes[:half]))} … {' '.join(map(str, sizes[-half:]))}"


def tested_table(
    data: str,
    weights: str,
    one_by_one: Likelihood,
    predicted: Sequence[Predicted],
    excess: dict[str, Difference],
    to_best: dict[int, dict[str, Difference]],
    units: Units,
) -> Table:
    """Every schedule of each tested K on test images, beside its prediction and the best sets of that K."""
    title = (
        f"{data} test, {one_by_one.n_images} {units.example}s, {weights} weights, {one_by_one.kind}: "
        f"{one_by_one.nats_per_image:.2f} ± {one_by_one.standard_error_nats:.2f} {units.nats} one token at a time"
    )
    table = Table(title=title)
    columns = ("plan", f"{units.nats} above one at a time [95 %]", "p (Holm)", "predicted", "minus optimal [95 %]")
    for column in columns:
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=column == "plan")
    foreseen = {row.k: row.excess_nats for row in predicted}
    for k in to_best:
        for schedule, plan in plans_of(one_by_one.plan, k).items():
            other = _interval(to_best[k][plan]) if plan in to_best[k] else "—"
            cells = (_interval(excess[plan]), f"{excess[plan].p_holm:.2g}", f"{foreseen[k][schedule]:+.2f}", other)
            table.add_row(plan, *cells)
    return table


def _interval(d: Difference) -> str:
    return f"{d.nats_per_image:+.2f} [{d.interval_nats[0]:+.2f}, {d.interval_nats[1]:+.2f}]"


def exposure_table(data: str, r: Exposure, split: str, weights: str, units: Units) -> Table:
    """Nats per token in parts of the order, and the sums of misfit and exposure up to the end of each."""
    table = Table(title=f"{data} {split}, {r.plan}, {r.kind}, {r.n_images} {units.example}s, {weights} weights")
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
