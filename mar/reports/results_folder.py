"""The results folder of a table, to be kept with the project: table, figures, page, result, and how it was made.

table.md, .csv, .tex, seeds.csv, .tex, learning-curves.png
result.json, or result.json.gz where it is large     everything that the tables are made of
index.html                                           where it is not too large to be kept
provenance.json                                      also in words, at the end of table.md
README.md                                            somebody's own words; never touched
"""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from mar.core.files import write_atomic
from mar.experiments.engine import Engine, Provenance, TrainedAt, provenance
from mar.experiments.result import AblationResult
from mar.reports.table import write_tables
from mar.reports.unit import in_asked_unit

LARGE_RESULT, LARGE_PAGE = 1_000_000, 3_000_000  # bytes
PAGE, RESULT = "index.html", "result.json"


def keep_results(engine: Engine, folder: Path) -> list[str]:
    """Copy what was reported in the engine's folder (``mar.cli.main.running.report``), with its provenance.

    Returns:
        What to say: files that were written, and any that is too large.
    """
    result = AblationResult.load(engine.out / RESULT)
    made = provenance(engine, result)
    folder.mkdir(parents=True, exist_ok=True)
    tables = write_tables(in_asked_unit(result), folder)
    write_atomic(folder / "table.md", (folder / "table.md").read_text() + "\n" + how_it_was_made(made))
    write_atomic(folder / "provenance.json", json.dumps(asdict(made), indent=1))
    pictures = sorted(engine.out.glob("*.png"))
    for picture in pictures:
        shutil.copyfile(picture, folder / picture.name)
    names = [*(path.name for path in (*tables, *pictures)), "provenance.json", _keep_result(engine.out, folder)]
    said = []
    if (size := (engine.out / PAGE).stat().st_size) <= LARGE_PAGE:
        shutil.copyfile(engine.out / PAGE, folder / PAGE)
        names.append(PAGE)
    else:
        (folder / PAGE).unlink(missing_ok=True)
        said.append(f"the page is too large to keep ({size / 1e6:.1f} MB): it stays in {engine.out / PAGE}")
    return [f"kept in {folder}: {', '.join(names)}", *said]


def _keep_result(out: Path, folder: Path) -> str:
    """The result, compressed where it is large; its name."""
    content, packed = (out / RESULT).read_bytes(), folder / f"{RESULT}.gz"
    kept, other = (folder / RESULT, packed) if len(content) <= LARGE_RESULT else (packed, folder / RESULT)
    kept.write_bytes(content if kept != packed else gzip.compress(content, mtime=0))
    other.unlink(missing_ok=True)
    return kept.name


def how_it_was_made(made: Provenance) -> str:
    """The provenance in words (Markdown)."""
    about = made.environment
    state = {True: "no file changed", False: "with files changed since", None: "not a repository"}[made.clean]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    parts = ", ".join(f"{part} {_time(seconds)}" for part, seconds in made.seconds.items())
    lines = [
        f"- Revision `{about['revision']}` ({state}), {about['time']}.",
        f"- Python {about['python']}, {packages}.",
        f"- {_hardware(about['device'], about['cpu'])}, {about['threads']} thread(s), {about['system']}.",
        f"- Time, summed over cells: {parts}; together {_time(sum(made.seconds.values()))}.",
        *(_elsewhere(each) for each in made.elsewhere),
    ]
    return "\n".join(["## How it was made", "", f"    {about['command']}", "", *lines, ""])


def _elsewhere(each: TrainedAt) -> str:
    cells = "; ".join(each.cells)
    return f"- TrainedAt at revision `{each.revision}` on {_hardware(each.device, each.cpu)}: {cells}."


def _hardware(device: str, cpu: str) -> str:
    """``device`` is a GPU's name, or says that there is none and how many cores."""
    return f"{cpu}, {device.removeprefix('cpu, ')}" if device.startswith("cpu") else f"{device} with {cpu}"


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
