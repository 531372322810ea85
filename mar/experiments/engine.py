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
from collections.abc import Callable, Iterator, Mapping
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
from mar.core.records import Question, Record, plain, read, record
from mar.data.base import Data
from mar.experiments.grid import ORDERS, PARTITION, PLAN, SEED, VARIANT, Combination, GridFile
from mar.experiments.result import AblationResult, Row, TrainedModel, Training
from mar.experiments.state import OUTLINE, Outline, State
from mar.experiments.statistics import compared, judged
from mar.likelihood.summary import EnsemblePoint, Likelihood
from mar.metrics.base import PlanMap, Subject, Variant, Workspace, adaptive_plan, plan_map, plan_variants
from mar.metrics.fid import while_training
from mar.metrics.sets import with_measured_sets
from mar.run import Run, load, train
from mar.training import checkpoint
from mar.training.run_folder import RunFolder
from orderings import PlanSpec, parse_partition, to_text

Bar = Callable[[str], AbstractContextManager[Progress]]
Trainer = Callable[[Recipe, Path], None]
TRAINING = "training"


@dataclass(frozen=True)
class Cell:
    """One recipe of a grid."""

    name: str  # its values on the axes; the recipe's name where there are none
    settings: dict[str, str]  # axis -> the name of its value
    recipe: Recipe  # resolved
    fingerprint: str
    n_parameters: int  # 0 where the recipe is refused
    data: Data  # cells of one data set share it
    plans: Mapping[PlanSpec, PlanMap | str]  # that it is scored under: on its grid, or the reason of a refusal

    @property
    def served(self) -> list[PlanSpec]:
        """Plans that the model accepts. A cell without any is not trained."""
        return [plan for plan, found in self.plans.items() if isinstance(found, PlanMap)]


def cells_of(grid: GridFile) -> list[Cell]:
    """Return every cell. Raise UserError, Unsupported: as ``Engine``."""
    data: dict[str, Data] = {}
    plans, found = grid.plans(), []
    for combination, recipe in [(combination, build.resolve(recipe)) for combination, recipe in grid.recipes()]:
        source = f"{recipe.data.model_dump_json()} {recipe.as_dict().get('condition')}"
        data[source] = data[source] if source in data else build.data(recipe)
        found.append(_cell(grid, plans, combination, recipe, data[source]))
    known: dict[Any, str] = {}
    for cell in found:
        others = frozenset((axis, name) for axis, name in cell.settings.items() if axis != SEED)
        if (other := known.setdefault((others, cell.fingerprint), cell.name)) != cell.name:
            raise UserError(
                f"{other} and {cell.name} are one model: give the values of the axis seed seeds of their own"
            )
    return found


def _cell(grid: GridFile, plans: list[PlanSpec], combination: Combination, recipe: Recipe, data: Data) -> Cell:
    if not plans:  # the recipe's own ordering, in the grid's sets or its own
        partitions = [parse_partition(text) for text in grid.partitions] or [build.partition(recipe)]
        plans = [PlanSpec(build.ordering(recipe), partition) for partition in partitions]
    model, found = None, {}
    for plan in plans:
        try:
            model = model or build.assemble(recipe, data).model
            found[plan] = plan_map(model, plan)
        except Unsupported as refusal:
            if not grid.axes:
                raise
            found[plan] = str(refusal)
    name = ", ".join(combination.settings.values()) or recipe.name
    n_parameters = 0 if model is None else model.n_parameters
    return Cell(name, combination.settings, recipe, recipe.fingerprint(), n_parameters, data, found)


