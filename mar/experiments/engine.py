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
from mar.core.files import GRID, check_kind, checksum, environment, held, write_atomic
from mar.core.progress import Progress
from mar.core.records import Record, folder_name, plain, read, record
from mar.data.base import Data
from mar.experiments.grid import ORDERS, PARTITION, PLAN, VARIANT, Combination, GridFile
from mar.experiments.result import AblationResult, Row, TrainedModel, Training
from mar.experiments.state import Asked, Outline, State, states_of, write_outlines
from mar.experiments.statistics import compared
from mar.likelihood.summary import EnsemblePoint, Likelihood
from mar.metrics.base import PlanMap, Question, Subject, Variant, Workspace, adaptive_plan, plan_map, plan_variants
from mar.metrics.nll import check_comparable
from mar.metrics.sets import with_measured_sets
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
        plans: the plans that it is scored under: the plan on its grid, or the reason of a refusal.
    """

    name: str
    settings: dict[str, str]
    recipe: Recipe
    fingerprint: str
    n_parameters: int
    data: Data
    plans: Mapping[PlanSpec, PlanMap | str]

    @property
    def served(self) -> list[PlanSpec]:
        """Plans that the model accepts. A cell without any is not trained."""
        return [plan for plan, found in self.plans.items() if isinstance(found, PlanMap)]


def cells_of(grid: GridFile) -> list[Cell]:
    """Return every cell.

    Raises:
        UserError: a recipe is wrong, or its data are not there.
        Unsupported: the one recipe of a grid without axes, or one of its plans, is impossible.
    """
    data: dict[str, Data] = {}
    plans, found = grid.plans(), []
    for combination, recipe in [(combination, build.resolve(recipe)) for combination, recipe in grid.recipes()]:
        source = recipe.data.model_dump_json()
        data[source] = data[source] if source in data else build.data(recipe)
        found.append(_cell(grid, plans, combination, recipe, data[source]))
    return found


def _cell(grid: GridFile, plans: list[PlanSpec], combination: Combination, recipe: Recipe, data: Data) -> Cell:
    if not plans:  # the recipe's own ordering, in the grid's sets or its own
        partitions = [parse_partition(text) for text in grid.partitions] or [build.partition(recipe)]
        plans = [PlanSpec(build.ordering(recipe), partition) for partition in partitions]
    try:
        model = build.assemble(recipe, data).model
        n_parameters, found = model.n_parameters, {plan: _served(model, plan, bool(grid.axes)) for plan in plans}
    except Unsupported as refusal:
        if not grid.axes:
            raise
        n_parameters, found = 0, dict.fromkeys(plans, str(refusal))
    name = ", ".join(combination.settings.values()) or recipe.name
    return Cell(name, combination.settings, recipe, recipe.fingerprint(), n_parameters, data, found)


def _served(model: Model, plan: PlanSpec, may_refuse: bool) -> PlanMap | str:
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
        self._records: dict[Path, Record] = {}  # answers read so far
        check_kind(out, GRID)
        self.metrics = grid.metrics()
        self.cells = cells_of(grid)
        self._folders = {cell.fingerprint: RunFolder(out / "runs" / cell.fingerprint) for cell in self.cells}
        self._questions = cache(self._questions_of)
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
            Asked(
                question.metric, str(self.file(cell, question).relative_to(self.out)), plain(question.content),
                question.metric != TRAINING and self.metrics[question.metric].alone,
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
                    training = self.training(cell)
                    found = record(self.file(cell, training), training.content, lambda cell=cell: self._train(cell))
                    if found.error is None:
                        self._answer(cell, f"{number:>3}/{len(todo)}", alone=False)

    def measure_alone(self) -> None:
        """Answer what is measured alone, one model after the other in this process, when nothing else runs."""
        for cell in self.cells if any(metric.alone for metric in self.metrics.values()) else ():
            if cell.served:
                with held(self.home(cell), wait=True):
                    self._answer(cell, cell.name, alone=True)

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
        """Return every question about a cell, in the order in which they are asked: about the model itself last."""
        every = [question for asked in self.along(cell).values() for question in asked]
        ordered = sorted(every, key=lambda question: question.plan is None)
        return [self.training(cell), *dict.fromkeys(ordered)]

    def along(self, cell: Cell) -> Mapping[tuple[PlanSpec, str], list[Question]]:
        """Return the metrics' questions along each plan in each variant (its name), those about the model included."""
        return self._questions(cell.fingerprint, tuple(cell.served), self.weights(cell))

    def _questions_of(
        self, fingerprint: str, plans: tuple[PlanSpec, ...], weights: str
    ) -> Mapping[tuple[PlanSpec, str], list[Question]]:
        found = {}
        for plan, variant in plan_variants(plans, self.grid.variants):
            subject = Subject(fingerprint, weights, plan, variant)
            asked = [metric.question(subject) for metric in self.metrics.values()]
            found[plan, variant.name if variant is not None else ""] = [each for each in asked if each is not None]
        return found

    def home(self, cell: Cell) -> Path:
        """Return the folder of a cell's records."""
        return self.out / "cells" / cell.fingerprint

    def plan_folder(self, cell: Cell, plan: str, variant: str = "") -> Path:
        """Return the folder of the records and pictures of a cell along a plan, in a variant."""
        folder = self.home(cell) / folder_name(plan.replace("/", "+"))
        return folder / folder_name(variant, safe="+:=,() ")

    def folder(self, cell: Cell) -> RunFolder:
        """Return the run of a cell."""
        return self._folders[cell.fingerprint]

    def weights(self, cell: Cell) -> str:
        """Return a hash of the scored weights; empty: the cell is not trained."""
        record = self.record(cell, self.training(cell))
        return record.answer["weights"] if record is not None and record.answer is not None else ""

    def file(self, cell: Cell, question: Question) -> Path:
        """Return the file of a question's record."""
        plan, variant = question.plan, question.variant
        folder = self.home(cell) if plan is None else self.plan_folder(cell, plan, variant)
        return folder / f"{question.metric}.json"

    def training(self, cell: Cell) -> Question:
        """Return the question that training answers."""
        return Question(TRAINING, content={"recipe": cell.fingerprint, "select": self.grid.select})

    def _answer(self, cell: Cell, place: str, alone: bool) -> None:
        """Answer the questions of metrics that are measured ``alone``, or of the others."""
        loaded = cache(lambda: self._load(cell))
        for question in self.questions(cell):
            metric = self.metrics.get(question.metric)
            if metric is None or metric.alone != alone or self.record(cell, question) is not None:
                continue
            file, variant = self.file(cell, question), self.grid.variant(question.variant)

            def compute(question: Question = question, metric=metric, file=file, variant=variant) -> dict[str, Any]:
                with self.bar(f"{place} {metric.title:<7} {self._text(cell, question)}") as progress:
                    features = self.out / "features"
                    at = Workspace(loaded, cell.recipe, cell.data, variant, file.parent, features, progress)
                    return asdict(metric.compute(question, at))

            record(file, question.content, compute)

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
        return {"iteration": iteration, "weights": checksum(chosen.path / "ema.safetensors")[:16]}

    def _load(self, cell: Cell) -> Run:
        record = self.record(cell, self.training(cell))
        assert record is not None and record.answer is not None
        run = load(self.folder(cell).path, iteration=record.answer["iteration"])
        run.data = cell.data
        return run

    def _check_data(self, cell: Cell) -> None:
        """Raise UserError if the cell's run was trained on other data."""
        folder = self.folder(cell)
        about = folder.about()
        if about is not None and about.fingerprint not in ("", cell.data.fingerprint):
            raise UserError(
                f"the data of {folder.path} have changed since it was trained ({about.name} {about.fingerprint[:12]}, "
                f"now {cell.data.fingerprint[:12]}): restore them, or choose another --out"
            )


