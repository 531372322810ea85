"""The tables of a grid: every row, the means over seeds, a train-order × eval-order matrix, and their notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mar.core.files import write_atomic
from mar.core.table import Better, Column, Table, p_text, plus_minus
from mar.experiments.grid import ORDERS, OURS, PLAN, SEED, Published, published_of
from mar.experiments.result import MEANINGS, AblationResult, Row
from mar.experiments.statistics import (
    FAIR,
    FEWEST,
    QUANTITIES,
    Agreement,
    Range,
    SeedRow,
    agreement,
    by_seed,
    over_seeds,
    settings_without_seed,
    spreads,
    unfair,
)
from mar.reports.columns import (
    RECALLED,
    columns,
    compact,
    data_columns,
    has_bits,
    nll_alike,
    published_columns,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

SEED_NOTE = (
    "Mean ± standard deviation over training seeds; p: paired t-test over seeds that the mean difference to the "
    "reference of the same seed is zero, Holm-corrected over this table."
)


def grid_table(result: AblationResult) -> Table[Row]:
    """Return the printed table of every row; columns without values are dropped."""
    return Table(columns(result), result.rows, notes_of(result), result.name, result.baselines).without_empty()


def data_table(result: AblationResult) -> Table[Row]:
    """Return the table of the CSV: raw numbers at full precision, baselines last."""
    return Table(data_columns(result), result.rows, baselines=result.baselines)


def seeds_table(result: AblationResult) -> Table[SeedRow]:
    """Return the printed table over seeds; without rows unless the grid has several seeds."""
    rows = over_seeds(result)
    if not rows:
        return Table((), ())
    comparable = _over_seeds(result, nll_alike(result))
    unit, digits = ("bits/dim", 4) if has_bits(result) else ("nats", 2)
    shown: list[Column[SeedRow]] = [
        *(
            Column[SeedRow](name, lambda row, name=name: row.settings.get(name), words=True)
            for name in result.settings
            if name not in (SEED, PLAN)
        ),
        Column("plan", lambda row: row.plan, words=True),
        Column("seeds", _seeds),
        _spread("NLL", "nll", "lower", digits, unit, comparable),
        _spread(f"Δ to {result.reference}", "difference", "lower", digits, unit, comparable),
        Column("p (Holm)", lambda row: row.p_holm, text=lambda row: p_text(row.p_holm)),
        _spread("FID", "fid", "lower", 2, "", _over_seeds(result, lambda row: row.fid_key)),
        *([_spread("images/s", "images_per_second", "higher", 1)] if result.ways else []),
        _spread("linear probe", "probe", "higher", 3),
        *published_columns(result),
    ]
    return Table(shown, rows, [SEED_NOTE], "Over seeds").without_empty()


def seeds_data_table(result: AblationResult) -> Table[SeedRow]:
    """Return the table over seeds of the CSV: means and deviations."""
    unit = "bits_per_dim" if has_bits(result) else "nats_per_image"
    return Table(
        [
            Column("plan", lambda row: row.plan),
            *(Column[SeedRow](f"axis_{s}", lambda row, s=s: row.settings.get(s)) for s in result.settings if s != SEED),
            Column("seeds", _seeds),
            *_mean_and_deviation(f"nll_{unit}", "nll"),
            *_mean_and_deviation(f"difference_{unit}", "difference"),
            Column("difference_p_holm", lambda row: row.p_holm),
            *_mean_and_deviation("fid", "fid"),
            *_mean_and_deviation("images_per_second", "images_per_second"),
            *_mean_and_deviation("probe_accuracy", "probe"),
            *published_columns(result, data=True),
        ],
        over_seeds(result),
    )


def write_tables(result: AblationResult, folder: Path) -> list[Path]:
    """Write ``table.md``, ``table.csv`` and ``table.tex``; with several seeds also ``seeds.csv`` and ``seeds.tex``.
    Return their paths."""
    forms = {"table.md": markdown(result), "table.csv": data_table(result).csv(), "table.tex": latex(result)}
    if over_seeds(result):
        forms |= {"seeds.csv": seeds_data_table(result).csv(), "seeds.tex": seeds_latex(result)}
    for name, text in forms.items():
        write_atomic(folder / name, text)
    return [folder / name for name in forms]


def markdown(result: AblationResult) -> str:
    """Return the table of every row, then the table over seeds."""
    over = seeds_table(result)
    return "\n".join([grid_table(result).markdown(), *([over.markdown(2)] if over.rows else [])])


def latex(result: AblationResult) -> str:
    """Return the table of every row, without problems and AR steps, the published agreement as comments."""
    table = grid_table(result).without("problem", "AR steps")
    return Table(table.columns, table.rows, published_notes(result), "", table.baselines).latex()


def seeds_latex(result: AblationResult) -> str:
    """Return the table over seeds."""
    table = seeds_table(result)
    return Table(table.columns, table.rows, [*table.notes, *published_notes(result)]).latex()


def terminal(result: AblationResult) -> list[RenderableType]:
    """Return the tables, the errors and the notes, for ``rich``."""
    from rich.text import Text

    first = Table(compact(result), result.rows, (), result.name, result.baselines)
    over = seeds_table(result)
    tables: list[Table[Any]] = [first, *([Table(over.columns, over.rows, (), over.title)] if over.rows else [])]
    failures = [Text(f"{row.name}: {error}", style="red") for row in result.rows for error in row.errors]
    notes = [*notes_of(result), *(over.notes if over.rows else ())]
    return [*tables, *failures, *(Text(f"· {note}") for note in notes)]


def notes_of(result: AblationResult) -> list[str]:
    """Return how to read the table: one line for each quantity in it."""
    notes = [*_model_notes(result), *matched_notes(result), *result.grid.get("notes", ())]
    likelihoods = [row.likelihood for row in result.rows if row.likelihood is not None]
    if likelihoods:
        kinds = ", ".join(sorted({likelihood.kind for likelihood in likelihoods}))
        notes.append(
            f"NLL: {kinds}, on {likelihoods[0].n_images} {result.grid['nll']['split']} images, ± one standard error "
            "over images. Tokens of one set are independent given the past, so fewer steps are a weaker model."
        )
    notes += [*_difference_notes(result), *_image_notes(result), *_speed_notes(result), *_probe_notes(result)]
    notes += published_notes(result)
    if any(row.likelihood is not None for row in result.baselines):
        notes.append("Independent tokens: counts of the training split with add-one smoothing, in closed form.")
    warnings = {warning for likelihood in likelihoods for warning in likelihood.warnings}
    return notes + [f"Warning: {warning}." for warning in sorted(warnings)]


def matched_notes(result: AblationResult) -> list[str]:
    """Return the range over cells of parameters, examples seen and compute, and a warning; none for a single model."""
    found, matched = spreads(result), str(result.grid.get("matched") or "")
    if not result.axes or not found:
        return []
    ranges = "; ".join(f"{QUANTITIES[name]} {_range(spread)}" for name, spread in found.items())
    notes = [f"{f'Cells matched in {QUANTITIES[matched]}' if matched else 'Cells'}: {ranges}."]
    if matched and matched not in found:
        notes.append(f"Warning: whether {QUANTITIES[matched]} match is unknown: speed was not measured in every cell.")
    if unfair(result):
        notes.append(
            f"Warning: {QUANTITIES[matched]} should match and differ by up to {found[matched].excess:.0%} (more than "
            f"{FAIR:.0%}): the difference may explain a cell's gain."
        )
    return notes


def published_notes(result: AblationResult) -> list[str]:
    """Return for each published column its source, and how alike it and ours rank the rows."""
    published = published_of(result.grid)
    rows = "rows, means over seeds" if published and over_seeds(result) else "rows"
    return [_published_note(column, agreement(result, column), rows) for column in published]


def _published_note(column: Published, found: Agreement, rows: str) -> str:
    recalled = f" ({RECALLED} recalled, not re-read)" if column.recalled else ""
    ours = OURS[column.of][0]
    if found.n < FEWEST:
        ranks = f"With our {ours} too few rows ({found.n}) have both figures to compare orders."
    elif found.tau is None or found.p_value is None:
        ranks = f"With our {ours} ({found.n} rows) one column's figures are all equal: there is no order to compare."
    else:
        how = "exact" if found.exact else "normal approximation, because figures tie"
        ranks = (
            f"With our {ours}: Kendall's τ-b {found.tau:+.2f} (1: the same order of quality, -1: the reverse) over "
            f"{found.n} {rows}, p = {found.p_value:.3f} ({how})."
        )
    return (
        f"Published: {column.title}, from {column.source}{recalled}: other data and another scale than ours, so only "
        f"the order of rows is compared. {ranks}"
    )


def _model_notes(result: AblationResult) -> list[str]:
    """The trained models, and the choice of their weights."""
    prints = ", ".join(each[:12] for each in result.data_fingerprint.split(", "))
    data = f"data {result.data} {prints}"
    curves = [(model, model.training) for model in result.models if model.training is not None]
    if not result.axes:
        return [
            f"One model ({model.parameters:,} parameters, {training.iterations:,} iterations of "
            f"{training.batch_size}, weights {model.weights}) scored under every plan; {data}."
            for model, training in curves
        ]
    verdicts = Counter(training.verdict for _, training in curves)
    counts = sorted({len(training.validation_nats) for _, training in curves}) or [0]
    times = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    chosen = {
        "best": f"the averaged weights of the lowest of {times} validation losses, evenly spaced over each training",
        "last": "the averaged weights at the end of the training",
    }
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in MEANINGS.items() if name in verdicts)
    counted = ", ".join(f"{count} {name}" for name, count in verdicts.most_common())
    return [
        f"{len(curves)} models, each trained on its own; {data}. Scored: {chosen[result.grid['select']]}.",
        f"Validation curve, from first (left) to last: {counted}. {meanings[:1].upper()}{meanings[1:]}.",
    ]


def _difference_notes(result: AblationResult) -> list[str]:
    differences = [row.difference for row in result.rows if row.difference is not None]
    if not differences:
        return []
    beside = ", of the same other settings," if result.axes else ""
    trained = "these trained models" if result.axes else "this one trained model"
    trained += " along these orders" if ORDERS in result.ways else ""
    return [
        f"Δ: paired with {result.reference}{beside} on the same images and noise, "
        f"{100 * differences[0].confidence:g} % bootstrap interval over images; p: paired t-test, Holm-corrected over "
        f"{len(differences)} comparisons. They speak of {trained}, not of the spread over training seeds."
    ]


def _image_notes(result: AblationResult) -> list[str]:
    """The scoring of the images, and the scores of real images."""
    scored = [row.images for row in result.rows if row.images is not None]
    if not scored:
        return []
    first, fid = scored[0], result.grid["fid"]
    variants, floor = result.grid.get("variants", ()), first.noise_floor
    changed = any(variant.get(of) is not None for variant in variants for of in ("guidance", "temperature"))
    own = ", where the variant says nothing else" if changed else ""
    notes = [
        f"FID and the rest: {first.generated.n_images} generated images (guidance {fid['guidance']:g}, temperature "
        f"{fid['temperature']:g}{own}) against {first.n_real} {first.split} images, features {first.extractor} of "
        f"width {first.feature_width}, KID subsets of {first.kid_subset_size}. Noise floor ({floor.n_images} real "
        f"{first.noise_floor_split} images, scored alike): FID {floor.fid:.2f}, KID "
        f"{floor.kid_mean:.4f}, IS {floor.inception_score_mean:.2f}, precision {floor.precision:.3f}, recall "
        f"{floor.recall:.3f}."
    ]
    shared = sorted(set.intersection(*(set(images.notes) for images in scored)))
    return notes + [f"{note[0].upper()}{note[1:]}." for note in shared]


def _speed_notes(result: AblationResult) -> list[str]:
    speeds = [model.speed for model in result.models if model.speed is not None]
    if not speeds:
        return []
    where = " and ".join(sorted({f"{s.device}, {s.threads} thread(s), {s.clock} time" for s in speeds}))
    return [
        f"Costs: batches of {speeds[0].batch}, one model at a time ({where}); training is forward, backward and the "
        "optimiser, generation is along the model's own plan. FLOP: matrix products, convolutions, attention and "
        "recurrent layers, as executed."
    ]


def _probe_notes(result: AblationResult) -> list[str]:
    probes = [row.probe for row in result.rows if row.probe is not None]
    if not probes:
        return []
    return [
        f"Linear probe: accuracy on {probes[0].n_test} test images of logistic regression on the contexts averaged "
        "over the tokens of an image (the number of features is the context width), fitted on "
        f"{probes[0].n_train} training images; no class is told."
    ]


def _range(spread: Range) -> str:
    low, high = (f"{value:,.0f}" if value < 1e9 else f"{value:.3g}" for value in (spread.low, spread.high))
    return low if spread.excess == 0 else f"{low} to {high} (×{1 + spread.excess:.3g})"


def _seeds(row: SeedRow) -> int | None:
    return max((len(each.values) for each in row.figures.values() if each is not None), default=None)


def _spread(
    title: str, of: str, better: Better, digits: int, unit: str = "", alike: Callable[[SeedRow], Hashable] | None = None
) -> Column[SeedRow]:
    """A mean ± its deviation; of a difference with its sign."""

    def text(row: SeedRow) -> str:
        found = row.figures[of]
        assert found is not None
        return plus_minus(found.mean, found.sd or 0.0, digits, "+" if title.startswith("Δ") else "")

    return Column(title, _mean(of), better, digits, text, unit, alike=alike)


def _mean_and_deviation(name: str, of: str) -> list[Column[SeedRow]]:
    def deviation(row: SeedRow) -> float | None:
        return None if (found := row.figures[of]) is None else found.sd or 0.0

    return [Column(f"{name}_mean", _mean(of)), Column(f"{name}_standard_deviation", deviation)]


def _mean(of: str) -> Callable[[SeedRow], float | None]:
    return lambda row: None if (found := row.figures[of]) is None else found.mean


def _over_seeds(result: AblationResult, alike: Callable[[Row], Hashable]) -> Callable[[SeedRow], Hashable]:
    """Return the key of rows over seeds that compare: the same seeds, each scored alike."""

    def key(plan: str, settings: dict[str, str]) -> Hashable:
        return plan, frozenset(settings.items())

    found: dict[Hashable, Hashable] = {}
    for rows in by_seed(result.rows):
        seeds, kinds = tuple(sorted(row.settings.get(SEED, "") for row in rows)), {alike(row) for row in rows}
        own = key(rows[0].plan, settings_without_seed(rows[0]))
        found[own] = (seeds, *kinds) if len(kinds) == 1 else own
    return lambda row: found.get(key(row.plan, row.settings))
