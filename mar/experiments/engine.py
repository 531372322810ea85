"""Run a grid: train each model once, answer every metric's questions about it, and assemble the rows of the table.

    OUT/grid.yaml                       the resolved grid
    OUT/runs/FINGERPRINT                a trained model, a run folder
    OUT/cells/FINGERPRINT               records of questions about a model: its training, speed and probe
    OUT/cells/FINGERPRINT/PLAN          records of questions along a plan or an ordering, and pictures
    OUT/cells/FINGERPRINT/PLAN/VARIANT  records of questions in a variant
    OUT/features                        features of real images for FID

A record holds its question. An answered question is not computed again; a changed question is computed anew. Any number
of processes may work in one folder: one process at a time holds a cell.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mar import build
from mar.config import Recipe
from mar.core.errors import Unsupported, UserError
from mar.core.files import GRID, check_kind, checksum, environment, folder_name, held, write_atomic
from mar.core.progress import Progress
from mar.core.records import Record, plain, read, record
from mar.data.base import Data
from mar.experiments.grid import ORDERS, PARTITION, PLAN, VARIANT, Combination, GridFile
from mar.experiments.result import AblationResult, Row, TrainedModel, Training
from mar.experiments.state import Outline, OutlinedQuestion, State, states_of, write_outlines
from mar.likelihood.summary import EnsemblePoint, Likelihood
from mar.metrics import METRICS
from mar.metrics.base import (
    PlanMap,
    Question,
    Subject,
    Variant,
    Workspace,
    adaptive_plan,
    plan_map,
    plan_variants,
)
from mar.metrics.sets import with_measured_sets
from mar.metrics.statistics import comparable, holm, paired_differences
from mar.model.model import Model
from mar.run import Run, load, train
from mar.training import checkpoint
from mar.training.run_folder import RunFolder
from orderings import PlanSpec, parse_partition, to_text

Bar = Callable[[str], AbstractContextManager[Progress]]
Trainer = Callable[[Recipe, Path], None]
TRAINING = "training"


def silent(text: str) -> AbstractContextManager[Progress]:
    """Show no progress bar."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class Cell:
    """One recipe of a grid.

    Attributes:
        name: its values on the axes; the recipe's name where there are none.
        settings: axis -> the name of its value.
        recipe: resolved.
        fingerprint: of the recipe.
        n_parameters: 0 where the recipe is refused.
        data: the training data; cells of one data set share it.
        plans: the plans that it is scored under, in canonical text: the plan on its grid, or the reason of a refusal.
    """

    name: str
    settings: dict[str, str]
    recipe: Recipe
    fingerprint: str
    n_parameters: int
    data: Data
    plans: Mapping[str, PlanMap | str]

    @property
    def served(self) -> list[str]:
        """Plans that the model accepts. A cell without any is not trained."""
        return [plan for plan, found in self.plans.items() if isinstance(found, PlanMap)]


def cells_of(grid: GridFile) -> list[Cell]:
    """Return every cell.

    Raises:
        UserError: a recipe is wrong, or its data are not there.
        Unsupported: the one recipe of a grid without axes, or one of its plans, is impossible.
    """
    data: dict[str, Data] = {}
    found = []
    for combination, recipe in [(combination, build.resolve(recipe)) for combination, recipe in grid.recipes()]:
        source = recipe.data.model_dump_json()
        data[source] = data[source] if source in data else build.data(recipe)
        found.append(_cell(grid, combination, recipe, data[source]))
    return found


def _cell(grid: GridFile, combination: Combination, recipe: Recipe, data: Data) -> Cell:
    plans = grid.plans() or _own_plans(grid, recipe)
    try:
        model = build.assemble(recipe, data).model
        n_parameters, found = model.n_parameters, {plan: _served(model, plan, bool(grid.axes)) for plan in plans}
    except Unsupported as refusal:
        if not grid.axes:
            raise
        n_parameters, found = 0, dict.fromkeys(plans, str(refusal))
    name = ", ".join(combination.settings.values()) or recipe.name
    return Cell(name, combination.settings, recipe, recipe.fingerprint(), n_parameters, data, found)