class Engine:
    """A grid in its folder.

    Args:
        grid: the cells and the metrics.
        out: the folder.
        bar: makes a progress bar from a text; None: shows none.
        trainer: trains a recipe in a folder (``mar.experiments.launch``); default: in this process.

    Raises:
        UserError, Unsupported: the grid, or the one recipe or a plan of a grid without axes, is impossible; nothing is
            trained. Or the folder is of another kind, or its models were trained on different data.
    """

    def __init__(self, grid: GridFile, out: Path, bar: Bar | None = None, trainer: Trainer | None = None) -> None:
        self.grid, self.out, self.trainer = grid, out, trainer
        self.bar: Bar = bar or (lambda text: nullcontext(lambda done, total: None))
        check_kind(out, GRID)
        self.metrics = grid.metrics()
        self.cells = cells_of(grid)
        self._folders = {cell.fingerprint: RunFolder(out / "runs" / cell.fingerprint) for cell in self.cells}
        for cell in self.cells:
            self._check_data(cell)

    def prepare(self) -> None:
        """Write the resolved grid and its outline."""
        write_atomic(self.out / GRID, OmegaConf.to_yaml(OmegaConf.create(self.grid.model_dump(mode="json"))))
        write_atomic(self.out / OUTLINE, json.dumps([asdict(outline) for outline in self.outlines]))

    @cached_property
    def asked(self) -> dict[str, dict[tuple[PlanSpec, str], list[Question]]]:
        """Of each cell (its name), the metrics' questions along each plan in each variant (its name), those about the
        model included."""
        found: dict[str, dict[tuple[PlanSpec, str], list[Question]]] = {cell.name: {} for cell in self.cells}
        for cell in self.cells:
            for plan, variant in plan_variants(cell.served, self.grid.variants):
                subject = Subject(cell.fingerprint, "", plan, variant)
                every = (metric.question(subject) for metric in self.metrics.values())
                placed = [self._placed(cell, question) for question in every if question is not None]
                found[cell.name][plan, _name(variant)] = placed
        return found

    @cached_property
    def outlines(self) -> list[Outline]:
        """Every cell with its questions: its training, those along plans, and those about the model last."""
        named, found = sorted({variant.weights for variant in self.grid.variants} - {""}), []
        for cell in self.cells:
            content = {"recipe": cell.fingerprint, "select": self.grid.select, **({"weights": named} if named else {})}
            training = self._placed(cell, Question(TRAINING, content=content))
            asked = [question for each in self.asked[cell.name].values() for question in each]
            every = dict.fromkeys([training, *sorted(asked, key=lambda question: question.plan is None)])
            refused = "" if cell.served else str(next(iter(cell.plans.values())))
            run, iterations = str(self.folder(cell).path.relative_to(self.out)), cell.recipe.train.iterations
            found.append(Outline(cell.name, run, iterations, refused, () if refused else tuple(every)))
        return found

    def outline(self, cell: Cell) -> Outline:
        """Return a cell with its questions."""
        return self.outlines[self.cells.index(cell)]

    def states(self) -> list[State]:
        """Return the state of every cell, in the grid's order."""
        return [outline.state(self.out) for outline in self.outlines]

    def work(self, wait: bool = False, go_on: Callable[[], bool] = lambda: True) -> None:
        """Train and evaluate every cell that is left and that no other process holds; with ``wait``, those too.

        May be stopped and called again at any moment. ``go_on`` is asked before each cell. Metrics that are measured
        alone are left to ``measure_alone``.
        """
        todo = [cell for cell in self.cells if cell.served]
        for number, cell in enumerate(todo, start=1):
            if not go_on():
                return
            with held(self.home(cell), wait) as mine:
                if mine:
                    training = self.outline(cell).questions[0]
                    if record(self.out / training.file, training.content, partial(self._train, cell)).error is None:
                        self._answer(cell, f"{number:>3}/{len(todo)}", alone=False)

    def measure_alone(self) -> None:
        """Answer what is measured alone, one model after the other in this process, when nothing else runs."""
        if any(metric.alone for metric in self.metrics.values()):
            for cell in filter(lambda cell: cell.served, self.cells):
                with held(self.home(cell), wait=True):
                    self._answer(cell, "alone", alone=True)

    def _placed(self, cell: Cell, question: Question) -> Question:
        """Return the question with the place of its record, and how it is answered."""
        metric, variant = self.metrics.get(question.metric), self.grid.variant(question.variant)
        home, plan = self.home(cell), question.plan
        folder = home if plan is None else self.plan_folder(cell, plan, question.variant)
        return replace(
            question,
            content=plain(question.content),
            file=str((folder / f"{question.metric}.json").relative_to(self.out)),
            alone=metric is not None and metric.alone,
            weights=variant.weights if variant is not None else "",
        )

    def home(self, cell: Cell) -> Path:
        """Return the folder of a cell's records."""
        return self.out / "cells" / cell.fingerprint

    def plan_folder(self, cell: Cell, plan: str, variant: str = "") -> Path:
        """Return the folder of the records and pictures of a cell along a plan, in a variant."""
        inner = folder_name(variant, safe="+:=,() ") if variant else ""
        return self.home(cell) / folder_name(plan.replace("/", "+")) / inner

    def folder(self, cell: Cell) -> RunFolder:
        """Return the run of a cell."""
        return self._folders[cell.fingerprint]

    def _answer(self, cell: Cell, place: str, alone: bool) -> None:
        """Answer the questions of metrics that are measured ``alone``, or of the others."""
        loaded = cache(partial(self._load, cell))
        for question, known in self.outline(cell).answers(self.out):
            metric = self.metrics.get(question.metric)
            if known is not None or metric is None or metric.alone != alone:
                continue
            file, variant = self.out / question.file, self.grid.variant(question.variant)
            of_plan = question.plan if len(cell.plans) > 1 or not cell.settings else None
            text = ": ".join(filter(None, [cell.name if cell.settings else "", of_plan, question.variant]))
            with self.bar(f"{place} {metric.title:<7} {text}") as progress:
                load = partial(loaded, question.weights)
                at = Workspace(load, cell.recipe, cell.data, variant, file.parent, self.out / "features", progress)
                compute = partial(metric.compute, question, at)
                record(file, question.content, lambda compute=compute: asdict(compute()))

    def _train(self, cell: Cell) -> dict[str, Any]:
        """Train, and choose the weights that are scored; of the other checkpoints only the last is kept."""
        folder = self.folder(cell)
        if self.trainer is None:
            train(cell.recipe, folder.path, examples=cell.data, fid=while_training)
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
        described: dict[str, dict[str, Any]] = {}
        for which in sorted({"", *(variant.weights for variant in self.grid.variants)}):
            if (at := found[which]) is None:
                raise UserError("a variant has weights=best: train with train.keep_best=true or train.until=plateau")
            described[which] = {"iteration": at.iteration, "weights": checksum(at.path / "ema.safetensors")[:16]}
        return described.pop("") | described

    def _load(self, cell: Cell, which: str) -> Run:
        """Load the weights that the grid selects, or those that a variant names."""
        training = self.outline(cell).questions[0]
        known = read(self.out / training.file, training.content)
        assert known is not None and known.answer is not None
        path = self.folder(cell).path
        run = load(path, weights=which) if which else load(path, iteration=known.answer["iteration"])
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


