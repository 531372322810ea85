"""Plans in the best sets for costs that the grid measures itself, once for each model and ordering."""

from __future__ import annotations

from pathlib import Path

import pytest

import mar.metrics.sets as sets
from mar.core.errors import UserError
from mar.experiments.engine import Engine, assemble
from mar.experiments.grid import read
from mar.metrics.base import Question
from mar.model.plans import costs_file
from mar.reports.publish import provenance
from orderings import PlanSpec
from orderings.optimal import best_sets, read_set_costs

GRID = """
recipe: digits
overrides: [train.iterations=2, train.batch_size=8, train.sample_every=0, network.kind=nade, "network.widths=[8]"]
orderings: [random]
partitions: ["linear:4", "optimal:4", "optimal:2"]
nll: {images: 8}
fid: null
sets: {images: 8}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A finished one."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "grid.yaml").write_text(GRID)
    engine = Engine(read(str(folder / "grid.yaml")), folder / "out")
    engine.work()
    return engine


def test_costs_are_asked_once_for_an_ordering_and_before_the_first_plan_that_needs_them(engine: Engine) -> None:
    asked = list(engine.outlines[0].questions)
    assert asked.count(Question("sets", "random")) == 1
    assert asked.index(Question("sets", "random")) < asked.index(Question("nll", "random/optimal:4"))


def test_a_row_has_the_sizes_that_are_best_for_the_costs_measured_on_validation(engine: Engine) -> None:
    costs = read_set_costs(costs_file(engine.folder(engine.cells[0]).path, "random"))
    assert (costs.n_images, costs.provenance["split"]) == (8, "validation")
    for row, k in zip(assemble(engine).rows[1:], (4, 2), strict=True):
        assert row.errors == () and row.map is not None and row.likelihood is not None
        sizes = [row.map.step_L.count(step) for step in range(k)]
        assert sizes == list(best_sets(costs.matrix(), k).sizes(k))
        assert list(row.likelihood.tokens_per_step) == sizes


def test_before_they_are_measured_a_plan_is_shown_in_equal_sets(engine: Engine) -> None:
    step_L = engine.cells[0].plans[PlanSpec.parse("random/optimal:4")].step_L  # type: ignore[union-attr]
    assert [step_L.count(step) for step in range(4)] == [16, 16, 16, 16]


def test_another_question_about_the_sets_asks_for_those_plans_alone_again(engine: Engine) -> None:
    other = Engine(engine.grid.model_copy(update={"sets": sets.Sets.Options(images=16)}), engine.out)
    unanswered = [asked for asked, record in other.outlines[0].answers(other.out) if record is None]
    assert unanswered == [
        Question("sets", "random"),
        Question("nll", "random/optimal:4"),
        Question("nll", "random/optimal:2"),
    ]


def test_the_time_that_costs_took_is_part_of_the_provenance(engine: Engine) -> None:
    assert provenance(engine, assemble(engine))["seconds"]["set costs"] > 0


def test_costs_that_fail_are_an_error_of_the_rows_that_need_them(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args, **kwargs):
        raise UserError("no costs")

    monkeypatch.setattr(sets, "measure_set_costs", fails)
    failing = Engine(engine.grid, tmp_path)
    failing.work()
    linear, best, _ = assemble(failing).rows
    assert linear.errors == () and linear.likelihood is not None
    assert best.errors[0] == "set costs: UserError: no costs" and best.errors[1].startswith("NLL: ")