def _own_plans(grid: GridFile, recipe: Recipe) -> list[str]:
    """Return the recipe's own ordering in the grid's sets, or in the recipe's own."""
    partitions = [parse_partition(text) for text in grid.partitions] or [build.partition(recipe)]
    return [str(PlanSpec(build.ordering(recipe), partition)) for partition in partitions]


def _served(model: Model, plan: str, may_refuse: bool) -> PlanMap | str:
    try:
        return plan_map(model, plan)
    except Unsupported as refusal:
        if not may_refuse:
            raise
        return str(refusal)


class Engine:
    """A grid in its folder.

    Args:
        grid: the cells and the metrics.
        out: the folder.
        bar: makes a progress bar from a text.
        trainer: trains a recipe in a folder (``mar.experiments.launch``); default: in this process.

    Raises:
        UserError, Unsupported: the grid, or the one recipe or a plan of a grid without axes, is impossible; nothing is
            trained. Or the folder is of another kind, or its models were trained on different data.
    """

    def __init__(self, grid: GridFile, out: Path, bar: Bar = silent, trainer: Trainer | None = None) -> None:
        self.grid, self.out, self.bar, self.trainer = grid, out, bar, trainer
        self._folders: dict[str, RunFolder] = {}
        self._records: dict[Path, Record] = {}  # answers read so far
        self._along: dict[tuple[str, str, str, str], list[Question]] = {}
        check_kind(out, GRID)
        asked = grid.asked()
        self.metrics = {name: METRICS[name](options, asked) for name, options in asked.items()}
        self.cells = cells_of(grid)
        for cell in self.cells:
            self._check_data(cell)

    def prepare(self) -> None:
        """Write the resolved grid and its outline."""
        write_atomic(self.out / GRID, OmegaConf.to_yaml(OmegaConf.create(self.grid.model_dump(mode="json"))))
        write_outlines(self.out, self.outlines)

    @cached_property
    def outlines(self) -> list[Outline]:
        """Every cell with its questions, whatever its weights."""
        return [self._outline(cell) for cell in self.cells]

    def _outline(self, cell: Cell) -> Outline:
        run = str(self.folder(cell).path.relative_to(self.out))
        if not cell.served:
            reason = next(reason for reason in cell.plans.values() if isinstance(reason, str))
            return Outline(cell.name, run, cell.recipe.train.iterations, reason)
        questions = tuple(
            OutlinedQuestion(
                question.metric, str(self.file(cell, question).relative_to(self.out)), plain(question.content),
                question.metric != TRAINING and self.metrics[question.metric].alone,
                variant.weights if (variant := self.grid.variant(question.variant)) is not None else "",
            )
            for question in self.questions(cell)
        )  # fmt: skip
        return Outline(cell.name, run, cell.recipe.train.iterations, questions=questions)

    def states(self) -> list[State]:
        """Return the state of every cell, in the grid's order."""
        return states_of(self.out, self.outlines)

    def work(self, wait: bool = False, go_on: Callable[[], bool] = lambda: True) -> None:
        """Train and evaluate every cell that is left and that no other process holds; with ``wait``, those too.

        May be stopped and called again at any moment. Metrics that are measured alone are left to ``measure_alone``.

        Args:
            go_on: asked before each cell.
        """
        todo = [cell for cell in self.cells if cell.served]
        for number, cell in enumerate(todo, start=1):
            if not go_on():
                return
            with held(self.home(cell), wait) as mine:
                if mine:
                    self._work_on(cell, f"{number:>3}/{len(todo)}")

    def measure_alone(self) -> None:
        """Answer what is measured alone, one model after the other in this process, when nothing else runs."""
        for cell in self.cells if any(metric.alone for metric in self.metrics.values()) else ():
            if cell.served:
                with held(self.home(cell), wait=True):
                    self._answer(cell, f"{cell.name}", alone=True)

    def record(self, cell: Cell, question: Question) -> Record | None:
        """Return the record of an answered question, read once; None: it is not answered."""
        file = self.file(cell, question)
        known = self._records.get(file)
        if known is None or known.question != question.content:
            known = read(file, question.content)
            if known is not None and known.answer is not None:
                self._records[file] = known
        return known

    def questions(self, cell: Cell) -> list[Question]:
        """Return every question about a cell, in the order in which they are asked."""
        ways = plan_variants(cell.served, self.grid.variants)
        along = [question for way in ways for question in self.questions_along(cell, *way)]
        of_model = [question for question in along if question.plan is None]
        ordered = [question for question in along if question.plan is not None] + of_model
        return [self.training(cell), *dict.fromkeys(ordered)]

    def questions_along(self, cell: Cell, plan: str, variant: Variant | None) -> list[Question]:
        """Return the metrics' questions about a cell along a plan in a variant, and those about the model itself."""
        weights = self.weights(cell, variant.weights if variant is not None else "")
        key = cell.fingerprint, plan, variant.name if variant is not None else "", weights
        if key not in self._along:
            subject = Subject(cell.fingerprint, weights, plan, variant)
            asked = (metric.question(subject) for metric in self.metrics.values())
            self._along[key] = [question for question in asked if question is not None]
        return self._along[key]

    def home(self, cell: Cell) -> Path:
        """Return the folder of a cell's records."""
        return self.out / "cells" / cell.fingerprint

    def plan_folder(self, cell: Cell, plan: str, variant: str = "") -> Path:
        """Return the folder of the records and pictures of a cell along a plan, in a variant."""
        folder = self.home(cell) / folder_name(plan.replace("/", "+"))
        return folder / folder_name(variant, safe="+:=,() ")

    def folder(self, cell: Cell) -> RunFolder:
        """Return the run of a cell."""
        if cell.fingerprint not in self._folders:
            self._folders[cell.fingerprint] = RunFolder(self.out / "runs" / cell.fingerprint)
        return self._folders[cell.fingerprint]

    def weights(self, cell: Cell, which: str = "") -> str:
        """Return a hash of the scored weights, or of those that a variant names; empty: the cell is not trained."""
        record = self.record(cell, self.training(cell))
        if record is None or record.answer is None:
            return ""
        return record.answer.get(which, record.answer)["weights"]

    def file(self, cell: Cell, question: Question) -> Path:
        """Return the file of a question's record."""
        plan, variant = question.plan, question.variant
        folder = self.home(cell) if plan is None else self.plan_folder(cell, plan, variant)
        return folder / f"{question.metric}.json"

    def training(self, cell: Cell) -> Question:
        """Return the question that training answers."""
        content: dict[str, Any] = {"recipe": cell.fingerprint, "select": self.grid.select}
        if named := sorted({variant.weights for variant in self.grid.variants} - {""}):
            content["weights"] = named
        return Question(TRAINING, content=content)

    def _work_on(self, cell: Cell, place: str) -> None:
        """Train the cell and answer the questions that are left."""
        training = self.training(cell)
        found = record(self.file(cell, training), training.content, lambda: self._train(cell))
        if found.error is None:
            self._answer(cell, place, alone=False)

    def _answer(self, cell: Cell, place: str, alone: bool) -> None:
        """Answer the questions of metrics that are measured ``alone``, or of the others."""
        loaded = cache(lambda which: self._load(cell, which))
        for question in self.questions(cell):
            metric = self.metrics.get(question.metric)
            if metric is None or metric.alone != alone or self.record(cell, question) is not None:
                continue

            def compute(question: Question = question, metric=metric) -> dict[str, Any]:
                variant = self.grid.variant(question.variant)
                with self.bar(f"{place} {metric.title:<7} {self._text(cell, question)}") as progress:
                    folder, features = self.file(cell, question).parent, self.out / "features"
                    load = partial(loaded, variant.weights if variant is not None else "")
                    at = Workspace(load, cell.recipe, cell.data, variant, folder, features, progress)
                    return asdict(metric.compute(question, at))

            record(self.file(cell, question), question.content, compute)

    def _text(self, cell: Cell, question: Question) -> str:
        """Return what a progress bar calls a question."""
        of_cell = [cell.name] if cell.settings else []
        of_plan = [question.plan] if len(cell.plans) > 1 or not cell.settings else []
        return ": ".join(filter(None, [*of_cell, *of_plan, question.variant]))

    def _train(self, cell: Cell) -> dict[str, Any]:
        """Train, and choose the weights that are scored; of the other checkpoints only the last is kept."""
        folder = self.folder(cell)
        if self.trainer is None:
            train(cell.recipe, folder.path, examples=cell.data)
        else:
            self.trainer(cell.recipe, folder.path)
        newest, _ = checkpoint.latest(folder.checkpoints)
        assert newest is not None
        iteration = newest.iteration
        if self.grid.select == "best":
            history = [line for line in folder.history() if "validation_nats_per_token" in line]
            if not history:
                raise UserError("select=best chooses by the validation loss, and this data has no validation split")
            iteration = min(history, key=lambda line: line["validation_nats_per_token"])["iteration"]
            for path in folder.checkpoints.glob("[0-9]*"):
                if int(path.name) not in (iteration, newest.iteration):
                    shutil.rmtree(path)
        chosen = newest if iteration == newest.iteration else checkpoint.at(folder.checkpoints, iteration)
        found = {"": chosen, "last": newest, "best": checkpoint.latest(folder.best)[0]}
        named = {variant.weights for variant in self.grid.variants} - {""}
        if "best" in named and found["best"] is None:
            raise UserError("a variant has weights=best: train with train.keep_best=true or train.until=plateau")

        def described(which: str) -> dict[str, Any]:
            at = found[which]
            assert at is not None
            return {"iteration": at.iteration, "weights": checksum(at.path / "ema.safetensors")[:16]}

        return described("") | {which: described(which) for which in sorted(named)}

    def _load(self, cell: Cell, which: str) -> Run:
        """Load the weights that the grid selects, or those that a variant names."""
        record = self.record(cell, self.training(cell))
        assert record is not None and record.answer is not None
        path = self.folder(cell).path
        run = load(path, weights=which) if which else load(path, iteration=record.answer["iteration"])
        run.data = cell.data
        return run

    def _check_data(self, cell: Cell) -> None:
        """Raise UserError if the cell's run was trained on other data."""
        folder = self.folder(cell)
        about = folder.about()
        if about is not None and not cell.data.about.recorded_as(about.fingerprint):
            raise UserError(
                f"the data of {folder.path} have changed since it was trained ({about.name} {about.fingerprint[:12]}, "
                f"now {cell.data.fingerprint[:12]}): restore them, or choose another --out"
            )


