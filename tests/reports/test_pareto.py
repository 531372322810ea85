"""The front of quality against speed: who is on it, what is compared, and how it is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mar.experiments.result import AblationResult
from mar.reports.labels import labels
from mar.reports.pareto import Point, front, panels, pareto, write_pareto
from tests.experiments.made import changed
from tests.reports.conftest import fid


def test_no_row_of_the_front_is_beaten_in_both_and_every_other_row_is() -> None:
    points = [Point(n, str(n), *pair) for n, pair in enumerate([(1, 5), (2, 3), (2, 4), (3, 3), (4, 9), (5, 4)])]
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
    assert [(p.name, p.speed) for p in points] == [("lstm, raster", 50.25), ("lstm, random", 50.25)]
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


def test_a_wide_range_of_speeds_is_logarithmic(result: AblationResult) -> None:
    slow, fast, *rest = result.rows  # of 15 images/s: ticks at tens, or at one, two and five times powers of ten
    assert ">20<" in pareto(replace(result, rows=(slow, changed(fast, sampling_seconds=1.0), *rest)))
    assert ">200<" in pareto(replace(result, rows=(slow, changed(fast, sampling_seconds=0.1), *rest)))


def test_every_point_is_named_and_the_picture_is_written(result: AblationResult, folder: Path) -> None:
    text = pareto(result)
    assert text.count("<circle") == 4 and "random/linear:2: 13.75 at 15 images/s" in text
    path = write_pareto(result, folder)
    assert path is not None and path.stat().st_size > 1000


def test_without_speeds_there_is_no_front(result: AblationResult, folder: Path) -> None:
    bare = replace(result, rows=tuple(changed(row, sampling_seconds=None) for row in result.rows))
    assert pareto(bare) == "" and write_pareto(bare, folder) is None and not (folder / "pareto.png").exists()


def test_names_cover_neither_points_nor_one_another() -> None:
    area = (0.0, 0.0, 100.0, 100.0)
    assert all(labels([(20, 20), (20, 60)], ["a name"] * 2, [], area))
    crowded = labels([(20, 20)] * 9, ["a name"] * 9, [8], area)
    assert crowded[8] is not None and crowded[0] != crowded[8] and None in crowded  # the first to choose, and no room
    (corner,) = labels([(97, 90)], ["a name"], [], area)
    assert corner is not None and corner.anchor == "end"
