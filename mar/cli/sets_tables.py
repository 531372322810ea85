"""The tables of ``mar score RUN --sets``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mar.cli.units import Units
from mar.experiments.result import Difference
from mar.likelihood.score import Likelihood
from mar.likelihood.set_sizes import SCHEDULES, Predicted, plans_of
from orderings.optimal import SetCosts


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