def assemble(engine: Engine) -> AblationResult:
    """Return the result from the records in the folder, also of an unfinished grid."""
    grid = engine.grid
    ways = [(cell, *way) for cell in engine.cells for way in plan_variants(cell.plans, grid.variants)]
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
    for question in engine.questions(cell):
        if (record := engine.record(cell, question)) is not None:
            yield record


def _row(engine: Engine, cell: Cell, plan: str, variant: Variant | None) -> Row:
    row = _unscored(engine, cell, plan, variant)
    if row.refused:
        return row
    answers, seconds, errors = {}, {}, []
    along = engine.questions_along(cell, plan, variant)
    for question in (engine.training(cell), *along):
        record, metric = engine.record(cell, question), engine.metrics.get(question.metric)
        if record is None:
            continue
        if record.error:
            errors.append(f"{metric.title if metric else question.metric}: {record.error}")
        elif metric is not None and not metric.alone:
            folder = engine.file(cell, question).parent.relative_to(engine.out)
            answers[metric.name] = metric.read(record.answer, str(folder))
            seconds[metric.name] = record.seconds
    return replace(row, answers=answers, seconds=seconds, errors=tuple(errors))


def _unscored(engine: Engine, cell: Cell, plan: str, variant: Variant | None) -> Row:
    """Return the row without answers."""
    grid, found = engine.grid, cell.plans[plan]
    settings, orders = dict(cell.settings), grid.orders
    ordering, partition = PlanSpec.parse(plan)
    if grid.orderings and (grid.axes or grid.variants or orders):
        settings[PLAN] = plan
    elif grid.partitions and not grid.orderings:
        settings[PARTITION] = to_text(partition)
    if variant is not None:
        settings[VARIANT] = variant.name
    if orders:
        settings[ORDERS] = "1"
    row = Row(plan, to_text(ordering), to_text(partition), model=cell.name, settings=settings)
    if not isinstance(found, PlanMap):
        return replace(row, refused=found)
    if variant is not None and variant.adaptive:  # the rule finds the order: the plan gives the set sizes alone
        return replace(row, plan=adaptive_plan(variant.adaptive, plan), ordering=variant.adaptive)
    return replace(row, map=with_measured_sets(found, plan, engine.folder(cell).path))


