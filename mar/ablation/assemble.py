"""The typed result of an ablation, from the records in its folder: also of one that is not finished."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from mar import build
from mar.ablation import evaluate
from mar.ablation.cells import Cell
from mar.ablation.compare import comparable, holm, paired_differences
from mar.ablation.engine import Engine
from mar.ablation.grid import PLAN
from mar.ablation.independent import independent_rows, pixels_row
from mar.ablation.records import Record
from mar.ablation.result import AblationResult, PlanMap, Row, TrainedModel, Training
from mar.ablation.speed import Speed
from mar.evaluation.probe import Probe
from mar.evaluation.result import FidResult
from mar.likelihood.score import Likelihood
from mar.training.run_folder import environment
from orderings import describe, describe_partition, parse_plan

_NAMES = {"training": "training", "nll": "NLL", "fid": "images", "probe": "probe", "speed": "speed"}


def assemble(engine: Engine) -> AblationResult:
    """Rows from records, differences to the reference, baselines, the training curves."""
    grid = engine.grid
    rows = [_row(engine, cell, plan) for cell in engine.cells for plan in cell.plans]
    assert isinstance(grid.reference, dict)
    return AblationResult(
        name=grid.name,
        grid=grid.model_dump(mode="json"),
        axes=tuple(grid.axes),
        models=tuple(_model(engine, cell) for cell in engine.cells),
        data=engine.data.name,
        data_fingerprint=engine.data.fingerprint,
        environment=environment(),
        reference=", ".join(map(str, grid.reference.values())),
        rows=tuple(_compared(rows, grid.reference, bool(grid.orderings), grid.confidence)),
        baselines=tuple(_baselines(engine)),
        seconds=math.fsum(record.seconds for cell in engine.cells for record in _records(engine, cell)),
    )


def _records(engine: Engine, cell: Cell) -> Iterator[Record]:
    for evaluation, plan in engine.questions(cell):
        if (record := engine.record(cell, evaluation, plan)) is not None:
            yield record


def _row(engine: Engine, cell: Cell, plan: str) -> Row:
    ordering, partition = parse_plan(plan)
    found = cell.plans[plan]
    row = Row(plan, describe(ordering), describe_partition(partition), model=cell.name, settings=cell.settings)
    if not isinstance(found, PlanMap):
        return replace(row, refused=found)
    asked = [(kind, of) for kind, of in engine.questions(cell) if of in (None, plan)]
    records = {kind: engine.record(cell, kind, of) for kind, of in asked}
    errors = tuple(f"{_NAMES[kind]}: {r.error}" for kind, r in records.items() if r is not None and r.error)
    row = replace(row, map=found, errors=errors)
    answers = {kind: record.answer for kind, record in records.items() if record is not None and record.answer}
    if "nll" in answers:
        likelihood = TypeAdapter(Likelihood).validate_python(answers["nll"])
        row = replace(row, likelihood=likelihood, nll_seconds=_seconds_of(records["nll"]))
    if "probe" in answers:
        row = replace(row, probe=TypeAdapter(Probe).validate_python(answers["probe"]))
    if "fid" in answers:
        folder = engine.plan_folder(cell, plan).relative_to(engine.out)
        row = replace(
            row,
            images=TypeAdapter(FidResult).validate_python(answers["fid"]["scores"]),
            sampling_seconds=answers["fid"]["sampling_seconds"],
            samples=str(folder / evaluate.SAMPLES),
            animation=str(folder / evaluate.ANIMATION),
        )
    return row


def _seconds_of(record: Record | None) -> float | None:
    return None if record is None else record.seconds


def _compared(rows: list[Row], reference: dict[str, Any], of_plans: bool, confidence: float) -> list[Row]:
    """The rows with their differences to the reference row of each, where both were scored alike.

    The reference row of a row has the reference's settings, and the row's own on the axes that it does not name. The
    correction is over every comparison of the table.
    """
    by_key = {_key(row, of_plans): number for number, row in enumerate(rows)}
    groups: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        base = by_key.get(_key(row, of_plans, reference))
        if base is not None and base != number and comparable(row.likelihood, rows[base].likelihood):
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


def _key(row: Row, of_plans: bool, changed: dict[str, Any] | None = None) -> tuple[tuple[str, str], ...]:
    """What tells a row of the table from the others; with some settings ``changed``."""
    settings = {**row.settings, PLAN: row.plan} if of_plans else row.settings
    return tuple(sorted({**settings, **(changed or {})}.items()))


def _baselines(engine: Engine) -> Iterator[Row]:
    """What the models are measured against, without one."""
    grid, recipe = engine.grid, engine.cells[0].recipe
    if grid.nll is not None:
        tokenizer = build.model(recipe, engine.data).tokenizer
        by_class = recipe.class_conditional
        yield from independent_rows(engine.data, tokenizer, grid.nll.split, grid.nll.images, by_class)
    if grid.probe is not None:
        yield pixels_row(engine.data, grid.probe.strength)


def _model(engine: Engine, cell: Cell) -> TrainedModel:
    asked = [kind for kind, plan in engine.questions(cell) if plan is None and cell.served]
    training, speed = (engine.record(cell, kind) if kind in asked else None for kind in ("training", "speed"))
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