def assemble(engine: Engine) -> AblationResult:
    """Return the result from the records in the folder, also of an unfinished grid."""
    grid = engine.grid
    ways = [(cell, *way) for cell in engine.cells for way in plan_variants(cell.plans, grid.variants)]
    rows = [row for way in ways for row in _over_orders(_row(engine, *way), _is_first_of_likelihood(grid, way[2]))]
    data = {cell.data.fingerprint: cell.data.name for cell in engine.cells}
    data_of = {cell.name: cell.data.fingerprint for cell in engine.cells}
    assert isinstance(grid.reference, dict)
    by_key, reference = {_key(row): row for row in rows}, grid.reference

    def base(row: Row) -> Row | None:
        """The row of the reference's settings, and the row's own on the axes that it does not name, on equal data."""
        found = by_key.get(_key(row, reference))
        return found if found is not None and data_of[row.model] == data_of[found.model] else None

    seconds = (engine.record(cell, question) for cell in engine.cells for question in engine.questions(cell))
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
        rows=tuple(compared(rows, base, grid.confidence)),
        baselines=tuple(_baselines(engine)),
        seconds=math.fsum(record.seconds for record in seconds if record is not None),
    )


def score_matrix(
    runs: Mapping[str, Run], plans: Sequence[str], score: Callable[[str, Run, str], Likelihood], split: str = "test",
    seed: int = 0, kind: str | None = None, confidence: float = 0.95,
) -> AblationResult:  # fmt: skip
    """Return the result of several runs, each along every plan and compared with the plan that it was trained along.

    Args:
        runs: by the names that the table shows.
        plans: short texts; training plans of the runs that are not among them are added.
        score: of a run, by its name, along a plan; always on the same images and noise.
        split, seed, kind: of the scores, for the record and the checks.
        confidence: of the intervals of the differences.

    Raises:
        UserError, Unsupported: see ``check_comparable``; nothing was scored.
    """
    check_comparable(runs, kind)
    own = {name: run.training_plan for name, run in runs.items()}
    columns = dict.fromkeys([*(str(PlanSpec.parse(plan, adaptive=True)) for plan in plans), *own.values()])
    scores = {(name, plan): score(name, runs[name], plan) for name in runs for plan in columns}
    rows = {
        (name, plan): Row(
            plan, *map(to_text, PlanSpec.parse(plan, adaptive=True)), model=name,
            settings={"run": name, "trained along": own[name], PLAN: plan}, answers={"nll": likelihood},
        )
        for (name, plan), likelihood in scores.items()
    }  # fmt: skip
    compare = partial(compared, list(rows.values()), lambda row: rows[row.model, own[row.model]], confidence)
    base = next(iter(runs.values()))
    notes = [note for name, run in runs.items() for note in _run_notes(name, run, scores[name, own[name]])]
    grid = {"nll": {"split": split, "seed": seed, "kind": kind}, "confidence": confidence, "notes": notes}
    recipes = {name: run.recipe for name, run in runs.items()}
    models = (
        TrainedModel(
            name, {"run": name, "trained along": own[name]}, recipe.as_dict(), recipe.fingerprint(), 0, "", None
        )
        for name, recipe in recipes.items()
    )
    return AblationResult(
        "train-order × eval-order", grid | {"weights": "ema" if base.ema else "last"}, ("run", "trained along"),
        tuple(models), base.data.name, base.data.fingerprint, environment(), "its own plan",
        tuple(compare(name=lambda row: row.plan)), (), 0.0, (PLAN,),
    )  # fmt: skip


