"""The results folder of a table, to be kept with the project. ``mar report`` makes its page.

table.md, .csv, .tex, seeds.csv, .tex      how it was made stands at the end of table.md
learning-curves.png, pareto.png, …         the plots
result.json, or result.json.gz if large    everything the tables and the page are made of
pictures/                                  samples and animations of the rows, for the page
provenance.json                            revision, command, versions, hardware, time
README.md                                  hand-written; never overwritten
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mar.core.files import write_atomic
from mar.core.readers import read_json
from mar.experiments.engine import Engine
from mar.experiments.launch import preparation_seconds
from mar.experiments.result import RESULT, AblationResult, Row
from mar.reports.columns import in_asked_unit
from mar.reports.plots import write_pictures
from mar.reports.tables import write_tables

LARGE = 1_000_000  # bytes of a result from which it is compressed


def publish(engine: Engine, folder: Path, large: int = LARGE) -> list[Path]:
    """Write the results folder of the reported grid (``mar.cli.ablate.report``); return its files."""
    result = AblationResult.load(engine.out / RESULT)
    made = provenance(engine, result)
    shown = in_asked_unit(result)
    tables, plots = write_tables(shown, folder), write_pictures(shown, folder)
    write_atomic(folder / "table.md", (folder / "table.md").read_text() + "\n" + how_it_was_made(made))
    write_atomic(folder / "provenance.json", json.dumps(made, indent=1))
    rows = tuple(_with_pictures(row, number, engine.out, folder) for number, row in enumerate(result.rows))
    kept = write_result(replace(result, rows=rows), folder, large)
    return [*tables, *plots, folder / "provenance.json", kept]


def write_result(result: AblationResult, folder: Path, large: int = LARGE) -> Path:
    """Write the result, compressed from ``large`` bytes on; return its path."""
    plain, packed = folder / RESULT, folder / f"{RESULT}.gz"
    result.save(plain)
    packed.unlink(missing_ok=True)
    if plain.stat().st_size <= large:
        return plain
    packed.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()
    return packed


def _with_pictures(row: Row, number: int, source: Path, folder: Path) -> Row:
    """Copy the row's pictures to ``pictures/``, and name the copies."""
    if row.generated is None:
        return row
    copies: dict[str, str] = {}
    for name in ("samples", "animation"):
        picture = getattr(row.generated, name)
        if picture is not None and (source / picture).is_file():
            copies[name] = f"pictures/{number}-{name}{Path(picture).suffix}"
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / picture, folder / copies[name])
    return replace(row, answers={**row.answers, "fid": replace(row.generated, **copies)})


def provenance(engine: Engine, result: AblationResult) -> dict[str, Any]:
    """Return how a result was made that was assembled from the engine's folder, in plain values.

    ``clean``: no tracked file differed from the revision; None: unknown. ``trained``: the cells trained at one revision
    on one machine. ``seconds``: of each part, summed over cells and so over workers.
    """
    revision, trained, keys = result.environment["revision"], {}, ("revision", "device", "cpu", "cells")
    for cell in engine.cells:
        file = engine.folder(cell).path / "environment.json"
        if file.is_file():
            about = read_json(file, "the environment of a run")
            trained.setdefault((about["revision"], about["device"], about.get("cpu", "unknown")), []).append(cell.name)
    curves = {model.fingerprint: model.training for model in result.models}  # cells may share a training
    seconds = {"training": sum(curve.seconds for curve in curves.values() if curve is not None)}
    for cell in {cell.fingerprint: cell for cell in engine.cells if cell.served}.values():
        for question, record in engine.outline(cell).answers(engine.out)[1:]:
            if record is not None:
                title = engine.metrics[question.metric].title
                seconds[title] = seconds.get(title, 0.0) + record.seconds
    seconds["preparation"] = preparation_seconds(engine.grid, engine.out)
    return {
        "grid": result.name,
        "environment": result.environment,
        "clean": None if revision == "unknown" else not revision.endswith("-dirty"),
        "trained": [dict(zip(keys, (*of, cells), strict=True)) for of, cells in trained.items()],
        "seconds": {part: value for part, value in seconds.items() if value},
    }


def how_it_was_made(made: Mapping[str, Any]) -> str:
    """Return the provenance in words (Markdown); cells trained at another revision than the table's are named."""
    about = made["environment"]
    state = {True: "no file changed", False: "with files changed since", None: "not a repository"}[made["clean"]]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    parts = ", ".join(f"{part} {_time(seconds)}" for part, seconds in made["seconds"].items())
    lines = [
        f"- Revision `{about['revision']}` ({state}), {about['time']}.",
        f"- Python {about['python']}, {packages}.",
        f"- {_hardware(about['device'], about['cpu'])}, {about['threads']} thread(s), {about['system']}.",
        f"- Time, summed over cells: {parts}; together {_time(sum(made['seconds'].values()))}.",
    ]
    for each in made["trained"]:
        if each["revision"] != about["revision"]:
            where = f"`{each['revision']}` on {_hardware(each['device'], each['cpu'])}"
            lines.append(f"- Trained at revision {where}: {'; '.join(each['cells'])}.")
    return "\n".join(["## How it was made", "", f"    {about['command']}", "", *lines, ""])


def _hardware(device: str, cpu: str) -> str:
    """``device`` is a GPU's name, or "cpu" with the number of cores."""
    return f"{cpu}, {device.removeprefix('cpu, ')}" if device.startswith("cpu") else f"{device} with {cpu}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
