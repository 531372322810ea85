"""Several settings over several generation seeds: mean FID with its interval, and paired differences to the first."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

from rich.table import Table

from mar.cli.fid_session import Session, changed, label
from mar.cli.fid_sweep import parse_values
from mar.cli.generating import Setting, question
from mar.core.errors import UserError
from mar.core.files import digest, environment, settings_digest, write_atomic
from mar.metrics.spread import Spread, relative_change, spread


def parse_compared(text: str, setting: Setting) -> Setting:
    """``solver=unipc:steps=10`` -> the setting with these values (plan, guidance, temperature, or head options).

    Raises:
        UserError: written otherwise.
    """
    parts = re.split(r":(?=[a-z_]+=)", text)
    if not all("=" in part for part in parts):
        raise UserError(f"a setting to compare is written solver=unipc:steps=10, not {text!r}")
    values = {}
    for part in parts:
        key, _, written = part.partition("=")
        values[key] = written if key == "plan" else parse_values(written)[0]
    return changed(setting, **values)


def compare(
    session: Session, settings: list[Setting], seeds: int, n: int, margin: float
) -> tuple[list[dict], Path, Table]:
    """FID of ``n`` images for each setting and each of the seeds from its own on.

    The difference to the first setting is paired: seed r of one against seed r of the other. ``within`` says whether
    the 95 % interval of the relative change lies below ``margin``.
    """
    rows = []
    for setting in settings:
        fids = [session.score(replace(setting, seed=setting.seed + r), n)["generated"]["fid"] for r in range(seeds)]
        found = spread(fids)
        change = relative_change(fids, rows[0]["fid"]["values"]) if rows else None
        row = {
            "setting": label(setting),
            **asdict(setting),
            "question": settings_digest(question(session.run, setting), 12),
        }
        row |= {"fid": asdict(found), "relative_change": asdict(change) if change else None}
        row["within"] = None if change is None or change.interval is None else change.interval[1] < margin
        rows.append(row)
    name = digest(json.dumps([[row["question"] for row in rows], seeds]), digits=6)
    path = session.run.folder.path / "scores" / f"fid-seeds{seeds}-{session.reference}-n{n}-{name}.json"
    if session.processes.is_main:
        about = {"n_images": n, "seeds": seeds, "margin": margin, "reference": session.identity}
        write_atomic(path, json.dumps({**about, "rows": rows, "environment": environment()}, indent=1))
    return rows, path, _table(rows, session, seeds, n, margin)


def _table(rows: list[dict], session: Session, seeds: int, n: int, margin: float) -> Table:
    table = Table(title=f"FID of {n} images against {session.reference}, {seeds} seeds")
    for column in ("setting", "FID ↓ mean ± sd", "95 % interval", "change", "95 % interval", f"below {margin:+.0%}"):
        first = column == "setting"  # long ones are wrapped, figures never cut
        table.add_column(column, justify="left" if first else "right", no_wrap=not first)
    for row in rows:
        found, change = Spread(**row["fid"]), row["relative_change"]
        said = f"{found.mean:.3f}" + (f" ± {found.sd:.3f}" if found.sd is not None else "")
        cells = [row["setting"], said, _interval(found.interval, "{:.3f}")]
        if change is None:
            cells += ["reference", "", ""]
        else:
            verdict = {True: "yes", False: "no", None: "–"}[row["within"]]
            cells += [f"{change['mean']:+.1%}", _interval(change["interval"], "{:+.1%}"), verdict]
        table.add_row(*cells)
    return table


def _interval(interval, form: str) -> str:
    return "–" if interval is None else f"[{form.format(interval[0])}, {form.format(interval[1])}]"