def _run_notes(name: str, run: Run, scored: Likelihood) -> list[str]:
    """Return a line about a run, and its warnings."""
    kind, plan = run.recipe.train.objective.kind, run.training_plan
    notes = [f"{name}: trained along {plan}, mask ratio {kind}, {run.checkpoint.iteration:,} iterations."]
    if not build.objective(run.recipe).estimates_nll(build.ordering(run.recipe)):
        notes.append(
            f"Warning: {name}: its training loss (objective {kind}) is no NLL of {plan}: a fixed order is trained with "
            "train.objective=next_set."
        )
    return [*notes, *(f"Warning: {name}: {warning}." for warning in scored.warnings)]


def _row(engine: Engine, cell: Cell, plan: PlanSpec, variant: Variant | None) -> Row:
    """Return the row of a cell along a plan in a variant, with the answers of its questions."""
    grid, found = engine.grid, cell.plans[plan]
    text, (ordering, partition) = str(plan), map(to_text, plan)
    settings = dict(cell.settings)
    if grid.orderings and (grid.axes or grid.variants or grid.orders):
        settings[PLAN] = text
    elif grid.partitions and not grid.orderings:
        settings[PARTITION] = partition
    if variant is not None:
        settings[VARIANT] = variant.name
    if grid.orders:
        settings[ORDERS] = "1"
    if not isinstance(found, PlanMap):
        return Row(text, ordering, partition, model=cell.name, settings=settings, refused=found)
    answers, seconds, errors = {}, {}, []
    along = engine.along(cell).get((plan, variant.name if variant is not None else ""), [])
    for question in (engine.training(cell), *along):
        record, metric = engine.record(cell, question), engine.metrics.get(question.metric)
        if record is None:
            continue
        if record.error:
            errors.append(f"{metric.title if metric else question.metric}: {record.error}")
        elif metric is not None and not metric.alone:
            folder = engine.file(cell, question).parent.relative_to(engine.out)
            answers[question.metric] = metric.read(record.answer, str(folder))
            seconds[question.metric] = record.seconds
    shown = with_measured_sets(found, plan, engine.folder(cell).path)
    if variant is not None and variant.adaptive:  # the rule finds the order: the plan gives the set sizes alone
        text, ordering, shown = adaptive_plan(variant.adaptive, plan.partition), variant.adaptive, None
    return Row(text, ordering, partition, shown, cell.name, settings, answers, seconds, errors=tuple(errors))


def _is_first_of_likelihood(grid: GridFile, variant: Variant | None) -> bool:
    """True unless a variant above has the same likelihood."""
    sharing = [other for other in grid.variants if not other.is_scored_alone]
    return variant not in sharing or variant == sharing[0]


def _over_orders(row: Row, mixtures: bool) -> tuple[Row, ...]:
    """Return the row of the mean over orders; with ``mixtures`` also a row for the mixture of 1, 2, 4, … orders."""
    scored: Likelihood | None = row.likelihood
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
    return Row(row.plan, row.ordering, row.partition, None, row.model, settings, {"nll": likelihood})


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
                answers = {metric.name: each.answer}
                yield Row(each.plan + name, each.ordering + name, each.partition, answers=answers)


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
            answers[question.metric] = metric.read(record.answer, "")
    record = engine.record(cell, training)
    if record is None or record.answer is None:
        return replace(model, answers=answers)
    curve = Training.of(engine.folder(cell).history(), cell.recipe.train, record.answer["iteration"])
    return replace(model, answers=answers, weights=record.answer["weights"], training=curve)


@dataclass(frozen=True)
class TrainedAt:
    """Cells (their names) whose training last ran at one revision on one machine."""

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
    for cell in {cell.fingerprint: cell for cell in engine.cells if cell.served}.values():
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