def _is_first_of_likelihood(grid: GridFile, variant: Variant | None) -> bool:
    """True unless a variant above has the same likelihood."""
    sharing = [other for other in grid.variants if not other.is_scored_alone]
    return variant not in sharing or variant == sharing[0]


def _over_orders(row: Row, mixtures: bool) -> tuple[Row, ...]:
    """Return the row of the mean over orders; with ``mixtures`` also a row for the mixture of 1, 2, 4, … orders."""
    scored = row.likelihood
    if scored is None or not scored.ensemble:
        return (row,)
    mean = replace(row, settings={**row.settings, ORDERS: f"mean of {scored.orders}"})
    return (mean, *(_mixture(row, scored, point) for point in scored.ensemble)) if mixtures else (mean,)


def _mixture(row: Row, scored: Likelihood, point: EnsemblePoint) -> Row:
    likelihood = replace(
        scored, kind=scored.head_kind, orders=point.orders, ensemble=(), nats_per_image=point.nats_per_image,
        standard_error_nats=point.standard_error_nats, bits_per_dim=point.bits_per_dim,
        standard_error_bits_per_dim=point.standard_error_bits_per_dim,
        nats_of_image=(), nats_per_step=(), tokens_per_step=(), nats_per_position=(),
    )  # fmt: skip
    settings = {**row.settings, ORDERS: str(point.orders)}
    return Row(
        row.plan, row.ordering, row.partition, model=row.model, settings=settings, answers={"nll": likelihood}
    )  # fmt: skip


