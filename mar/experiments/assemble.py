"""The typed result of an ablation, from the records in its folder: also of one that is not finished."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from mar import build
from mar.core.files import environment
from mar.core.records import Record
from mar.experiments import evaluate
from mar.experiments.axes import ORDERS, PARTITION, PLAN, VARIANT
from mar.experiments.cells import Cell
from mar.experiments.compare import comparable, holm, paired_differences
from mar.experiments.engine import Ask, Engine
from mar.experiments.evaluations import Variant
from mar.experiments.grid import GridFile
from mar.experiments.independent import independent_rows, pixels_row
from mar.experiments.result import AblationResult, PlanMap, Row, TrainedModel, Training
from mar.experiments.sets import with_measured_sets
from mar.experiments.speed import Speed
from mar.likelihood.summary import EnsemblePoint, Likelihood
from mar.metrics.probe import Probe
from mar.metrics.result import FidResult
from orderings import PlanSpec, to_text

_CLOCKS = {"wall": "sampling_seconds", "cpu": "sampling_cpu_seconds"}
_NAMES = {"nll": "NLL", "fid": "images", "sets": "set costs"}  # what errors call an evaluation, if not its key


def assemble(engine: Engine) -> AblationResult:
    """Rows from records, differences to the reference, baselines, the training curves."""
    grid = engine.grid
    ways = [(cell, plan, variant) for cell in engine.cells for plan, variant in grid.ways(cell.plans)]
    rows = [row for way in ways for row in _over_orders(_row(engine, *way), _is_first_of_likelihood(grid, way[2]))]
    assert isinstance(grid.reference, dict)
    data = {cell.data.fingerprint: cell.data.name for cell in engine.cells}
    return AblationResult(
        name=grid.name,
        grid=grid.model_dump(mode="json"),
        axes=tuple(grid.axes),
        ways=tuple(
            way for way in (PLAN, PARTITION, VARIANT, ORDERS) if way not in grid.axes and way in rows[0].settings
        ),
        models=tuple(_model(engine, cell) for cell in engine.cells),
        data=", ".join(dict.fromkeys(data.values())),
        data_fingerprint=", ".join(data),
        environment=environment(),
        reference=", ".join(map(str, grid.reference.values())),
        rows=tuple(_compared(rows, grid.reference, grid.confidence, engine)),
        baselines=tuple(_baselines(engine)),
        seconds=math.fsum(record.seconds for cell in engine.cells for record in _records(engine, cell)),
    )


def _records(engine: Engine, cell: Cell) -> Iterator[Record]:
    for ask in engine.questions(cell):
        if (record := engine.record(cell, ask)) is not None:
            yield record


def _row(engine: Engine, cell: Cell, plan: str, variant: Variant | None) -> Row:
    row = _unscored(engine, cell, plan, variant)
    if row.refused:
        return row
    asked = [ask for ask in engine.questions(cell) if ask.plan is None] + engine.asked_of(plan, variant)
    records = {ask.evaluation: engine.record(cell, ask) for ask in asked}
    errors = tuple(f"{_NAMES.get(kind, kind)}: {r.error}" for kind, r in records.items() if r is not None and r.error)
    row = replace(row, errors=errors)
    answers = {kind: record.answer for kind, record in records.items() if record is not None and record.answer}
    if "nll" in answers:
        likelihood = TypeAdapter(Likelihood).validate_python(answers["nll"])
        row = replace(row, likelihood=likelihood, nll_seconds=_seconds_of(records["nll"]))
    if "probe" in answers:
        row = replace(row, probe=TypeAdapter(Probe).validate_python(answers["probe"]))
    if "fid" in answers:
        folder = engine.plan_folder(cell, plan, row.settings.get(VARIANT, "")).relative_to(engine.out)
        row = replace(
            row,
            images=TypeAdapter(FidResult).validate_python(answers["fid"]["scores"]),
            sampling_seconds=answers["fid"].get(_CLOCKS[engine.grid.speed.clock if engine.grid.speed else "wall"]),
            samples=str(folder / evaluate.SAMPLES),
            animation=str(folder / evaluate.ANIMATION),
        )
    return row


def _unscored(engine: Engine, cell: Cell, plan: str, variant: Variant | None) -> Row:
    """What a row is."""
    grid, found = engine.grid, cell.plans[plan]
    settings, orders = dict(cell.settings), grid.nll.orders if grid.nll is not None else 0
    if grid.orderings and (grid.axes or grid.variants or orders):
        settings[PLAN] = plan
    elif grid.partitions and not grid.orderings:
        settings[PARTITION] = to_text(PlanSpec.parse(plan)[1])
    if variant is not None:
        settings[VARIANT] = variant.name
    if orders:
        settings[ORDERS] = "1"
    ordering, partition = PlanSpec.parse(plan)
    row = Row(plan, to_text(ordering), to_text(partition), model=cell.name, settings=settings)
    if not isinstance(found, PlanMap):
        return replace(row, refused=found)
    if variant is not None and variant.adaptive:  # the order is found along the way: the plan's is not its own
        return replace(row, plan=evaluate.adaptive_plan(variant.adaptive, plan), ordering=variant.adaptive)
    return replace(row, map=with_measured_sets(found, plan, engine.folder(cell).path))


def _is_first_of_likelihood(grid: GridFile, variant: Variant | None) -> bool:
    """Whether a row's likelihood is not that of a variant above it."""
    sharing = [other for other in grid.variants if not other.is_scored_alone]
    return variant not in sharing or variant == sharing[0]


