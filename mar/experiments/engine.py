"""Runs a grid: trains each of its models once, evaluates it under its plans, and keeps whatever is finished.

    OUT/grid.yaml                      the resolved grid
    OUT/runs/FINGERPRINT               a trained model, a run folder
    OUT/cells/FINGERPRINT              a record of its training, its speed and its probe, finished or failed
    OUT/cells/FINGERPRINT/PLAN         likewise of each evaluation along a plan or an ordering, and its pictures
    OUT/cells/FINGERPRINT/PLAN/VARIANT  likewise of each variant
    OUT/features                       what FID keeps

A record holds the question that it answers; no question is computed twice, so the command that was interrupted goes on
where it stopped, and a changed question is answered anew. Any number of processes may work in one folder: a cell is
held by one of them at a time.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from mar.config import Recipe, Section
from mar.core.errors import UserError
from mar.core.files import GRID, check_kind, checksum, held, write_atomic
from mar.core.progress import Progress
from mar.core.records import Record, folder_name, read, record
from mar.experiments import evaluate, sets, speed
from mar.experiments.cells import Cell, cells_of, check_data
from mar.experiments.evaluations import SpeedEvaluation, Variant
from mar.experiments.grid import GridFile
from mar.metrics.probe import linear_probe
from mar.run import Run, load, train
from mar.training import checkpoint
from mar.training.run_folder import RunFolder
from orderings import parse_ordering

Bar = Callable[[str], AbstractContextManager[Progress]]
Trainer = Callable[[Recipe, Path], None]


def silent(text: str) -> AbstractContextManager[Progress]:
    """No progress bar."""
    return nullcontext(lambda done, total: None)


class Ask(NamedTuple):
    """One question about a cell: training, speed, probe; sets along an ordering; or nll, fid along a plan, in a variant
    where that matters."""

    evaluation: str
    plan: str | None = None
    variant: str = ""  # its name


class Engine:
    """A grid in its folder.

    Args:
        grid: what to do.
        out: the folder.
        bar: makes a progress bar from a text.
        trainer: trains a recipe in a folder (``mar.experiments.launch``); default: in this process.

    Raises:
        UserError, Unsupported: the grid, or the one recipe or a plan of a grid without axes, is impossible; nothing was
            trained. Or the folder is of another kind, or data have changed since a model was trained: its records speak
            of others.
    """

    def __init__(self, grid: GridFile, out: Path, bar: Bar = silent, trainer: Trainer | None = None) -> None:
        self.grid, self.out, self.bar, self.trainer = grid, out, bar, trainer or train
        check_kind(out, GRID)
        self.cells = cells_of(grid)
        for cell in self.cells:
            check_data(cell, self.folder(cell))

    def prepare(self) -> None:
        """Write the resolved grid."""
        write_atomic(self.out / GRID, OmegaConf.to_yaml(OmegaConf.create(self.grid.model_dump(mode="json"))))

    def work(self, wait: bool = False, go_on: Callable[[], bool] = lambda: True) -> None:
        """Train and evaluate every cell that has not been and that nobody else holds; with ``wait``, those too.

        May be stopped and called again at any moment. Speeds are left to ``measure_speeds``.

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

    def measure_speeds(self) -> None:
        """One model after the other, in this process: call it when nothing else is at work."""
        wanted = self.grid.speed
        if wanted is None:
            return
        for cell in self.cells:
            if cell.served:
                with held(self.home(cell), wait=True), self.bar(f"speed {cell.name}"):
                    self._once(cell, Ask("speed"), lambda c=cell: self._speed(c, wanted))

    def record(self, cell: Cell, ask: Ask) -> Record | None:
        """The answer to one of the grid's questions, if there is one."""
        return read(self.file(cell, ask), self._question(cell, ask))

    def questions(self, cell: Cell) -> list[Ask]:
        """Everything that the grid asks of a cell, in the order in which it is asked."""
        along = [ask for way in self.grid.ways(cell.served) for ask in self.asked_of(*way)]
        alone = [Ask(kind) for kind in ("probe", "speed") if getattr(self.grid, kind)]
        return [Ask("training"), *dict.fromkeys(along), *alone]

    def asked_of(self, plan: str, variant: Variant | None) -> list[Ask]:
        """What is asked along a plan in a variant; a likelihood that no variant changes is one question of them all."""
        ordering = sets.measured_along(plan)
        asked = [] if ordering is None else [Ask("sets", ordering)]
        if self.grid.nll is not None and (variant is None or variant.has_likelihood):
            asked.append(Ask("nll", plan, variant.name if variant is not None and variant.is_scored_alone else ""))
        if self.grid.fid is not None:
            asked.append(Ask("fid", plan, variant.name if variant is not None else ""))
        return asked

    def home(self, cell: Cell) -> Path:
        """The folder of a cell's records."""
        return self.out / "cells" / cell.fingerprint

    def plan_folder(self, cell: Cell, plan: str, variant: str = "") -> Path:
        """The folder of the records and pictures of a cell along a plan, in a variant."""
        folder = self.home(cell) / folder_name(plan.replace("/", "+"))
        return folder / folder_name(variant, safe="+:=,() ")

    def folder(self, cell: Cell) -> RunFolder:
        """The run of a cell."""
        return RunFolder(self.out / "runs" / cell.fingerprint)

    def weights(self, cell: Cell) -> str:
        """A hash of the weights that are scored; empty: the cell is not trained."""
        record = self.record(cell, Ask("training"))
        return record.answer["weights"] if record is not None and record.answer is not None else ""

    def file(self, cell: Cell, ask: Ask) -> Path:
        """The file of the answer to a question about a cell."""
        folder = self.home(cell) if ask.plan is None else self.plan_folder(cell, ask.plan, ask.variant)
        return folder / f"{ask.evaluation}.json"

    def _question(self, cell: Cell, ask: Ask) -> dict[str, Any]:
        if ask.evaluation == "training":
            return {"recipe": cell.fingerprint, "select": self.grid.select}
        settings: Section | None = getattr(self.grid, ask.evaluation)
        assert settings is not None
        if ask.evaluation == "speed":
            return {"recipe": cell.fingerprint, **settings.model_dump(mode="json")}
        variant = self.grid.variant(ask.variant)
        of = {"plan": ask.plan, "weights": self.weights(cell)}
        of |= {} if variant is None else {"variant": variant.model_dump(mode="json")}
        if ask.plan is not None and sets.measured_along(ask.plan):
            of["sets"] = self.grid.sets.model_dump(mode="json")
        return {**of, **settings.model_dump(mode="json")}

    def _once(self, cell: Cell, ask: Ask, compute: Callable[[], dict[str, Any]]) -> Record:
        return record(self.file(cell, ask), self._question(cell, ask), compute)

    def _work_on(self, cell: Cell, place: str) -> None:
        """Train the cell and answer every question about it, as far as that has not been done."""
        run = cache(lambda: self._load(cell))
        answers: dict[str, Callable[[Ask], dict[str, Any]]] = {
            "training": lambda ask: self._train(cell),
            "sets": lambda ask: self._sets(run(), ask, f"{place} sets    {self._text(cell, ask)}"),
            "nll": lambda ask: self._nll(run(), ask, f"{place} NLL     {self._text(cell, ask)}"),
            "fid": lambda ask: self._fid(run(), cell, ask, f"{place} samples {self._text(cell, ask)}"),
            "probe": lambda ask: self._probe(run()),
        }
        for ask in self.questions(cell):
            if ask.evaluation in answers:  # speed is measured when nothing else is at work
                record = self._once(cell, ask, lambda a=ask: answers[a.evaluation](a))
                if ask.evaluation == "training" and record.error is not None:
                    return

    def _text(self, cell: Cell, ask: Ask) -> str:
        """What a progress bar calls an evaluation along a plan."""
        of_cell = [cell.name] if cell.settings else []
        of_plan = [ask.plan] if len(cell.plans) > 1 or not cell.settings else []
        return ": ".join(filter(None, [*of_cell, *of_plan, ask.variant]))

    def _train(self, cell: Cell) -> dict[str, Any]:
        """Train, and choose the weights that are scored; of the other checkpoints only the last is kept."""
        folder = self.folder(cell)
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
        chosen = checkpoint.at(folder.checkpoints, iteration)
        return {"iteration": iteration, "weights": checksum(chosen.path / "ema.safetensors")[:16]}

    def _load(self, cell: Cell) -> Run:
        record = self.record(cell, Ask("training"))
        assert record is not None and record.answer is not None
        return load(self.folder(cell).path, iteration=record.answer["iteration"])

    def _sets(self, run: Run, ask: Ask, text: str) -> dict[str, Any]:
        assert ask.plan is not None
        with self.bar(text) as progress:
            costs = sets.measured(
                run, parse_ordering(ask.plan), self.grid.sets.images, self.grid.sets.seed, progress=progress
            )
        return {"n_images": costs.n_images, "orders": costs.provenance["orders"]}

    def _nll(self, run: Run, ask: Ask, text: str) -> dict[str, Any]:
        assert self.grid.nll is not None and ask.plan is not None
        with self.bar(text) as progress:
            return evaluate.score_nll(run, ask.plan, self.grid.nll, self.grid.variant(ask.variant), progress).to_dict()

    def _fid(self, run: Run, cell: Cell, ask: Ask, text: str) -> dict[str, Any]:
        assert self.grid.fid is not None and ask.plan is not None
        folder, started = self.plan_folder(cell, ask.plan, ask.variant), (time.monotonic(), time.process_time())
        with self.bar(text) as progress:
            variant = self.grid.variant(ask.variant)
            images = evaluate.sample(run, ask.plan, self.grid.fid, variant, folder, progress)
        seconds = {
            "sampling_seconds": time.monotonic() - started[0],
            "sampling_cpu_seconds": time.process_time() - started[1],
        }
        scores = evaluate.score_images(run, images, self.grid.fid, self.out / "features")
        return {**seconds, "scores": scores.to_dict()}

    def _probe(self, run: Run) -> dict[str, Any]:
        wanted = self.grid.probe
        assert wanted is not None
        ordering = run.parts.ordering
        return asdict(linear_probe(run.model, run.data, ordering, wanted.sets, wanted.strength, wanted.seed))

    def _speed(self, cell: Cell, wanted: SpeedEvaluation) -> dict[str, Any]:
        return asdict(speed.measure(cell.recipe, cell.data, wanted))
