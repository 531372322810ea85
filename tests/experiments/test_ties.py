"""Ties: what a test cannot tell from the best is said to be tied, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mar.experiments.result import AblationResult
from mar.experiments.ties import Ties, fid_ties, fid_ties_over_seeds, nll_ties, nll_ties_over_seeds
from mar.metrics.statistics import holm
from tests.experiments.made import generated, made, row, scored

RANDOM = np.random.RandomState(0)
BASE_N = RANDOM.normal(100.0, 30.0, 200)
NOISE_N = RANDOM.normal(0.0, 1.0, 200)
NOISE_N -= NOISE_N.mean() - 0.02  # a hundredth of what a test of these would see


def standing(ties: Ties, result: AblationResult) -> dict[str, str]:
    return {r.model: ties.standing(r) or "" for r in result.rows}


def orders(**nats: np.ndarray) -> AblationResult:
    return made([row({"ordering": name}, likelihood=scored(values.tolist())) for name, values in nats.items()])


def test_equal_rows_plus_noise_are_tied_and_a_clear_gap_is_not() -> None:
    result = orders(clear=BASE_N + NOISE_N + 1.0, best=BASE_N, near=BASE_N + NOISE_N)
    assert standing(nll_ties(result), result) == {"clear": "", "best": "best", "near": "tied"}


def test_p_values_are_those_of_paired_tests_against_the_best_after_holm() -> None:
    rows = {"a": BASE_N, "b": BASE_N + NOISE_N + 0.12, "c": BASE_N + 2 * NOISE_N + 0.1}
    result = orders(**rows)
    ties = nll_ties(result)
    expected = holm([float(stats.ttest_rel(rows[name], rows["a"]).pvalue) for name in "bc"])
    assert [ties.p_of(r) for r in result.rows[1:]] == pytest.approx(expected)
    assert ties.p_of(result.rows[0]) is None


def test_rows_with_the_same_figure_are_both_best() -> None:
    result = orders(a=BASE_N, b=BASE_N)
    assert standing(nll_ties(result), result) == {"a": "best", "b": "best"}


def test_only_rows_scored_alike_are_compared() -> None:
    """Each data set, kind and number of images has a best of its own; what is alone in its class has none."""
    nats = {"a": 0.0, "b": 50.0, "c": -20.0, "d": 51.0, "e": 1.0}
    rows = [row({"model": name}, likelihood=scored((BASE_N + gap).tolist())) for name, gap in nats.items()]
    rows.append(row({"model": "bound"}, likelihood=scored((BASE_N - 60.0).tolist(), "bound")))
    rows.append(row({"model": "few"}, likelihood=scored((BASE_N[:9] - 60.0).tolist())))
    result = made(rows, data={"b": "other", "d": "other", "c": "a third"})
    found = standing(nll_ties(result), result)
    assert found == {"a": "best", "b": "best", "c": "", "d": "", "e": "", "bound": "", "few": ""}


def test_a_mixture_without_a_figure_for_each_image_can_be_best_but_is_not_tied() -> None:
    from dataclasses import replace

    mixture = replace(scored((BASE_N - 1.0).tolist()), nats_of_image=())
    rows = [row({"orders": "8"}, likelihood=mixture), row({"orders": "1"}, likelihood=scored(BASE_N.tolist()))]
    assert standing(nll_ties(made(rows)), made(rows)) == {"8": "best", "1": ""}


def test_one_fid_has_a_best_and_no_ties() -> None:
    result = made([row({"ordering": str(k)}, images=generated(5.0 + 1e-6 * k)) for k in range(3)])
    assert standing(fid_ties(result), result) == {"0": "best", "1": "", "2": ""}
    other = made([row({"n": str(n)}, images=generated(5.0, n_images=n)) for n in (10, 20)])
    assert standing(fid_ties(other), other) == {"10": "", "20": ""}


def seeded(**figures: tuple[float, ...]) -> AblationResult:
    """Each ordering with a training a seed: its NLL in nats, and an FID of the same value."""
    rows = [
        row({"ordering": name, "seed": str(seed)}, likelihood=scored([nats - 1, nats + 1]), images=generated(nats))
        for name, values in figures.items()
        for seed, nats in enumerate(values)
    ]
    return made(rows)


@pytest.mark.parametrize("ties_of", [nll_ties_over_seeds, fid_ties_over_seeds])
def test_over_seeds_the_trainings_are_paired(ties_of) -> None:
    """Seeds differ by far more than the orders; what the test sees is the difference in each seed."""
    result = seeded(best=(10.0, 20.0, 30.0), near=(10.5, 19.6, 30.2), clear=(15.0, 25.1, 34.9))
    ties = ties_of(result)
    best, near, clear = ({"ordering": name} for name in ("best", "near", "clear"))
    assert ties.is_best(row(best)) and ties.is_tied(row(near))
    assert not ties.is_tied(row(clear)) and not ties.is_best(row(clear))
    unit = 64 * np.log(2.0) if ties_of is nll_ties_over_seeds else 1.0
    single = stats.ttest_1samp(np.array([5.0, 5.1, 4.9]) / unit, 0.0).pvalue
    assert ties.p_of(row(clear)) == pytest.approx(2 * single)  # the smaller of two


def test_with_seeds_single_trainings_are_not_tested_over_images() -> None:
    result = seeded(a=(10.0, 20.0), b=(10.01, 20.01))
    assert nll_ties(result).p_holm == {} and len(nll_ties(result).best) == 1


def test_a_row_that_lacks_a_seed_is_not_compared() -> None:
    whole = seeded(a=(10.0, 20.0, 30.0), b=(10.1, 19.9, 30.2))
    ties = nll_ties_over_seeds(made(whole.rows[:-1]))
    assert ties.best == frozenset() and ties.p_holm == {}
