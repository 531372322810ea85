"""Statistics over the rows of a result: paired differences, over seeds, of matched cells, against published columns.

A test over images speaks of trained models; a test over seeds speaks of recipes, and needs several of each. Figures of
papers are of other data and another scale: only the order of the rows is compared (Kendall's rank correlation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from mar.experiments.grid import ORDERS, OURS, PLAN, SEED, VARIANT, Published
from mar.experiments.result import AblationResult, Row, Training, generation_rates
from mar.likelihood.summary import Likelihood
from mar.metrics.statistics import Spread, comparable, holm, p_value, paired_differences, spread


def compared(
    rows: Sequence[Row], reference: Callable[[Row], Row | None], confidence: float,
    name: Callable[[Row], str] = lambda base: base.name,
) -> list[Row]:  # fmt: skip
    """Return the rows with their paired differences to their reference rows, where both were scored alike.

    Holm's correction covers every comparison of the table. ``name`` returns what a difference calls its reference row.
    """
    found = {}
    for number, row in enumerate(rows):
        base = reference(row)
        if base is None or row.likelihood == base.likelihood:  # the reference, or another variant's likelihood
            continue
        if not (row.unsound or base.unsound) and comparable(row.likelihood, base.likelihood):
            pair = {"row": row.likelihood, "base": base.likelihood}
            difference = paired_differences(pair, "base", confidence)["row"]
            found[number] = replace(difference, reference=name(base))
    shown = list(rows)
    for (number, difference), p in zip(found.items(), holm([each.p_value for each in found.values()]), strict=True):
        shown[number] = replace(rows[number], difference=replace(difference, p_holm=p))
    return shown


def judged(row: Row, training: Training | None, baselines: Iterable[Row]) -> Row:
    """Return the row with the reason for which it is not compared: its model still falls, or a baseline is better.

    Args:
        baselines: of the same data.
    """
    if training is not None and training.verdict == "falling":
        return replace(row, unsound="its validation loss is still falling")
    own: Likelihood | None = row.likelihood
    found = {base.plan: _in_unit(base.likelihood, own) for base in baselines if base.likelihood is not None and own}
    better = {plan: nll for plan, nll in found.items() if own is not None and nll < _in_unit(own, own)}
    return replace(row, unsound=f"worse than {min(better, key=better.__getitem__)}") if better else row


def _in_unit(one: Likelihood, other: Likelihood | None) -> float:
    """Return the NLL in bits/dim if both have them, in nats if neither has; infinity: they do not compare."""
    if other is None or one.n_images != other.n_images or (one.bits_per_dim is None) != (other.bits_per_dim is None):
        return math.inf
    return one.nats_per_image if one.bits_per_dim is None else one.bits_per_dim


Figure = Callable[[Row], float | None]


def in_bits(found: Any) -> float | None:
    """Return a likelihood or a difference in bits/dim, or in nats per image where it has none."""
    return found and (found.nats_per_image if found.bits_per_dim is None else found.bits_per_dim)


FIGURES: dict[str, Figure] = {
    "nll": lambda row: in_bits(row.likelihood),
    "difference": lambda row: in_bits(row.difference),
    "fid": lambda row: row.images and row.images.fid,
    "inception_score": lambda row: row.images and row.images.generated.inception_score_mean,
    "images_per_second": lambda row: row.images_per_second,
    "probe": lambda row: row.probe and row.probe.accuracy,
    "order_spread": lambda row: (found := row.answers.get("consistency")) and found.spread.value,
    "chain_rule": lambda row: (found := row.answers.get("consistency")) and found.violation.rms[0],
    "ensemble_gap": lambda row: (found := row.answers.get("consistency")) and found.ensemble_gap.value,
}


@dataclass(frozen=True)
class SeedRow:
    """Rows that differ in their seed alone: their other settings, and mean and deviation of ``FIGURES`` over seeds.

    ``p_holm`` is of the two-sided paired t-test over seeds that the mean difference to the reference of the same seed
    is zero, Holm-corrected over this table.
    """

    settings: dict[str, str]
    plan: str
    figures: dict[str, Spread]  # without those that a seed lacks
    p_holm: float | None
    left_out: str = ""  # why it is not compared; empty: it is


@lru_cache(maxsize=4)
def over_seeds(result: AblationResult) -> tuple[SeedRow, ...]:
    """Return every row over its seeds; nothing without an axis of at least two seeds."""
    told = zip(by_seed(result.rows), left_out(result), strict=True)
    groups = [(rows, reason) for rows, reason in told if SEED in rows[0].settings]
    if max((len(rows) for rows, _ in groups), default=0) < 2:
        return ()
    found = []
    for rows, reason in groups:
        values = {name: values_of(rows, figure) for name, figure in FIGURES.items()}
        figures = {name: spread(each) for name, each in values.items() if each}
        p = p_value(np.asarray(values["difference"])) if len(values["difference"]) > 1 else None
        found.append(SeedRow(rows[0].seedless, rows[0].plan, figures, p, reason))
    tested = [k for k, row in enumerate(found) if row.p_holm is not None]
    for k, adjusted in zip(tested, holm([found[k].p_holm for k in tested]), strict=True):
        found[k] = replace(found[k], p_holm=adjusted)
    return tuple(found)


def by_seed(rows: Sequence[Row]) -> list[list[Row]]:
    """Group the rows that differ in their seed alone."""
    groups: dict[tuple[str, frozenset[tuple[str, str]]], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.plan, frozenset(row.seedless.items())), []).append(row)
    return list(groups.values())


@lru_cache(maxsize=4)
def left_out(result: AblationResult) -> tuple[str, ...]:
    """Return why a setting is not compared, or has no reference that is, for each of ``by_seed``; empty: it is."""
    row_of, changed = {frozenset(row.settings.items()): row for row in result.rows}, result.grid.get("reference")
    base = {axis: str(name) for axis, name in changed.items()} if isinstance(changed, dict) else {}
    found = []
    for rows in by_seed(result.rows):
        own = [row.unsound for row in rows if row.unsound]
        bases = [row_of.get(frozenset({**row.settings, **base}.items()), row) for row in rows]
        reasons = own or [row.unsound for row in bases if row.unsound]
        part = "" if len(reasons) == len(rows) else f"{len(reasons)} of {len(rows)} seeds "
        said = ", ".join(dict.fromkeys(reason.removeprefix("its validation loss is ") for reason in reasons))
        found.append(f"{'' if own else 'its reference: '}{part}{said}" if reasons else "")
    return tuple(found)


def ranked(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of each setting, seeds together, without settings of which a seed is only shown."""
    return [group for group in by_seed(rows) if not any(row.unsound for row in group)]


