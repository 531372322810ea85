"""The answer above a table: best of means, ties by paired tests, and alarms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mar.experiments.result import AblationResult, Row, Training
from mar.experiments.statistics import left_out
from mar.reports.tables import grid_table, seeds_table
from mar.reports.verdict import alarms, answers, prices
from tests.experiments.made import generated, made, row, scored
from tests.reports.conftest import likelihood

NATS = {"raster": (80.0, 81.0, 82.0), "spiral": (80.1, 80.8, 81.9), "random": (90.0, 91.1, 92.0)}  # of three trainings


def grid() -> AblationResult:
    rows = [
        row(
            {"ordering": name, "seed": str(seed)},
            likelihood=scored([nats - 1, nats + 1]),
            images=generated(10 + k + (9 if (k, seed) == (2, 0) else 0) - 9 * ((k, seed) == (1, 0))),
        )
        for k, name in enumerate(NATS)
        for seed, nats in enumerate(NATS[name])
    ]
    return made(rows)


def test_the_best_is_the_best_mean_and_not_the_luckiest_seed() -> None:
    nll, fid = answers(grid())
    assert nll.startswith("Lowest NLL: spiral, 1.8244 ± 0.0205 bits/dim over 3 seeds; not told apart from raster (")
    assert fid.startswith("Lowest FID: spiral, 8.00 ±")  # the mean of 2, 11 and 11


def test_of_one_training_images_are_paired_and_a_fid_has_no_test() -> None:
    nats = {"raster": (1.0, 5.0, 3.0, 6.0), "spiral": (1.1, 4.9, 3.2, 5.9), "random": (5.0, 9.1, 7.0, 10.0)}
    rows = [row({"ordering": k}, likelihood=scored(v), images=generated(9 + len(k))) for k, v in nats.items()]
    nll, fid = answers(made(rows))
    assert "not told apart from spiral (paired over images" in nll
    assert fid == "Lowest FID: raster, 15.00; one training each, so no test."


def test_a_fid_that_is_not_above_that_of_real_images_ranks_no_rows() -> None:
    lowest = {"a": (0.75, 0.5), "b": (1.5, 1.25), "c": (0.5, 1.5)}  # the floor is 1
    rows = [
        row({"ordering": name, "seed": str(seed)}, images=generated(fid))
        for name, fids in lowest.items() for seed, fid in enumerate(fids)
    ]  # fmt: skip
    assert answers(made(rows)) == [
        "No ranking by FID: 2 of 3 compared rows are not above the noise floor, the FID of 30 real train images (1.00)."
    ]
    for table in (grid_table(made(rows)), seeds_table(made(rows))):
        assert table.column("FID").best(table.rows) == set()
    above = made([each for each in rows if each.settings["ordering"] == "b"])
    assert answers(above) == ["Lowest FID: b, 1.38 ± 0.18 over 2 seeds."]
    assert seeds_table(above).column("FID").show(seeds_table(above).rows[0]) == "1.38 ± 0.18"


def test_a_question_for_an_epoch_is_answered_by_the_crossings(ablation: AblationResult) -> None:
    curve = {"raster": (1.0, 1.0, 1.0, 1.5), "spiral": (2.0, 0.9, 0.9, 0.9), "random": (2.0, 2.0, 2.0, 1.2)}
    models = tuple(
        replace(each, training=Training(40, 6, 40, 1.0, (), (), (10, 20, 30, 40), curve[each.settings["ordering"]], 24))
        for each in ablation.models
    )
    asked = {"reference": {"ordering": "raster"}, "question": "From which epoch is it better?"}
    found = replace(ablation, models=models, grid={**ablation.grid, **asked})
    assert answers(found)[0] == (
        "Validation loss below that of raster: spiral from epoch 5; random from epoch 10; each to the end, epoch 10."
    )
    asked["question"] = "Which is better?"
    assert not answers(replace(found, grid={**ablation.grid, **asked}))[0].startswith("Validation")


def test_what_is_left_out_says_why() -> None:
    short, worse = "its validation loss is still falling", "worse than independent tokens"
    reasons = {"raster": ("", worse), "random": ("", ""), "spiral": (short, short)}
    rows = [
        row({"ordering": name, "seed": str(seed)}, likelihood=scored([80.0, 81.0]), unsound=reason)
        for name, each in reasons.items() for seed, reason in enumerate(each)
    ]  # fmt: skip
    found = made(rows, reference={"ordering": "raster"})
    told = [f"1 of 2 seeds {worse}", f"its reference: 1 of 2 seeds {worse}", "still falling"]
    assert list(left_out(found)) == told
    table = seeds_table(found)
    assert [table.column("not compared").show(each) for each in table.rows] == told
    assert answers(made(rows[4:])) == ["No ranking: no row is compared (still falling)."]


def test_each_kind_of_likelihood_has_a_best() -> None:
    nats = {"exact": (3.0, 5.0), "bound": (4.0, 2.0)}
    rows = [row({"k": f"{kind} {n}"}, likelihood=scored([n, n], kind)) for kind, each in nats.items() for n in each]
    assert [text.partition(",")[0] for text in answers(made(rows))] == [
        "Lowest NLL (exact): exact 3.0", "Lowest NLL (bound): bound 2.0",
    ]  # fmt: skip


def test_numbers_are_named_by_their_axis() -> None:
    rows = [row({"repeats": n}, images=generated(float(n))) for n in ("2", "4")]
    assert answers(made(rows)) == ["Lowest FID: repeats 2, 2.00; one training each, so no test."]


def test_data_sets_have_an_answer_each_if_they_can_be_named() -> None:
    assert answers(replace(grid(), data_fingerprint="a, b")) == []
    rows = [row({"data": k, "repeats": n}, images=generated(float(n))) for k in ("dna", "nips") for n in ("2", "4")]
    found = made(rows, data={each.model: each.settings["data"] for each in rows})
    assert answers(replace(found, data_fingerprint="a, b")) == [
        "dna: lowest FID: dna · repeats 2, 2.00; one training each, so no test.",
        "nips: lowest FID: nips · repeats 2, 2.00; one training each, so no test.",
    ]


def test_the_price_of_sets_is_against_one_token_at_a_time(result: AblationResult) -> None:
    kinds = {("a", "singles"): 7.0, ("a", "linear:2"): 7.5, ("b", "singles"): 8.0, ("b", "linear:2"): 8.25}
    rows = tuple(
        replace(result.rows[0], plan=f"{o}/{p}", ordering=o, partition=p, answers={"nll": likelihood(o, nats, 6)})
        for (o, p), nats in kinds.items()
    )
    per_dim = 6 * math.log(2.0)
    found = prices(replace(result, rows=rows))
    assert found == pytest.approx({"a/linear:2": 0.5 / per_dim, "b/linear:2": 0.25 / per_dim})
    assert answers(replace(result, rows=rows))[1] == (
        "Price of sets: +0.0601 bits/dim (b/linear:2) to +0.1202 (a/linear:2) above one token at a time."
    )


def test_rows_worse_than_independent_tokens_short_trainings_and_warnings_raise_an_alarm(
    result: AblationResult, several: AblationResult
) -> None:
    assert alarms(result) == ["Beware."]
    worse = Row("independent tokens", "independent tokens", "all at once", answers={"nll": likelihood("", 7.2, 1)})
    found = alarms(replace(result, baselines=(worse,)))
    assert found[0].startswith("Worse than independent tokens (1.731): raster.")
    assert "Still improving when training ended: 1 of 2 models." in alarms(several)[0]