def _name(variant: Variant | None) -> str:
    return "" if variant is None else variant.name


def assemble(engine: Engine) -> AblationResult:
    """Return the result from the records in the folder, also of an unfinished grid."""
    grid = engine.grid
    answers = {outline.name: dict(outline.answers(engine.out)) for outline in engine.outlines}
    rows = [row for cell in engine.cells for row in _rows(engine, cell, answers[cell.name])]
    data = {cell.data.fingerprint: cell.data.name for cell in engine.cells}
    data_of = {cell.name: cell.data.fingerprint for cell in engine.cells}
    assert isinstance(grid.reference, dict)
    models = tuple(_model(engine, cell, answers[cell.name]) for cell in engine.cells)
    baselines = _baselines(engine)
    if grid.compare == "sound":
        trained, cells = {model.name: model.training for model in models}, {cell.name: cell for cell in engine.cells}
        keys = (_scale(cells[row.model], row.likelihood) for row in rows)
        rows = [judged(row, trained[row.model], baselines.get(key, ())) for row, key in zip(rows, keys, strict=True)]
    by_key, reference = {_key(row): row for row in rows}, grid.reference

    def base(row: Row) -> Row | None:
        """The row of the reference's settings, and the row's own on the axes that it does not name, on equal data."""
        found = by_key.get(_key(row, reference))
        return found if found is not None and data_of[row.model] == data_of[found.model] else None

    return AblationResult(
        name=grid.name,
        grid=grid.model_dump(mode="json"),
        axes=tuple(grid.axes),
        ways=tuple(
            way for way in (PLAN, PARTITION, VARIANT, ORDERS) if way not in grid.axes and way in rows[0].settings
        ),
        models=models,
        data=", ".join(dict.fromkeys(data.values())),
        data_fingerprint=", ".join(data),
        environment=environment(),
        reference=", ".join(map(str, grid.reference.values())),
        rows=tuple(compared(rows, base, grid.confidence)),
        baselines=tuple(row for found in baselines.values() for row in found),
        seconds=math.fsum(each.seconds for found in answers.values() for each in found.values() if each is not None),
    )


