"""``mar score RUN --fid`` and ``mar fid``: what is asked for, carried out and printed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from mar.cli.fid_seeds import compare, parse_compared
from mar.cli.fid_session import Session, footer, label, scores_row, scores_table
from mar.cli.fid_sources import Looks, Source, cache_folder, from_data, make_judge, open_source
from mar.cli.fid_sweep import Axes, sweep
from mar.cli.generating import Setting, check_decodes
from mar.core.errors import UserError
from mar.core.files import environment, write_atomic
from mar.core.processes import Processes
from mar.core.progress import wide_console
from mar.data.base import Data
from mar.metrics.fid import Judge
from mar.run import Run


@dataclass(frozen=True)
class FidRequest:
    """What ``mar fid RUN`` is asked for.

    Attributes:
        settings: to score, each beside the others.
        n: images of each.
        against: as ``open_source`` reads it; "": the run's own data.
        split: of a data set.
        axes: swept over for each setting on ``sweep_images``; the best values take their place.
        seeds: of generation, from each setting's own on; several give an interval.
        compared: changes of the settings, as ``parse_compared`` reads them, each of which becomes a setting.
        margin: of the relative change of FID to the first setting.
        store: where the images of one setting are generated; None: RUN/generated.
    """

    settings: tuple[Setting, ...]
    n: int = 1000
    against: str = ""
    split: str = "test"
    axes: Axes = field(default_factory=dict)
    sweep_images: int = 1000
    seeds: int = 1
    compared: tuple[str, ...] = ()
    margin: float = 0.05
    store: Path | None = None
    looks: Looks = field(default_factory=Looks)
    weights: str = "ema"
    batch_size: int = 256
    shard: int = 0
    again: bool = False


def score_run(run: Run, processes: Processes, asked: FidRequest) -> None:
    """Generate, score and print; with several processes, all of them call."""
    check_decodes(run)
    session = _session(run, processes, asked)
    settings = [parse_compared(text, one) for one in asked.settings for text in asked.compared] or list(asked.settings)
    if asked.store is not None and (len(settings) > 1 or asked.axes or asked.seeds > 1):
        raise UserError("--store takes the images of one plan, setting and seed: several keep theirs in RUN/generated")
    session.check(settings)
    written, tables = [], []
    if asked.axes:
        settings, path, swept = sweep(session, settings, asked.axes, asked.sweep_images)
        written.append(path)
        tables.append(swept)
    lines: list[str] = []
    if asked.seeds > 1:
        _, path, table = compare(session, settings, asked.seeds, asked.n, asked.margin)
        written.append(path)
    else:
        table = scores_table(f"{asked.n} samples against {run.about.name} {session.reference}, {asked.weights} weights")
        for setting in settings:
            record = session.score(setting, asked.n, asked.store)
            table.add_row(*scores_row(label(setting), record))
            lines = footer(record)
    if processes.is_main:
        scores = run.folder.path / "scores"
        _print([*tables, table], [*lines, f"wrote {', '.join(path.name for path in written) or 'JSON'} to {scores}"])


def _session(run: Run, processes: Processes, asked: FidRequest) -> Session:
    reference, own = _reference(run, asked)
    spec = own.spec if own is not None else run.spec
    looks = replace(asked.looks, device=run.device)
    cache = run.folder.path / "scores" / "features"
    features = f"{looks.features} {looks.inception_weights or ''} {looks.labelled}".strip()

    def judge() -> Judge:
        return make_judge(reference, own, spec, looks, cache)

    return Session(
        run, processes, reference.name, f"{reference.identity} {features}", judge, asked.weights, asked.batch_size,
        asked.shard, asked.again,
    )  # fmt: skip


def _reference(run: Run, asked: FidRequest) -> tuple[Source, Data | None]:
    """What to compare with, and the run's own images where they are there."""
    if not asked.against:
        return from_data(run.images, asked.split), run.images
    try:
        own = run.images
    except UserError:
        if run.spec.modality != "image":  # what latents decode to is not known
            raise
        own = None
    return open_source(asked.against, asked.split, own.spec if own else run.spec), own


def score_source(source: str, n: int | None, against: str, split: str, looks: Looks, out: Path | None) -> None:
    """FID and the rest of images that are there: a store, a folder of images, or a data set."""
    real = open_source(against, split)
    judged = open_source(source, split, real.images.spec if real.images else None, n)
    if judged.images is None:
        raise UserError(f"{source} are statistics: the images to score come first, what to compare with is --against")
    if real.images is not None and not Path(against).suffix and Path(against).is_dir():  # a folder, read at their size
        real = open_source(against, split, judged.images.spec)
    judge = make_judge(real, None, judged.images.spec, looks, cache_folder())
    result = judge.score(replace(judged.images, identity=""))  # scored once: no features to keep
    record = {"images": source, "against": real.identity, **result.to_dict()}
    table = scores_table(f"{len(judged.images.split)} images of {source} against {real.name}")
    table.add_row(*scores_row(judged.name, record))
    lines = footer(record)
    if out is not None:
        write_atomic(out, json.dumps({**record, "environment": environment()}, indent=1))
        lines.append(f"wrote {out}")
    _print([table], lines)


def _print(tables: list, lines: list[str]) -> None:
    console = wide_console()
    console.print(*tables, sep="\n")
    for line in lines:
        console.print(line)
