"""Plots: which rows are points of a line or a front, and when there is a picture."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mar.experiments.result import AblationResult, TrainedModel
from mar.reports import plots
from mar.reports.curves import crossings, entries, groups, label, moment
from mar.reports.plots import Point, budgets, front, mixtures, panels, pareto, write_pictures
from tests.experiments.made import changed
from tests.reports.conftest import fid, likelihood


@pytest.fixture
def averaged(several: AblationResult) -> AblationResult:
    """Two seeds of a model, their mean and their mixtures of one and two orders, beside one of a fixed order."""
    row = replace(several.rows[0], errors=())
    assert row.likelihood is not None
    figures = [
        ("nade", "0", "mean of 2", 3.0), ("nade", "0", "1", 3.1), ("nade", "0", "2", 2.5), ("nade", "1", "1", 3.3),
        ("nade", "1", "2", 2.7), ("raster", "0", "1", 2.9),
    ]  # fmt: skip
    rows = [
        changed(
            row,
            settings={"network": network, "seed": seed, "orders": orders},
            likelihood=replace(row.likelihood, bits_per_dim=bits),
        )
        for network, seed, orders, bits in figures
    ]
    return replace(several, rows=tuple(rows))


def test_a_line_has_the_mixtures_of_every_seed_and_not_their_mean(averaged: AblationResult) -> None:
    assert mixtures(averaged) == {"": {"nade": {1: [3.1, 3.3], 2: [2.5, 2.7]}, "raster": {1: [2.9]}}}


def test_data_sets_have_panels_of_their_own(averaged: AblationResult) -> None:
    rows = tuple(replace(row, settings={"data": row.settings["seed"], **row.settings}) for row in averaged.rows)
    found = mixtures(replace(averaged, rows=rows))
    assert [list(lines) for lines in found.values()] == [["nade", "raster"], ["nade"]]


def with_rows(result: AblationResult, rows: list[tuple[str, str, int, float]]) -> AblationResult:
    """Rows of seed, partition, steps and nats."""
    made = [
        changed(
            result.rows[0],
            partition=partition,
            errors=(),
            settings={"seed": seed, "partition": partition},
            likelihood=likelihood(partition, nats, steps),
        )
        for seed, partition, steps, nats in rows
    ]
    return replace(result, rows=tuple(made))


@pytest.fixture
def budget(result: AblationResult) -> AblationResult:
    """Two seeds, two schedules, and a third that comes in one size."""
    rows = [
        (seed, partition, steps, nats + int(seed))
        for seed in "01"
        for partition, steps, nats in [
            ("singles", 6, 5.0), ("linear:3", 3, 6.0), ("linear:1", 1, 9.0), ("optimal:3", 3, 5.5),
            ("optimal:2", 2, 6.5), ("cosine:2", 2, 7.0),
        ]
    ]  # fmt: skip
    return with_rows(result, rows)


def test_lines_go_from_few_steps_to_one_token_at_a_time(budget: AblationResult) -> None:
    (lines,) = budgets(budget).values()
    assert {name: sorted(line) for name, line in lines.items()} == {
        "raster, linear": [1, 3, 6],
        "raster, optimal": [2, 3, 6],
    }
    assert all(len(of_seeds) == 2 for line in lines.values() for of_seeds in line.values())


def test_a_line_has_the_rows_own_figures(budget: AblationResult) -> None:
    bits = {row.partition: row.likelihood.bits_per_dim for row in budget.rows[:6] if row.likelihood is not None}
    linear = budgets(budget)[""]["raster, linear"]
    assert [linear[steps][0] for steps in (1, 3, 6)] == [bits["linear:1"], bits["linear:3"], bits["singles"]]


def test_no_row_of_the_front_is_beaten_in_both_and_every_other_row_is() -> None:
    points = [Point(str(n), str(n), *pair) for n, pair in enumerate([(1, 5), (2, 3), (2, 4), (3, 3), (4, 9), (5, 4)])]
    best = front(points)
    assert [(p.speed, p.quality) for p in best] == [(3, 3), (5, 4)]

    def beats(a: Point, b: Point) -> bool:
        return a.speed >= b.speed and a.quality <= b.quality and a != b

    assert not any(beats(other, p) for p in best for other in points)
    assert all(any(beats(other, p) for other in points) for p in points if p not in best)


def test_a_speed_is_the_models_own_where_each_has_one_row_and_otherwise_that_of_the_row(
    result: AblationResult, several: AblationResult
) -> None:
    (points,) = panels(several).values()
    assert [(p.name, p.speed) for p in points] == [("lstm · raster", 50.25), ("lstm · random", 50.25)]
    found = panels(result)  # one model, three plans
    assert list(found) == ["NLL (exact), bits/dim", "FID"]
    assert [(p.name, p.speed, p.quality) for p in found["FID"]] == [
        ("raster", 15.0, 12.5), ("random/linear:2", 15.0, 13.75),
    ]  # fmt: skip


def test_likelihoods_of_two_kinds_data_sets_or_tokenizers_do_not_share_a_panel(several: AblationResult) -> None:
    first, second, *rest = several.rows
    assert second.likelihood is not None
    mixed = replace(several, rows=(first, changed(second, likelihood=replace(second.likelihood, kind="bound")), *rest))
    assert list(panels(mixed)) == ["NLL (exact), bits/dim", "NLL (bound), bits/dim"]
    recipes = [{"data": {"kind": "digits", "validation": 72}}, {"data": {"kind": "mnist", "validation": 72}}]
    models = [replace(m, recipe=r) for m, r in zip(several.models, recipes, strict=False)]
    assert list(panels(replace(several, models=tuple(models), rows=several.rows[:2]))) == [
        "NLL (exact), bits/dim, digits", "NLL (exact), bits/dim, mnist",
    ]  # fmt: skip
    recipes = [{"tokenizer": {"kind": "kl"}}, {"tokenizer": {"kind": "vq"}}]
    models = [replace(m, recipe=r) for m, r in zip(several.models, recipes, strict=False)]
    latents = [
        changed(row, likelihood=replace(row.likelihood, bits_per_dim=None), images=fid(2.0))
        for row in several.rows[:2] if row.likelihood is not None
    ]  # fmt: skip
    assert list(panels(replace(several, models=tuple(models), rows=tuple(latents)))) == [
        "NLL (exact), nats, kl", "NLL (exact), nats, vq", "FID",
    ]  # fmt: skip


def test_seeds_of_a_setting_are_one_entry_of_the_legend(several: AblationResult) -> None:
    (models,) = groups(several).values()
    assert [label(*each) for each in entries(models).items()] == ["raster (overfits)", "random (falling)"]
    seeds = [replace(model, settings={**model.settings, "seed": str(s)}) for model in models for s in range(3)]
    assert [label(*each) for each in entries(seeds).items()] == ["raster (3 overfits)", "random (3 falling)"]
    assert [len(alike) for alike in entries(seeds).values()] == [3, 3]


def test_a_crossing_is_where_the_mean_curve_stays_below_the_references(several: AblationResult) -> None:
    def models(*curves: tuple[float, ...]) -> list[TrainedModel]:
        base = several.models[0]
        assert base.training is not None
        at = tuple(range(10, 60, 10))
        return [
            replace(base, training=replace(base.training, batch_size=2, validation_iteration=at, validation_nats=c))
            for c in curves
        ]

    curves = {
        "raster": models((3.0, 2.0, 2.0, 2.0, 2.0), (3.0, 2.0, 2.0, 2.2, 2.4)),
        "random": models((4.0, 1.9, 2.5, 2.0, 1.9)),  # below, above, below for good from iteration 40 on
        "never": models((4.0, 3.0, 2.5, 2.2, 2.3)),
        "always": models((2.0, 1.0, 1.0, 1.0, 1.0)),
    }
    for name, alike in curves.items():
        curves[name] = [replace(model, settings={"loss": "CE", "model": name}) for model in alike]
    assert crossings(curves, {"model": "raster"}) == {"random": 80}
    assert crossings(curves, {"model": "raster", "k": 4}) == {"random": 80}  # k is no setting of models
    assert crossings(curves, {"model": "elsewhere"}) == crossings({"random": curves["random"]}, None) == {}
    assert moment(80, curves["random"]) == "80 images"  # a result that does not hold the size of an epoch
    known = [replace(m, training=replace(m.training, examples=16)) for m in curves["random"] if m.training]
    assert moment(80, known) == "epoch 5"


def test_a_wide_range_of_speeds_is_logarithmic(result: AblationResult) -> None:
    slow, fast, *rest = result.rows  # of 15 images/s
    for seconds, scale in ((1.0, "linear"), (0.1, "log")):
        figure = pareto(panels(replace(result, rows=(slow, changed(fast, sampling_seconds=seconds), *rest))))
        assert figure is not None and {panel.get_xscale() for panel in figure.axes} == {scale}


def test_the_pareto_optimal_points_are_named_and_markup_names_every_point(result: AblationResult) -> None:
    points = panels(result)["FID"]
    figure = pareto({"FID": points})
    assert figure is not None and [text.get_text() for text in figure.axes[0].texts] == ["raster"]
    drawn = plots.svg(figure, "FID against speed")
    assert '<g class="point" data-rows="1"><title>random/linear:2: 13.75' in drawn and "http" not in drawn
    assert drawn.startswith("<svg ") and 'aria-label="FID against speed"' in drawn and ' id="figure' not in drawn


def test_pictures_are_written_where_there_is_something_to_show(
    result: AblationResult, several: AblationResult, averaged: AblationResult, budget: AblationResult, tmp_path: Path
) -> None:
    bare = replace(several, rows=tuple(replace(row, answers={}) for row in several.rows))
    bare = replace(bare, models=tuple(replace(model, training=None) for model in bare.models))
    few = with_rows(budget, [("0", "singles", 6, 5.0), ("0", "linear:3", 3, 6.0)])
    for made, name, written in (
        (several, "learning-curves.png", True), (result, "pareto.png", True), (averaged, "orders-curve.png", True),
        (budget, "steps-curve.png", True), (several, "orders-curve.png", False), (few, "steps-curve.png", False),
    ):  # fmt: skip
        paths = {path.name: path for path in write_pictures(made, tmp_path / name / str(written))}
        assert (name in paths) is written and all(path.stat().st_size > 1000 for path in paths.values())
    assert write_pictures(bare, tmp_path / "bare") == [] and panels(bare) == {} and pareto({}) is None


def test_a_loss_that_is_no_likelihood_is_not_called_bits(several: AblationResult) -> None:
    for head, said in (("categorical", "validation, bits per token"), ("flow", "validation, loss per token")):
        models = tuple(replace(model, recipe={"head": {"kind": head}}) for model in several.models)
        figure = plots.learning_curves(replace(several, models=models))
        assert figure is not None and figure.get_supylabel() == said
        (line, *_) = figure.axes[0].lines
        assert line.get_ydata()[0] == pytest.approx(1.5 / (math.log(2.0) if head == "categorical" else 1.0))


def test_a_panel_holds_every_model_of_a_value_of_the_first_axis(several: AblationResult) -> None:
    assert {name: len(models) for name, models in groups(several).items()} == {"lstm": 2}


def test_a_heat_map_has_a_pixel_for_each_cell() -> None:
    source = plots.heat_map([[0, 1, 2], [3, 4]], 0, 5)
    image = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGBA")
    assert image.size == (3, 2) and image.getpixel((0, 0)) == (68, 1, 84, 255)  # viridis, from its first colour
    assert image.getpixel((2, 1))[3] == 0  # type: ignore[index]
    full = Image.open(io.BytesIO(base64.b64decode(plots.heat_map([[0, 5]], 0, 5).split(",")[1])))
    assert full.getpixel((1, 0))[:3] == (253, 231, 36)  # type: ignore[index]


def test_a_dumbbell_has_a_line_for_each_order_at_the_reference_and_its_interval(result: AblationResult) -> None:
    raster, random, _ = result.rows
    sets = replace(random, plan="raster/linear:2", ordering="raster")
    figure = plots.differences(replace(result, rows=(raster, sets)))
    assert figure is not None
    (panel,) = figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["raster"]
    base = raster.likelihood.bits_per_dim  # type: ignore[union-attr]
    marks = {str(line.get_gid()).split(": ", 2)[1]: line for line in panel.lines if len(line.get_xdata()) == 1}
    assert marks["raster, singles"].get_xdata()[0] == pytest.approx(base)
    assert marks["raster, linear:2"].get_xdata()[0] == pytest.approx(base + sets.difference.bits_per_dim)  # type: ignore[union-attr]
    assert marks["raster, linear:2"].get_markerfacecolor() == "white"
    bars = [line.get_xdata() for line in panel.lines if str(line.get_gid()).startswith("row 1: ")]
    low, high = sets.difference.interval_bits_per_dim  # type: ignore[union-attr,misc]
    assert [float(x) for x in bars[0]] == pytest.approx([base + low, base + high])
    assert len(plots.svg(figure, "x").split('class="point" data-rows="1"')) == 3  # the bar and the ring
