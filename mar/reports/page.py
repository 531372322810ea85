"""One self-contained HTML page of an ablation: no network, light and dark, readable on a narrow screen."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import Any

from omegaconf import OmegaConf

from mar.core.files import write_atomic
from mar.experiments.result import AblationResult
from mar.metrics.statistics import kind_of
from mar.reports import cards
from mar.reports.differences import differences
from mar.reports.html_table import filters, html_table
from mar.reports.notes import notes_of
from mar.reports.pareto import pareto
from mar.reports.seeds import seeds_html
from mar.reports.training import training

_HERE = Path(__file__).parent


def write_page(result: AblationResult, folder: Path) -> Path:
    """``index.html`` in the ablation's folder, whose pictures it takes in. Returns its path."""
    write_atomic(folder / "index.html", page(result, folder))
    return folder / "index.html"


def page(result: AblationResult, folder: Path) -> str:
    """The page; ``folder`` is where the pictures named in ``result`` are."""
    intervals, front = differences(result), pareto(result)
    return Template((_HERE / "page.html").read_text()).substitute(
        title=escape(result.name if result.axes else f"{result.name}: the order of generation"),
        what="cell" if result.axes else "plan",
        cards="Cells" if result.axes else "Orderings",
        style=(_HERE / "page.css").read_text(),
        script=(_HERE / "page.js").read_text(),
        lead=_lead(result),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{_breakable(v)}</dd></div>" for k, v in _facts(result).items()),
        filters=filters(result),
        table=html_table(result),
        notes="".join(f"<li>{escape(note)}</li>" for note in notes_of(result)),
        seeds=seeds_html(result),
        differences=intervals,
        differences_link='<a href="#differences">Differences</a>' if intervals else "",
        pareto=front,
        pareto_link='<a href="#pareto">Speed</a>' if front else "",
        orderings_hint=cards.hint(result),
        orderings=cards.cards(result, folder),
        training=training(result),
        command=escape(result.environment["command"]),
        environment=_environment(result.environment),
        recipe_title="Recipe of the first cell" if result.axes else "Recipe",
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


def _breakable(text: str) -> str:
    """Escaped, with a place to break a line after the parts of a plan."""
    return escape(text).replace("/", "/<wbr>")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _facts(result: AblationResult) -> dict[str, str]:
    facts = {"cells" if result.axes else "plans": str(len(result.rows))}
    scored = [(row.likelihood, row.name) for row in result.rows if row.likelihood is not None]
    drawn = [(row.images.fid, row.name) for row in result.rows if row.images is not None]
    one_data = "," not in result.data_fingerprint
    if one_data and len({kind_of(likelihood) for likelihood, _ in scored}) == 1:
        best, name = min(scored, key=lambda pair: pair[0].nats_per_image)
        nats = f"{best.nats_per_image:.2f} nats"
        facts["lowest NLL"] = f"{nats if best.bits_per_dim is None else f'{best.bits_per_dim:.4f} bits/dim'} ({name})"
    if one_data and drawn:
        facts["lowest FID"] = "{:.2f} ({})".format(*min(drawn))
    sizes = sorted(model.parameters for model in result.models if model.parameters)
    if sizes:
        facts["parameters"] = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"
    facts["training"] = _time(sum(model.training.seconds for model in result.models if model.training is not None))
    facts["training and evaluation"] = _time(result.seconds)
    return facts


def _time(seconds: float) -> str:
    return f"{seconds:.0f}\N{NO-BREAK SPACE}s" if seconds < 120 else f"{seconds / 60:.1f}\N{NO-BREAK SPACE}min"


def _environment(environment: dict[str, Any]) -> str:
    flat = {k: v for k, v in environment.items() if k not in ("packages", "command")} | environment["packages"]
    return "".join(f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in flat.items())


def _yaml(content: dict[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(content))
