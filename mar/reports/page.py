"""One self-contained HTML page of an ablation: no network, light and dark, readable on a narrow screen."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import Any

from omegaconf import OmegaConf

from mar.ablation.result import AblationResult, Row
from mar.reports import cards
from mar.reports.column import Column, best_rows
from mar.reports.columns import columns
from mar.reports.notes import notes_of
from mar.reports.seeds import seeds_html
from mar.reports.training import training
from mar.training.run_folder import write

_HERE = Path(__file__).parent


def write_page(result: AblationResult, folder: Path) -> Path:
    """``index.html`` in the ablation's folder, whose pictures it takes in. Returns its path."""
    write(folder / "index.html", page(result, folder))
    return folder / "index.html"


def page(result: AblationResult, folder: Path) -> str:
    """The page; ``folder`` is where the pictures named in ``result`` are."""
    differences = _differences(result)
    return Template((_HERE / "page.html").read_text()).substitute(
        title=escape(result.name if result.axes else f"{result.name}: the order of generation"),
        what="cell" if result.axes else "plan",
        cards="Cells" if result.axes else "Orderings",
        style=(_HERE / "page.css").read_text(),
        script=(_HERE / "page.js").read_text(),
        lead=_lead(result),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in _facts(result).items()),
        table=_table(result),
        notes="".join(f"<li>{escape(note)}</li>" for note in notes_of(result)),
        seeds=seeds_html(result),
        differences=differences,
        differences_link='<a href="#differences">Differences</a>' if differences else "",
        orderings_hint=cards.hint(result),
        orderings=cards.cards(result, folder),
        training=training(result),
        command=escape(result.environment["command"]),
        environment=_environment(result.environment),
        recipe=escape(_yaml(result.models[0].recipe)),
        grid=escape(_yaml(result.grid)),
    )


def _lead(result: AblationResult) -> str:
    if result.axes:
        axes = " × ".join(_count(len({row.settings[axis] for row in result.rows}), axis) for axis in result.axes)
        return (
            f"{escape(axes)}: models of {escape(result.data)}, each trained on its own and measured on the same images "
            "with the same noise."
        )
    orderings = len({row.ordering for row in result.rows})
    partitions = len({row.partition for row in result.rows})
    return (
        f"One model of {escape(result.data)}, trained once, generates and scores images under "
        f"{_count(orderings, 'ordering')} and {_count(partitions, 'partition')} of the tokens: the same weights, the "
        "same images, the same noise."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _facts(result: AblationResult) -> dict[str, str]:
    facts = {"cells" if result.axes else "plans": str(len(result.rows))}
    scored = [row for row in result.rows if row.likelihood is not None]
    if scored and scored[0].likelihood is not None:
        best = min(scored, key=lambda row: row.likelihood.nats_per_image)  # type: ignore[union-attr]
        bits = best.likelihood.bits_per_dim  # type: ignore[union-attr]
        nats = f"{best.likelihood.nats_per_image:.2f} nats/image"  # type: ignore[union-attr]
        facts["lowest NLL"] = f"{nats if bits is None else f'{bits:.4f} bits/dim'} ({best.name})"
    drawn = [row for row in result.rows if row.images is not None]
    if drawn:
        best = min(drawn, key=lambda row: row.images.fid)  # type: ignore[union-attr]
        facts["lowest FID"] = f"{best.images.fid:.2f} ({best.name})"  # type: ignore[union-attr]
    sizes = sorted(model.parameters for model in result.models if model.parameters)
    if sizes:
        facts["parameters"] = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"
    facts["training"] = _time(sum(model.training.seconds for model in result.models if model.training is not None))
    facts["training and evaluation"] = _time(result.seconds)
    return facts


def _time(seconds: float) -> str:
    return f"{seconds:.0f}\N{NO-BREAK SPACE}s" if seconds < 120 else f"{seconds / 60:.1f}\N{NO-BREAK SPACE}min"


def _table(result: AblationResult) -> str:
    shown = columns(result)
    best = [best_rows(column, result.rows) for column in shown]
    heads = "".join(
        f'<th scope="col" data-better="{c.better}"{_kind(c)}><button type="button">{escape(c.head)}</button></th>'
        for c in shown
    )
    rows = (
        "<tr>" + "".join(_cell(c, row, n in b) for c, b in zip(shown, best, strict=True)) + "</tr>"
        for n, row in enumerate(result.rows)
    )
    feet = ("<tr>" + "".join(_cell(c, row, False) for c in shown) + "</tr>" for row in result.baselines)
    return (
        f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f"<tfoot>{''.join(feet)}</tfoot></table>"
    )


def _kind(column: Column) -> str:
    return "" if column.numeric else ' class="words"'


def _cell(column: Column, row: Row, best: bool) -> str:
    value = column.value(row)
    names = [name for name, true in (("words", not column.numeric), ("best", best)) if true]
    if column.title == "problem":
        names.append("problem")
    css = f' class="{" ".join(names)}"' if names else ""
    return f'<td{css} data-value="{"" if value is None else escape(str(value))}">{escape(column.show(row))}</td>'


def _differences(result: AblationResult) -> str:
    """Every plan's difference to the reference with its interval, as a row of a plot; nothing without differences."""
    found = [(row.name, row.difference) for row in result.rows if row.difference is not None]
    if not found:
        return ""
    bits = found[0][1].bits_per_dim is not None
    unit, digits = ("bits/dim", 4) if bits else ("nats/image", 2)
    values = [
        (plan, d.nats_per_image, *d.interval_nats)
        if d.bits_per_dim is None or d.interval_bits_per_dim is None
        else (plan, d.bits_per_dim, *d.interval_bits_per_dim)
        for plan, d in found
    ]
    low, high = min(0.0, *(v[2] for v in values)), max(0.0, *(v[3] for v in values))
    margin = 0.03 * ((high - low) or 1.0)

    def share(x: float) -> float:
        return 100 * (x - low + margin) / (high - low + 2 * margin)

    other = ", other settings alike" if result.axes else ""
    lines = "".join(
        f'<div class="interval"><span class="name">{escape(plan)}</span><div class="track">'
        f'<i class="zero" style="left:{share(0.0):.2f}%"></i>'
        f'<i class="range" style="left:{share(a):.2f}%;width:{share(b) - share(a):.2f}%"></i>'
        f'<i class="dot" style="left:{share(mean):.2f}%"></i></div>'
        f'<span class="number">{mean:+.{digits}f} [{a:+.{digits}f}, {b:+.{digits}f}]</span></div>'
        for plan, mean, a, b in values
    )
    return (
        f'<section id="differences"><h2>NLL against {escape(result.reference)}</h2><p class="hint">Mean paired '
        f"difference, {unit}, with its {100 * found[0][1].confidence:g} % interval over images; left of the line is "
        f'better than {escape(result.reference)}{other}.</p><div class="intervals">{lines}</div></section>'
    )


def _environment(environment: dict[str, Any]) -> str:
    flat = {k: v for k, v in environment.items() if k not in ("packages", "command")} | environment["packages"]
    return "".join(f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in flat.items())


def _yaml(content: dict[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(content))
