"""Published figures: they stand where the grid says, and only their order is compared with ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from mar.core.errors import UserError
from mar.experiments.grid import GridFile, Published, published_of, read
from mar.experiments.result import AblationResult
from mar.experiments.statistics import Agreement, agreement, published_figure
from mar.metrics.speed import Speed
from tests.experiments.made import generated, made, row, scored

ORDERS = ("raster", "spiral", "hilbert", "random")


def column(values: dict[str, float], **keys: Any) -> Published:
    rows = [{"where": {"ordering": name}, "value": value} for name, value in values.items()]
    return Published.model_validate({"title": "t", "of": "fid", "source": "a paper", "rows": rows} | keys)


def fids(*values: float) -> AblationResult:
    return made([row({"ordering": name}, images=generated(v)) for name, v in zip(ORDERS, values, strict=False)])


@pytest.mark.parametrize(("theirs", "tau"), [((10, 20, 30, 40), 1.0), ((40, 30, 20, 10), -1.0)])
def test_the_same_order_is_one_and_the_reverse_minus_one(theirs: tuple[float, ...], tau: float) -> None:
    found = agreement(fids(1.0, 1.5, 2.0, 9.0), column(dict(zip(ORDERS, theirs, strict=True))))
    assert found == Agreement(4, tau, pytest.approx(2 / 24), exact=True)  # one of 4! orders, in either direction


def test_plus_one_is_the_same_order_of_quality_whichever_way_is_better() -> None:
    result = fids(1.0, 2.0, 3.0)
    assert agreement(result, column({"raster": 300, "spiral": 200, "hilbert": 100}, better="higher")).tau == 1.0
    scores = made([row({"ordering": n}, images=generated(1.0, s)) for n, s in zip(ORDERS, (9, 8, 7), strict=False)])
    assert agreement(scores, column({"raster": 99, "spiral": 88, "hilbert": 77}, of="inception_score")).tau == 1.0


def test_ties_are_counted_as_kendall_did() -> None:
    """τ-b = (C - D) / sqrt(pairs not tied in one times pairs not tied in the other): of 6 pairs 4 agree, 1 differs."""
    found = agreement(fids(1.0, 2.0, 3.0, 4.0), column({"raster": 1, "spiral": 1, "hilbert": 3, "random": 2}))
    assert found.tau == pytest.approx((4 - 1) / (6 * 5) ** 0.5)
    assert not found.exact and found.p_value is not None and 0.2 < found.p_value < 0.5


def test_too_few_rows_or_equal_figures_have_no_order() -> None:
    assert agreement(fids(1.0, 2.0, 3.0), column({"raster": 1, "spiral": 2})) == Agreement(2)
    assert agreement(fids(1.0, 2.0, 3.0), column(dict.fromkeys(ORDERS[:3], 5.0))) == Agreement(3)
    assert agreement(fids(1.0, 2.0, 3.0), column(dict.fromkeys(ORDERS, 5.0), of="probe")) == Agreement(0)


def test_rows_that_differ_in_their_seed_share_a_figure_and_count_once() -> None:
    values = {"raster": (1.0, 5.0), "spiral": (2.0, 2.0), "hilbert": (4.0, 4.5)}  # means 3, 2, 4.25
    rows = [
        row({"ordering": name, "seed": str(seed)}, likelihood=scored([v, v]))
        for name, both in values.items()
        for seed, v in enumerate(both)
    ]
    result, theirs = made(rows), column({"raster": 1, "spiral": 2, "hilbert": 3}, of="nll")
    assert [published_figure(theirs, r) for r in rows] == [1, 1, 2, 2, 3, 3]
    assert agreement(result, theirs).n == 3
    assert agreement(result, theirs).tau == pytest.approx(float(stats.kendalltau([3, 2, 4.25], [1, 2, 3]).statistic))


def test_speeds_are_those_of_the_model() -> None:
    from dataclasses import replace

    result = fids(1.0, 2.0, 3.0)
    speeds = [Speed(64, "cpu", 2, "wall", 1000.5, images, 3e6, 8e6) for images in (10.0, 20.0, 30.0)]
    models = tuple(replace(m, answers={"speed": speed}) for m, speed in zip(result.models, speeds, strict=True))
    theirs = column({"raster": 0.1, "spiral": 0.2, "hilbert": 0.3}, of="images_per_second")
    assert agreement(replace(result, models=models), theirs).tau == 1.0


def test_a_row_matches_by_its_axes_its_plan_and_its_variant() -> None:
    where = [{"ordering": ["raster", "spiral"], "variant": "fast"}, {"ordering": "random", "plan": "raster"}]
    theirs = column({}, rows=[{"where": w, "value": k} for k, w in enumerate(where)])
    settings = [{"ordering": "spiral", "variant": "fast"}, {"ordering": "spiral", "variant": "slow"}]
    assert [published_figure(theirs, row(s)) for s in [*settings, {"ordering": "random"}]] == [0, None, 1]


GRID = """
recipe: digits
axes: {network: [made, lstm], ordering: [raster, random], seed: [0, 1]}
orderings: [raster, "spiral:inward"]
variants: [{name: cold, temperature: 0.9}, {name: hot}]
nll: {orders: 4}
fid: null
"""
PUBLISHED = "published: [{title: t, of: nll, source: s, rows: [{where: {%s}, value: 1}, {where: {%s}, value: 2}]}]"


def grid_of(folder: Path, one: str, other: str = "network: made", *overrides: str, text: str = PUBLISHED) -> GridFile:
    (folder / "g.yaml").write_text(GRID + (text % (one, other) if "%" in text else text))
    return read(str(folder / "g.yaml"), overrides)


def test_a_grid_file_holds_them_with_plans_in_canonical_text(tmp_path: Path) -> None:
    grid = grid_of(
        tmp_path, "network: lstm, variant: hot, orders: 4, plan: spiral/singles", "network: made", "only.network=made"
    )
    (found,) = published_of(grid.model_dump(mode="json"))
    assert found.rows[0].where == {"network": "lstm", "variant": "hot", "orders": 4, "plan": ("spiral",)}
    assert (found.direction, found.recalled) == ("lower", False)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ("netwrok: lstm", "published 't': unknown axis 'netwrok': did you mean 'network'"),
        ("network: lstn", "did you mean 'lstm'"),
        ("network: lstm, variant: cool", "did you mean 'cold'"),
        ("network: lstm, orders: 5", "unknown value of the axis orders '5'"),
        ("network: lstm, seed: 0", "unknown axis 'seed'"),
        ("network: lstm, plan: hilbert", "unknown value of the axis plan 'hilbert'"),
        ("network: lstm, plan: spirl", "spiral"),
        ("ordering: raster", "may be one row"),
        ("network: [lstm, made]", "may be one row"),
    ],
)
def test_names_that_the_grid_lacks_and_two_figures_for_a_row_are_refused(
    tmp_path: Path, one: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        grid_of(tmp_path, one)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "published: [{title: t, titel: t, of: nll, source: s, rows: [{where: {network: made}, value: 1}]}]",
            "did you mean",
        ),
        ("published: [{title: t, of: fidd, source: s, rows: [{where: {network: made}, value: 1}]}]", "published.0.of"),
        ("published: [{title: t, of: fid, source: s, rows: [{where: {network: made}, value: .nan}]}]", "finite"),
        ("published: [{title: t, of: fid, source: s, rows: [{where: {}, value: 1}]}]", "where"),
    ],
)
def test_a_wrong_column_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        grid_of(tmp_path, "", text=text)
