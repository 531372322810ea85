"""Runs a grid: trains its model once, scores it under every plan, and keeps whatever is finished.

    OUT/grid.yaml                 the resolved grid
    OUT/runs/FINGERPRINT          the trained model, a run folder
    OUT/cells/FINGERPRINT/PLAN    a record of each evaluation, finished or failed, and its pictures
    OUT/features                  what FID keeps

A record holds the question that it answers; no question is computed twice, so the command that was interrupted goes on
where it stopped, and a changed question is answered anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omegaconf import OmegaConf
from pydantic import TypeAdapter

from mar import build
from mar.ablation import cell
from mar.ablation.grid import GridFile
from mar.ablation.result import PlanMap
from mar.config import Recipe, Section
from mar.model import Model
from mar.run import Run, load, train
from mar.training import checkpoint
from mar.training.run_folder import RunFolder, write

Bar = Callable[[str], AbstractContextManager[cell.Progress]]


@dataclass(frozen=True)
class Record:
    """One evaluation of one plan: the question, the seconds it took, and the answer (plain values) or the error."""

    question: dict[str, Any]
    seconds: float
    answer: dict[str, Any] | None
    error: str | None


def silent(text: str) -> AbstractContextManager[cell.Progress]:
    """No progress bar."""
    return nullcontext(lambda done, total: None)


class Engine:
    """An ablation in its folder.

    Args:
        grid: what to do.
        out: the folder.
        bar: makes a progress bar from a text.
        retry_failed: evaluate again what failed before.

    Raises:
        UserError, Unsupported: the recipe or one of the plans is impossible; nothing was trained.
    """

    def __init__(self, grid: GridFile, out: Path, bar: Bar = silent, retry_failed: bool = False) -> None:
        self.grid, self.out, self.bar, self.retry_failed = grid, out, bar, retry_failed
        self.recipe: Recipe = build.resolve(grid.training())
        self.folder = RunFolder(out / "runs" / self.recipe.fingerprint())
        model: Model = build.model(self.recipe, build.data(self.recipe))
        self.n_parameters = model.n_parameters
        self.maps: dict[str, PlanMap] = {plan: cell.plan_map(model, plan) for plan in grid.plans()}
        self.weights = self._finished()

    def run(self) -> Run:
        """Train if need be, then evaluate whatever has not been. May be stopped and called again at any moment.

        Raises:
            UserError: another process is at work in the folder, or training failed.
        """
        with RunFolder(self.out).locked():
            write(self.out / "grid.yaml", OmegaConf.to_yaml(OmegaConf.create(self.grid.model_dump(mode="json"))))
            if not self.trained:
                train(self.recipe, self.folder.path)
                self.weights = self._finished()
            run = load(self.folder.path)
            for number, plan in enumerate(self.maps, start=1):
                place = f"{number:>3}/{len(self.maps)}"
                if self.grid.nll is not None:
                    self._once(plan, "nll", lambda plan=plan, place=place: self._nll(run, plan, place))
                if self.grid.fid is not None:
                    self._once(plan, "fid", lambda plan=plan, place=place: self._fid(run, plan, place))
            return run

    @property
    def trained(self) -> bool:
        """Whether the model is finished: one that was interrupted goes on, a finished one is only loaded."""
        return self.weights is not None

    def record(self, plan: str, evaluation: str) -> Record | None:
        """The answer to the grid's question about a plan, if there is one; ``evaluation`` is nll or fid."""
        file = self.cell(plan) / f"{evaluation}.json"
        if not file.is_file():
            return None
        found = TypeAdapter(Record).validate_python(json.loads(file.read_text()))
        return found if found.question == self._question(plan, evaluation) else None

    def cell(self, plan: str) -> Path:
        """The folder of a plan's records and pictures."""
        return self.out / "cells" / self.recipe.fingerprint() / quote(plan.replace("/", "+"), safe="+:=,()")

    def _finished(self) -> str | None:
        """A hash of the weights that are scored, once the model is trained."""
        newest, _ = checkpoint.latest(self.folder.checkpoints)
        if newest is None or newest.iteration < self.recipe.train.iterations:
            return None
        return json.loads((newest.path / "state.json").read_text())["sha256"]["ema.safetensors"][:16]

    def _question(self, plan: str, evaluation: str) -> dict[str, Any]:
        settings: Section | None = getattr(self.grid, evaluation)
        assert settings is not None
        return {"plan": plan, "weights": self.weights, **settings.model_dump(mode="json")}

    def _once(self, plan: str, evaluation: str, compute: Callable[[], dict[str, Any]]) -> None:
        """Compute and record, unless it has been. What fails is recorded too, and the rest goes on."""
        known = self.record(plan, evaluation)
        if known is not None and (known.error is None or not self.retry_failed):
            return
        started, answer, failure = time.monotonic(), None, None
        try:
            answer = compute()
        except Exception as error:
            failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        record = Record(self._question(plan, evaluation), time.monotonic() - started, answer, failure)
        write(self.cell(plan) / f"{evaluation}.json", json.dumps(asdict(record)))

    def _nll(self, run: Run, plan: str, place: str) -> dict[str, Any]:
        assert self.grid.nll is not None
        with self.bar(f"{place} NLL     {plan}") as progress:
            return cell.score_nll(run, plan, self.grid.nll, progress).to_dict()

    def _fid(self, run: Run, plan: str, place: str) -> dict[str, Any]:
        assert self.grid.fid is not None
        started = time.monotonic()
        with self.bar(f"{place} samples {plan}") as progress:
            images = cell.sample(run, plan, self.grid.fid, self.cell(plan), progress)
        seconds = time.monotonic() - started
        scores = cell.score_images(run, images, self.grid.fid, self.out / "features")
        return {"sampling_seconds": seconds, "scores": scores.to_dict()}