def _over_orders(row: Row, mixtures: bool) -> tuple[Row, ...]:
    """A row scored under several orders; with ``mixtures`` a row more for that of its first 1, 2, 4, … orders."""
    scored = row.likelihood
    if scored is None or not scored.ensemble:
        return (row,)
    mean = replace(row, settings={**row.settings, ORDERS: f"mean of {scored.orders}"})
    if not mixtures:  # another variant's, whose likelihood this is
        return (mean,)
    return (mean, *(_mixture(row, scored, point) for point in scored.ensemble))


def _mixture(row: Row, scored: Likelihood, point: EnsemblePoint) -> Row:
    likelihood = replace(
        scored, kind=scored.head_kind, orders=point.orders, ensemble=(), nats_per_image=point.nats_per_image,
        standard_error_nats=point.standard_error_nats, bits_per_dim=point.bits_per_dim,
        standard_error_bits_per_dim=point.standard_error_bits_per_dim,
        nats_of_image=(), nats_per_step=(), tokens_per_step=(), nats_per_position=(),
    )  # fmt: skip
    settings = {**row.settings, ORDERS: str(point.orders)}
    return Row(row.plan, row.ordering, row.partition, model=row.model, settings=settings, likelihood=likelihood)


def _seconds_of(record: Record | None) -> float | None:
    return None if record is None else record.seconds


def _compared(rows: list[Row], reference: dict[str, Any], confidence: float, engine: Engine) -> list[Row]:
    """The rows with their differences to the reference row of each, where both were scored alike on the same data.

    The reference row of a row has the reference's settings, and the row's own on the axes that it does not name. The
    correction is over every comparison of the table.
    """
    by_key = {_key(row): number for number, row in enumerate(rows)}
    data_of = {cell.name: cell.data.fingerprint for cell in engine.cells}
    groups: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        base = by_key.get(_key(row, reference))
        if base is None or row.likelihood == rows[base].likelihood:  # itself, or another variant's
            continue
        if data_of[row.model] != data_of[rows[base].model]:
            continue
        if comparable(row.likelihood, rows[base].likelihood):
            groups.setdefault(base, []).append(number)
    found = {}
    for base, others in groups.items():
        likelihoods = {str(number): rows[number].likelihood for number in (base, *others)}
        scored = {name: likelihood for name, likelihood in likelihoods.items() if likelihood is not None}
        for name, difference in paired_differences(scored, str(base), confidence).items():
            found[int(name)] = replace(difference, reference=rows[base].name)
    adjusted = dict(zip(found, holm([difference.p_value for difference in found.values()]), strict=True))
    return [
        replace(row, difference=replace(found[number], p_holm=adjusted[number])) if number in found else row
        for number, row in enumerate(rows)
    ]


def _key(row: Row, changed: dict[str, Any] | None = None) -> tuple[tuple[str, str], ...]:
    """What tells a row of the table from the others; with some settings ``changed``."""
    own = row.settings or {PLAN: row.plan}
    return tuple(sorted({**own, **(changed or {})}.items()))


def _baselines(engine: Engine) -> Iterator[Row]:
    """What the models are measured against, without one: of each data set, as the first cell of it reads it."""
    grid = engine.grid
    first = {cell.data.fingerprint: cell for cell in reversed(engine.cells)}
    for cell in reversed(first.values()):
        name = f" of {cell.data.name}" if len(first) > 1 else ""
        rows: list[Row] = []
        if grid.nll is not None:
            tokenizer = build.assemble(cell.recipe, cell.data).model.tokenizer
            by_class = cell.recipe.class_conditional
            rows += independent_rows(cell.data, tokenizer, grid.nll.split, grid.nll.images, by_class)
        if grid.probe is not None and cell.data.spec.n_classes:
            rows.append(pixels_row(cell.data, grid.probe.strength))
        yield from (replace(row, plan=row.plan + name, ordering=row.ordering + name) for row in rows)


def _model(engine: Engine, cell: Cell) -> TrainedModel:
    asked = engine.questions(cell) if cell.served else []
    training, speed = (engine.record(cell, ask) if ask in asked else None for ask in (Ask("training"), Ask("speed")))
    recipe = cell.recipe.as_dict()
    model = TrainedModel(cell.name, cell.settings, recipe, cell.fingerprint, cell.n_parameters, "", None)
    if speed is not None and speed.answer is not None:
        model = replace(model, speed=TypeAdapter(Speed).validate_python(speed.answer))
    if training is None or training.answer is None:
        return model
    curve = _training(cell, training.answer["iteration"], engine.folder(cell).history())
    return replace(model, weights=training.answer["weights"], training=curve)


def _training(cell: Cell, scored: int, history: Sequence[dict[str, Any]]) -> Training:
    losses = [line for line in history if "loss_nats_per_token" in line]
    validations = [line for line in history if "validation_nats_per_token" in line]
    return Training(
        iterations=cell.recipe.train.iterations,
        batch_size=cell.recipe.train.batch_size,
        scored=scored,
        seconds=_seconds([line["seconds"] for line in losses]),
        loss_iteration=tuple(line["iteration"] for line in losses),
        loss_nats=tuple(line["loss_nats_per_token"] for line in losses),
        validation_iteration=tuple(line["iteration"] for line in validations),
        validation_nats=tuple(line["validation_nats_per_token"] for line in validations),
    )


def _seconds(clock: list[float]) -> float:
    """Training time from a clock that starts again whenever the run is resumed."""
    return math.fsum(now if now < before else now - before for before, now in zip([0.0, *clock], clock, strict=False))
