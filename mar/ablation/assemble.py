"""The typed result of an ablation, from the records in its folder."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from mar.ablation import cell
from mar.ablation.compare import paired_differences
from mar.ablation.engine import Engine, Record
from mar.ablation.independent import independent_rows
from mar.ablation.result import AblationResult, Row, Training
from mar.evaluation.result import FidResult
from mar.likelihood.score import Likelihood
from mar.run import Run
from mar.training.run_folder import environment
from orderings import describe, describe_partition, parse_plan


def assemble(engine: Engine, run: Run) -> AblationResult:
    """Rows from records, differences to the reference, baselines, the training curve."""
    grid = engine.grid
    rows = [_row(engine, plan) for plan in engine.maps]
    nll = grid.nll
    baselines = () if nll is None else independent_rows(run.data, run.model.tokenizer, nll.split, nll.images)
    records = [engine.record(plan, kind) for plan in engine.maps for kind in ("nll", "fid") if getattr(grid, kind)]
    return AblationResult(
        name=grid.name,
        grid=grid.model_dump(mode="json"),
        recipe=engine.recipe.as_dict(),
        fingerprint=engine.recipe.fingerprint(),
        weights=engine.weights or "",
        data=run.data.name,
        data_fingerprint=run.data.fingerprint,
        environment=environment(),
        training=_training(engine, run.folder.history()),
        reference=grid.reference,
        rows=tuple(_compared(rows, grid.reference, grid.confidence)),
        baselines=baselines,
        seconds=sum(record.seconds for record in records if record is not None),
    )


def _row(engine: Engine, plan: str) -> Row:
    ordering, partition = parse_plan(plan)
    nll = engine.record(plan, "nll") if engine.grid.nll else None
    fid = engine.record(plan, "fid") if engine.grid.fid else None
    row = Row(plan, describe(ordering), describe_partition(partition), engine.maps[plan], errors=_errors(nll, fid))
    if nll is not None and nll.answer is not None:
        likelihood = TypeAdapter(Likelihood).validate_python(nll.answer)
        row = replace(row, likelihood=likelihood, nll_seconds=nll.seconds)
    if fid is not None and fid.answer is not None:
        folder = engine.cell(plan).relative_to(engine.out)
        row = replace(
            row,
            images=TypeAdapter(FidResult).validate_python(fid.answer["scores"]),
            sampling_seconds=fid.answer["sampling_seconds"],
            samples=str(folder / cell.SAMPLES),
            animation=str(folder / cell.ANIMATION),
        )
    return row


def _errors(nll: Record | None, fid: Record | None) -> tuple[str, ...]:
    named = (("NLL", nll), ("images", fid))
    return tuple(f"{name}: {record.error}" for name, record in named if record is not None and record.error)


def _compared(rows: list[Row], reference: str, confidence: float) -> list[Row]:
    """The rows with their differences to the reference, where both were scored."""
    likelihoods = {row.plan: row.likelihood for row in rows if row.likelihood is not None}
    if reference not in likelihoods:
        return rows
    differences = paired_differences(likelihoods, reference, confidence)
    return [replace(row, difference=differences.get(row.plan)) for row in rows]


def _training(engine: Engine, history: list[dict[str, Any]]) -> Training:
    losses = [line for line in history if "loss_nats_per_token" in line]
    validations = [line for line in history if "validation_nats_per_token" in line]
    return Training(
        parameters=engine.n_parameters,
        iterations=engine.recipe.train.iterations,
        batch_size=engine.recipe.train.batch_size,
        seconds=_seconds([line["seconds"] for line in losses]),
        loss_iteration=tuple(line["iteration"] for line in losses),
        loss_nats=tuple(line["loss_nats_per_token"] for line in losses),
        validation_iteration=tuple(line["iteration"] for line in validations),
        validation_nats=tuple(line["validation_nats_per_token"] for line in validations),
    )


def _seconds(clock: list[float]) -> float:
    """Training time from a clock that starts again whenever the run is resumed."""
    return math.fsum(now if now < before else now - before for before, now in zip([0.0, *clock], clock, strict=False))
