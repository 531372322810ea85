"""Sweeps: FID of every value of some settings on fewer images, and the best of them for each plan."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from mar.cli.fid_session import Session, changed, label
from mar.cli.generating import Setting
from mar.core.errors import UserError
from mar.core.files import digest, environment, write_atomic

Axes = dict[str, list[Any]]
_FRESH = 10_000  # added to the seed: the images that choose a value are not those that score it


def parse_axis(text: str) -> tuple[str, list[Any]]:
    """``guidance=1:4:0.25`` (from, to, step; both ends) or ``steps=10,25,50`` -> name and values.

    Raises:
        UserError: written otherwise, or it has one value.
    """
    name, equals, written = text.partition("=")
    if not equals or not written:
        raise UserError(f"a sweep is written guidance=1:4:0.25 or steps=10,25,50, not {text!r}")
    values = parse_values(written)
    if len(values) < 2:
        raise UserError(f"a sweep of {name} wants at least two values, not {written!r}")
    return name, values


def axes_of(sweeps: list[str], **written: str) -> tuple[Axes, dict[str, float]]:
    """What is swept over, and the value of each number ``written`` as an option: 1 where that is a range.

    Raises:
        UserError: it is no number of at least 0, and no range of them.
    """
    axes, single = dict(parse_axis(text) for text in sweeps), {}
    for name, text in written.items():
        values = parse_values(text)
        if not values or not all(isinstance(value, int | float) and value >= 0 for value in values):
            raise UserError(f"--{name} is a number or FROM:TO:STEP, not {text!r}")
        single[name] = float(values[0]) if len(values) == 1 else 1.0
        if len(values) > 1:
            axes[name] = values
    return axes, single


def parse_values(written: str) -> list[Any]:
    """``1:2:0.5`` -> [1.0, 1.5, 2.0]; ``10,ddim`` -> [10, "ddim"].

    Raises:
        UserError: a range that leads nowhere.
    """
    if written.count(":") != 2:
        return [_value(part.strip()) for part in written.split(",") if part.strip()]
    try:
        first, last, step = map(float, written.split(":"))
    except ValueError:
        raise UserError(f"a range is written FROM:TO:STEP, e.g. 1:4:0.25, not {written!r}") from None
    if step <= 0 or last < first:
        raise UserError(f"the range {written} has no values: write FROM:TO:STEP with FROM below TO")
    return [round(first + step * k, 10) for k in range(int((last - first) / step + 1e-6) + 1)]


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def sweep(session: Session, settings: list[Setting], axes: Axes, n: int) -> tuple[list[Setting], Path, Table]:
    """The best values of ``axes`` for each setting by FID of ``n`` images; the summary's file, and its table.

    Every point is kept as a score of its own, so that an interrupted sweep goes on.
    """
    tried = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    session.check([changed(setting, **point) for setting in settings for point in tried])
    best, content = [], []
    for setting in settings:
        points = []
        for point in tried:
            record = session.score(replace(changed(setting, **point), seed=setting.seed + _FRESH), n)
            points.append({**point, "fid": record["generated"]["fid"], "noise_floor": record["noise_floor"]["fid"]})
        chosen = min(points, key=lambda point: point["fid"])
        best.append(changed(setting, **{key: chosen[key] for key in axes}))
        content.append({"setting": label(setting), "points": points, "best": {key: chosen[key] for key in axes}})
    identity = digest(json.dumps([content, n]), digits=6)
    path = session.run.folder.path / "scores" / f"fid-sweep-{'-'.join(axes)}-{session.reference}-n{n}-{identity}.json"
    if session.processes.is_main:
        about = {"n_images": n, "reference": session.identity, "seed_added": _FRESH, "environment": environment()}
        write_atomic(path, json.dumps({"axes": axes, "sweeps": content, **about}, indent=1))
        _draw(axes, content, path.with_suffix(".png"), f"{n} images against {session.reference}")
    return best, path, _table(axes, content, n)


def _table(axes: Axes, content: list[dict[str, Any]], n: int) -> Table:
    table = Table("setting", *axes, "FID ↓", "", title=f"Sweep: FID of {n} images a point")
    for one in content:
        for point in one["points"]:
            is_best = all(point[key] == value for key, value in one["best"].items())
            values = [f"{point[key]}" for key in axes]
            table.add_row(one["setting"], *values, f"{point['fid']:.3f}", _said(axes, one["best"]) if is_best else "")
    return table


def _said(axes: Axes, best: dict[str, Any]) -> str:
    """A best value at the end of a range says little about where the best one is."""
    ends = [
        key
        for key, values in axes.items()
        if all(isinstance(value, int | float) for value in values) and best[key] in (min(values), max(values))
    ]
    return f"best, at the end of the {' and '.join(ends)} range" if ends else "best"


def _draw(axes: Axes, content: list[dict[str, Any]], path: Path, title: str) -> None:
    """FID over the first axis; a line for every setting and value of the others."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    x, *others = axes
    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    for one in content:
        for values in itertools.product(*(axes[key] for key in others)):
            fixed = dict(zip(others, values, strict=True))
            line = [point for point in one["points"] if all(point[key] == value for key, value in fixed.items())]
            name = " ".join([one["setting"], *(f"{key}={value}" for key, value in fixed.items())])
            numbers = all(isinstance(value, int | float) for value in axes[x])
            place = [point[x] if numbers else str(point[x]) for point in line]
            axis.plot(place, [point["fid"] for point in line], marker=".", linewidth=1.2, label=name)
    if floor := content[0]["points"][0]["noise_floor"]:
        axis.axhline(floor, color="grey", linewidth=0.8, linestyle=":", label="real images")
    axis.set_xlabel(x)
    axis.set_ylabel("FID")
    axis.set_title(title, fontsize=10)
    axis.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