def _compared(rows: list[Row], reference: dict[str, Any], confidence: float, engine: Engine) -> list[Row]:
    """Return the rows with their differences to their reference row, where both were scored alike on the same data.

    The reference row of a row has the reference's settings, and the row's own on the axes that it does not name. Holm's
    correction covers every comparison of the table.
    """
    by_key = {_key(row): number for number, row in enumerate(rows)}
    data_of = {cell.name: cell.data.fingerprint for cell in engine.cells}
    found = {}
    for number, row in enumerate(rows):
        base = by_key.get(_key(row, reference))
        if base is None or row.likelihood == rows[base].likelihood:  # the reference, or another variant's likelihood
            continue
        scored = (row.likelihood, rows[base].likelihood)
        if data_of[row.model] == data_of[rows[base].model] and comparable(*scored):
            pair = {"row": scored[0], "base": scored[1]}
            difference = paired_differences(pair, "base", confidence)["row"]  # type: ignore[arg-type]
            found[number] = replace(difference, reference=rows[base].name)
    adjusted = dict(zip(found, holm([difference.p_value for difference in found.values()]), strict=True))
    return [
        replace(row, difference=replace(found[number], p_holm=adjusted[number])) if number in found else row
        for number, row in enumerate(rows)
    ]


def _key(row: Row, changed: dict[str, Any] | None = None) -> tuple[tuple[str, str], ...]:
    """Return what tells a row of the table from the others; with some settings ``changed``."""
    own = row.settings or {PLAN: row.plan}
    return tuple(sorted({**own, **(changed or {})}.items()))


def _baselines(engine: Engine) -> Iterator[Row]:
    """Yield baselines without a model, one set per data set (as loaded by its first cell)."""
    first = {cell.data.fingerprint: cell for cell in reversed(engine.cells)}
    for cell in reversed(first.values()):
        name = f" of {cell.data.name}" if len(first) > 1 else ""
        for metric in engine.metrics.values():
            for each in metric.baselines(cell.recipe, cell.data):
                yield Row(
                    each.plan + name, each.ordering + name, each.partition, answers={metric.name: each.answer}
                )  # fmt: skip


