"""Over seeds: the mean, the spread, and a test that speaks of recipes."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from mar.config import Recipe
from mar.experiments.engine import Engine, assemble
from mar.experiments.grid import read
from mar.experiments.result import AblationResult
from mar.experiments.statistics import over_seeds
from mar.reports.page import page
from mar.reports.tables import markdown, seeds_table
from mar.run import train

GRID = """
recipe: digits
overrides: [train.iterations=3, train.batch_size=8, train.sample_every=0, network=independent, train.mask_ratio=plan]
axes: {train.learning_rate: [0.001, 0.1], seed: [0, 1, 2]}
reference: {train.learning_rate: 0.001}
nll: {images: 12}
fid: null
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> AblationResult:
    folder = tmp_path_factory.mktemp("seeds")
    (folder / "seeds.yaml").write_text(GRID)
    engine = Engine(read(str(folder / "seeds.yaml")), folder)
    engine.work()
    return assemble(engine)


def test_rows_that_differ_in_their_seed_are_one_row_with_mean_and_deviation(result: AblationResult) -> None:
    slow, fast = over_seeds(result)
    assert slow.settings == {"train.learning_rate": "0.001"} and slow.plan == "random"
    values = [row.likelihood.bits_per_dim for row in result.rows[:3] if row.likelihood is not None]
    nll = slow.figures["nll"]
    assert len(nll.values) == 3
    assert nll.mean == pytest.approx(math.fsum(values) / 3)
    assert nll.sd == pytest.approx(float(stats.tstd(values)))
    assert "difference" not in slow.figures and slow.p_holm is None and "fid" not in fast.figures


def test_the_test_over_seeds_pairs_rows_of_one_seed(result: AblationResult) -> None:
    base, other = ([row.likelihood.bits_per_dim for row in rows] for rows in (result.rows[:3], result.rows[3:]))  # type: ignore[union-attr]
    _, fast = over_seeds(result)
    assert fast.p_holm == pytest.approx(float(stats.ttest_rel(other, base).pvalue))
    difference = fast.figures["difference"]
    assert difference.mean == pytest.approx(math.fsum(other) / 3 - math.fsum(base) / 3)


def test_every_form_of_the_report_has_the_table_over_seeds(result: AblationResult, tmp_path: Path) -> None:
    table, shown = seeds_table(result), page(result, tmp_path)
    heads = [column.head for column in table.columns]
    assert heads[0] == "train.learning_rate" and "FID ↓" not in heads and "## Over seeds" in markdown(result)
    (nll,) = (column for column in table.columns if column.title == "NLL")
    means = [nll.show(row) for row in over_seeds(result)]
    text = " ".join(re.sub("<[^>]*>", " ", shown).split())
    assert len(means) == 2 and all(" ± " in mean and mean in text for mean in means)


def test_a_tiny_p_value_is_shown_as_less_than_a_thousandth(result: AblationResult) -> None:
    (column,) = (column for column in seeds_table(result).columns if column.title == "p (Holm)")
    _, fast = over_seeds(result)
    assert column.show(replace(fast, p_holm=2e-5)) == "< 0.001"
    assert column.show(replace(fast, p_holm=0.0414)) == "0.041"


def test_a_seed_is_added_without_training_again(tmp_path: Path) -> None:
    text = GRID.replace("[0.001, 0.1], seed: [0, 1, 2]", "[0.001], seed: [0, 1]").replace("{images: 12}", "{images: 4}")
    (tmp_path / "seeds.yaml").write_text(text)
    trained: list[int] = []

    def counted(recipe: Recipe, folder: Path) -> None:
        trained.append(recipe.seed)
        train(recipe, folder)

    for overrides in ([], ["seed=[0,1,2]"]):
        engine = Engine(read(str(tmp_path / "seeds.yaml"), overrides), tmp_path, trainer=counted)
        engine.work()
    assert trained == [0, 1, 2] and over_seeds(assemble(engine))[0].figures["nll"].mean > 0.0


def test_without_seeds_there_is_none(result: AblationResult) -> None:
    assert over_seeds(AblationResult(**{**vars(result), "rows": result.rows[:1]})) == ()