@lru_cache(maxsize=4)
def numbered(result: AblationResult) -> list[tuple[str, list[Row]]]:
    """Return the rows that differ in their seed alone, with their indices in the result, "3 7 11"."""
    number = {id(row): str(n) for n, row in enumerate(result.rows)}
    return [(" ".join(number[id(row)] for row in rows), rows) for rows in by_seed(result.rows)]


def values_of(rows: Sequence[Row], figure: Figure) -> list[float]:
    """Return a figure of every row; empty if one row lacks it."""
    found = [value for row in rows if (value := figure(row)) is not None]
    return found if len(found) == len(rows) else []


FAIR = 0.1  # of the smallest: a wider spread of the matched quantity is warned of
QUANTITIES = {"parameters": "parameters", "images": "examples seen", "compute": "training FLOP"}


@dataclass(frozen=True)
class Range:
    """The range of a quantity over trained cells."""

    low: float
    high: float

    @property
    def excess(self) -> float:
        """(high - low) / low."""
        return (self.high - self.low) / self.low


def spreads(result: AblationResult) -> dict[str, Range]:
    """Return the range of each of ``QUANTITIES`` over the trained cells; ``compute`` needs the speed of each."""
    found: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    for model in result.models:
        if model.training is not None:
            images = model.training.iterations * model.training.batch_size
            flops = 0.0 if model.speed is None else model.speed.train_flops_per_image
            for name, value in zip(QUANTITIES, (model.parameters, images, images * flops), strict=True):
                found[name].append(value)
    return {name: Range(min(values), max(values)) for name, values in found.items() if values and all(values)}


def unfair(result: AblationResult) -> bool:
    """True if the quantity that the grid declares matched spreads by more than ``FAIR``."""
    found = spreads(result).get(result.grid.get("matched") or "")
    return found is not None and found.excess > FAIR


FEWEST = 3  # rows: two are in the same order by chance half the time


@dataclass(frozen=True)
class Agreement:
    """How alike our column and a published one rank the ``n`` rows that have both figures, seeds taken together.

    ``tau`` is Kendall's τ-b (1945): 1 the same order of quality, -1 the reverse; None: too few rows, or one column's
    figures are all equal. ``p_value`` is two-sided, of "no association": exact, or with ties the normal approximation.
    """

    n: int
    tau: float | None = None
    p_value: float | None = None
    exact: bool = False


def published_figure(column: Published, row: Row | SeedRow) -> float | None:
    """Return the paper's figure of a row; None where it has none."""
    return column.figure({PLAN: row.plan, **row.settings})


def agreements(result: AblationResult, column: Published) -> dict[str, Agreement]:
    """Return the agreement of our column with a published one within each condition, by its name.

    Rows of another guidance, of other sets, or of mixtures of another number of orders improve by construction, and two
    checkpoints of a training are no two models: τ is of rows that share these. The name is empty where all rows with
    both figures are of one condition.
    """
    variants = {each["name"]: each for each in result.grid.get("variants", ())}
    conditions: dict[str, list[Row]] = {}
    for row in result.rows:
        if published_figure(column, row) is not None and not row.unsound:
            own = variants.get(row.settings.get(VARIANT, ""), {})
            guidance, weights = own.get("guidance"), own.get("weights", "")
            parts = [row.partition, "" if guidance is None else f"guidance {guidance:g}", row.settings.get(ORDERS, "")]
            parts.append(own.get("guidance_schedule", ""))
            parts.append(weights and f"{weights} weights")
            conditions.setdefault(", ".join(filter(None, parts)), []).append(row)
    if len(conditions) < 2:
        return {"": agreement(result, column)}
    return {name: agreement(replace(result, rows=tuple(rows)), column) for name, rows in conditions.items()}


def agreement(result: AblationResult, column: Published) -> Agreement:
    """Return the agreement of our column with a published one over the rows that are compared."""
    ours, theirs, figure = [], [], FIGURES[column.of]
    if column.of == "images_per_second":
        rates = {id(row): rate for row, rate in zip(result.rows, generation_rates(result), strict=True)}
        figure = lambda row: rates[id(row)]  # noqa: E731
    for rows in ranked(result.rows):
        values = values_of(rows, figure)
        published = column.figure({PLAN: rows[0].plan, **rows[0].seedless})
        if values and published is not None:
            ours.append(math.fsum(values) / len(values))
            theirs.append(published)
    if len(ours) < FEWEST or min(len(set(ours)), len(set(theirs))) == 1:
        return Agreement(len(ours))
    turned = -1.0 if column.direction != OURS[column.of][1] else 1.0
    from scipy import stats

    found: Any = stats.kendalltau(ours, [turned * value for value in theirs])
    exact = len(set(ours)) == len(set(theirs)) == len(ours)
    return Agreement(len(ours), float(found.statistic), float(found.pvalue), exact)