def _model(engine: Engine, cell: Cell) -> TrainedModel:
    model = TrainedModel(
        cell.name, cell.settings, cell.recipe.as_dict(), cell.fingerprint, cell.n_parameters, "", None
    )  # fmt: skip
    if not cell.served:
        return model
    training, *asked = engine.questions(cell)
    answers = {}
    for question in asked:
        metric, record = engine.metrics[question.metric], engine.record(cell, question)
        if metric.alone and record is not None and record.answer is not None:
            answers[metric.name] = metric.read(record.answer, "")
    record = engine.record(cell, training)
    model = replace(model, answers=answers)
    if record is None or record.answer is None:
        return model
    curve = _training(cell, record.answer["iteration"], engine.folder(cell).history())
    return replace(model, weights=record.answer["weights"], training=curve)


def _training(cell: Cell, scored: int, history: Sequence[dict[str, Any]]) -> Training:
    losses = [line for line in history if "loss_nats_per_token" in line]
    nats = "validation_nats_per_token"
    validations = [line for line in history if nats in line]
    return Training(
        iterations=cell.recipe.train.length([(line["iteration"], line[nats]) for line in validations]),
        batch_size=cell.recipe.train.batch_size,
        scored=scored,
        seconds=_seconds([line["seconds"] for line in losses]),
        loss_iteration=tuple(line["iteration"] for line in losses),
        loss_nats=tuple(line["loss_nats_per_token"] for line in losses),
        validation_iteration=tuple(line["iteration"] for line in validations),
        validation_nats=tuple(line[nats] for line in validations),
    )


def _seconds(clock: list[float]) -> float:
    """Return training time from a clock that restarts whenever the run is resumed."""
    return math.fsum(now if now < before else now - before for before, now in zip([0.0, *clock], clock, strict=False))


@dataclass(frozen=True)
class TrainedAt:
    """Cells whose training last ran at one revision on one machine.

    Attributes:
        cells: their names.
    """

    revision: str
    device: str
    cpu: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Provenance:
    """
    Attributes:
        grid: its name.
        environment: of the command that wrote the table (``mar.core.files.environment``).
        clean: no tracked file differed from the revision; None: unknown.
        trained: revision and machine of each training.
        seconds: of each part, summed over cells and so over workers: of an interrupted part the last run, of training
            all of it.
    """

    grid: str
    environment: dict[str, Any]
    clean: bool | None
    trained: tuple[TrainedAt, ...]
    seconds: dict[str, float]

    @property
    def elsewhere(self) -> list[TrainedAt]:
        """Cells trained at another revision than the table's."""
        return [each for each in self.trained if each.revision != self.environment["revision"]]


def provenance(engine: Engine, result: AblationResult, preparation_seconds: float = 0.0) -> Provenance:
    """Return revision, machine and time of a result that was assembled from the engine's folder."""
    revision = result.environment["revision"]
    trained: dict[tuple[str, str, str], list[str]] = {}
    for cell in engine.cells:
        file = engine.folder(cell).path / "environment.json"
        if file.is_file():
            about = json.loads(file.read_text())
            trained.setdefault((about["revision"], about["device"], about.get("cpu", "unknown")), []).append(cell.name)
    curves = {model.fingerprint: model.training for model in result.models}  # cells may share a training
    seconds = {"training": sum(curve.seconds for curve in curves.values() if curve is not None)}
    cells = {cell.fingerprint: cell for cell in engine.cells if cell.served}
    for cell in cells.values():
        for question in engine.questions(cell)[1:]:
            if (record := engine.record(cell, question)) is not None:
                title = engine.metrics[question.metric].title
                seconds[title] = seconds.get(title, 0.0) + record.seconds
    seconds["preparation"] = preparation_seconds
    return Provenance(
        result.name,
        result.environment,
        None if revision == "unknown" else not revision.endswith("-dirty"),
        tuple(TrainedAt(*key, tuple(names)) for key, names in trained.items()),
        {part: value for part, value in seconds.items() if value},
    )