Answers = Mapping[Question, Record | None]


def _rows(engine: Engine, cell: Cell, answers: Answers) -> Iterator[Row]:
    """Yield the rows of a cell: along each plan in each variant, over orders."""
    for plan, variant in plan_variants(cell.plans, engine.grid.variants):
        asked = engine.asked[cell.name].get((plan, _name(variant)), [])
        own = {question: answers[question] for question in (*list(answers)[:1], *asked)}  # the first is its training
        yield from _over_orders(engine.grid, _row(engine, cell, plan, variant, own), variant)


def _row(engine: Engine, cell: Cell, plan: PlanSpec, variant: Variant | None, answered: Answers) -> Row:
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
    for question, known in answered.items():
        metric = engine.metrics.get(question.metric)
        if known is None:
            continue
        if known.error:
            errors.append(f"{metric.title if metric else question.metric}: {known.error}")
        elif metric is not None and not metric.alone:
            answers[question.metric] = metric.read(known.answer, str(Path(question.file).parent))
            seconds[question.metric] = known.seconds
    shown = with_measured_sets(found, plan, engine.folder(cell).path)
    if variant is not None and variant.adaptive:  # the rule finds the order: the plan gives the set sizes alone
        text, ordering, shown = adaptive_plan(variant.adaptive, text), variant.adaptive, None
    return Row(text, ordering, partition, shown, cell.name, settings, answers, seconds, errors=tuple(errors))


def _over_orders(grid: GridFile, row: Row, variant: Variant | None) -> list[Row]:
    """Return the row of the mean over orders, and one for each mixture of 1, 2, 4, … orders unless a variant above has
    the same likelihood."""
    scored: Likelihood | None = row.likelihood
    if scored is None or not scored.ensemble:
        return [row]
    mean = replace(row, settings={**row.settings, ORDERS: f"mean of {scored.orders}"})
    sharing = [other for other in grid.variants if not other.is_scored_alone]
    first = variant not in sharing or variant == sharing[0]
    return [mean, *(_mixture(row, scored, point) for point in scored.ensemble if first)]


def _mixture(row: Row, scored: Likelihood, point: EnsemblePoint) -> Row:
    """Return the row of a mixture of orders, which has the NLL alone."""
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


def _scale(cell: Cell, answer: Any) -> tuple[str, str]:
    """Return what comparable answers share: the data; the tokens, too, of a likelihood without bits/dim."""
    of_tokens = isinstance(answer, Likelihood) and answer.bits_per_dim is None
    return cell.data.fingerprint, str(cell.recipe.as_dict()["tokenizer"]) if of_tokens else ""


def _baselines(engine: Engine) -> dict[tuple[str, str], list[Row]]:
    """Return baselines without a model (of the first cell of its data and tokenizer), by what they compare with."""
    first = {(cell.data.fingerprint, str(cell.recipe.as_dict()["tokenizer"])): cell for cell in reversed(engine.cells)}
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for cell in reversed(first.values()):
        for metric in engine.metrics.values():
            for each in metric.baselines(cell.recipe, cell.data):
                row = Row(each.plan, each.ordering, each.partition, answers={metric.name: each.answer})
                key = _scale(cell, each.answer)
                name = f" of {cell.data.name}" * (len({data for data, _ in first}) > 1)
                name += f" ({cell.recipe.tokenizer.kind})" * bool(key[1] and len(first) > 1)
                row = replace(row, plan=row.plan + name, ordering=row.ordering + name)
                found.setdefault(key, {}).setdefault(row.plan, row)
    return {key: list(rows.values()) for key, rows in found.items()}


def _model(engine: Engine, cell: Cell, answered: Answers) -> TrainedModel:
    answers, weights, curve = {}, "", None
    for question, known in answered.items():
        metric = engine.metrics.get(question.metric)
        if known is None or known.answer is None:
            continue
        if metric is None:
            weights = known.answer["weights"]
            history, scored = engine.folder(cell).history(), known.answer["iteration"]
            curve = Training.of(history, cell.recipe.train, scored, len(cell.data.train))
        elif metric.alone:
            answers[question.metric] = metric.read(known.answer, "")
    recipe = cell.recipe.as_dict()
    return TrainedModel(cell.name, cell.settings, recipe, cell.fingerprint, cell.n_parameters, weights, curve, answers)
