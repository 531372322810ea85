"""FID of one run's samples: settings are generated into stores, scored once, swept over and compared over seeds."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mar.core.errors import UserError
from mar.core.files import cache_folder, digest, environment, settings_digest, write_atomic
from mar.core.processes import Processes
from mar.core.table import Column, Table
from mar.data.base import Data
from mar.metrics.base import file_name, save
from mar.metrics.fid import FidScorer
from mar.metrics.images import FeatureSettings, Images, Source, open_source, split_source
from mar.metrics.samples import Setting, check_decodes, fill, question
from mar.metrics.statistics import relative_change, spread
from mar.run import Run

Score = dict[str, Any]  # a record of RUN/scores: the setting beside ``FidResult.to_dict()``
Axes = dict[str, list[Any]]
_Point = tuple[dict[str, Any], dict[str, Any]]  # a sweep of one setting, and one of its points
_SWEEP_SEED = 10_000  # added to the seed: other images choose a value than score it


@dataclass(frozen=True)
class FidRequest:
    """What ``mar fid RUN`` asks for.

    Attributes:
        settings: scored side by side.
        n: images of each.
        against: as ``open_source`` reads it; "": the run's own data.
        split: of a data set.
        axes: swept over for each setting on ``sweep_images``; the best values replace its own.
        seeds: of generation, from each setting's own on; several give an interval.
        compared: changes of the settings, as ``parse_compared`` reads them; each becomes a setting.
        margin: of the relative change of FID to the first setting.
        store: where the images of one setting are generated; None: RUN/generated.
        features: of the scorer.
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
    features: FeatureSettings = field(default_factory=FeatureSettings)
    weights: str = "ema"
    batch_size: int = 256
    shard: int = 0
    again: bool = False


@dataclass(frozen=True)
class FidScores:
    """Attributes: printed tables and lines; the summary of a sweep, where there was one."""

    tables: list[Table]
    lines: list[str]
    sweep: Path | None = None


def score_run(run: Run, processes: Processes, asked: FidRequest) -> FidScores:
    """Generate and score; every process calls."""
    check_decodes(run)
    scorer = RunScorer(run, processes, asked)
    settings = [parse_compared(text, one) for one in asked.settings for text in asked.compared] or list(asked.settings)
    if asked.store is not None and (len(settings) > 1 or asked.axes or asked.seeds > 1):
        raise UserError("--store takes the images of one plan, setting and seed: several keep theirs in RUN/generated")
    scorer.check(settings)
    tables, written, swept = [], [], None
    if asked.axes:
        settings, swept, table = sweep(scorer, settings, asked.axes, asked.sweep_images)
        tables.append(table)
        written.append(swept.name)
    if asked.seeds > 1:
        path, table = compare_seeds(scorer, settings, asked.seeds, asked.n, asked.margin)
        written.append(path.name)
    else:
        title = f"{asked.n} samples against {run.about.name} {scorer.reference.name}, {asked.weights} weights"
        table = scores_table([(to_text(one), scorer.score(one, asked.n, asked.store)) for one in settings], title)
    lines = [f"wrote {', '.join(written) or 'JSON'} to {run.folder.path / 'scores'}"]
    return FidScores([*tables, table], lines, swept)


class RunScorer:
    """Scores settings of ``run``; with several processes all of them call, and the first one scores."""

    def __init__(self, run: Run, processes: Processes, asked: FidRequest) -> None:
        self.run, self.processes, self.asked = run, processes, asked
        self.reference, self._own = _reference(run, asked)
        features = asked.features
        shown = f"{features.kind} {features.inception_weights or ''} {features.labelled}".strip()
        self.identity = f"{self.reference.identity} {shown}"  # names exactly the reference and the features

    @cached_property
    def scorer(self) -> FidScorer:
        spec = self._own.spec if self._own is not None else self.run.spec
        features = replace(self.asked.features, device=self.run.device)
        return FidScorer.of_source(
            self.reference, self._own, spec, features, self.run.folder.path / "scores" / "features"
        )

    def check(self, settings: Sequence[Setting]) -> None:
        """Raise UserError or Unsupported for a setting that the run does not serve, before time is spent on any."""
        for setting in settings:
            question(self.run, setting)

    def score(self, setting: Setting, n: int, store: Path | None = None) -> Score:
        """Return the record of the first ``n`` images of a setting: read from RUN/scores, or generated and scored.

        Args:
            store: where they are generated; default RUN/generated/PLAN-….

        Raises:
            UserError, Unsupported: a setting or reference that this run does not serve.
        """
        asked, split = question(self.run, setting), self.reference.name
        content = {**asdict(setting), "plan": asked["plan"], "n_images": n, "split": split}
        content |= {"weights": self.asked.weights, "question": settings_digest(asked, 12), "reference": self.identity}
        del content["classes"]
        path = self.run.folder.path / "scores" / f"fid-{file_name(content['plan'], content)}.json"
        if (found := self.processes.broadcast(self._recorded(path, content))) is not None:
            return found
        name = file_name(content["plan"], content | {"n_images": ""}).replace(f"-{split}-n", "", 1)
        folder = store or self.run.folder.path / "generated" / f"{name}-{content['question'][:6]}"
        filled = fill(
            folder, self.run, setting, n, self.processes, self.asked.batch_size, self.asked.shard, to_text(setting)
        )

        def scored() -> Score:
            result = self.scorer.score(Images("generated", filled.images(n), filled.spec))
            save(self.run, "fid", content["plan"], {**content, "store": str(folder), **result.to_dict()})
            return json.loads(path.read_text())

        return self.processes.on_main(scored)

    def _recorded(self, path: Path, content: Score) -> Score | None:
        if self.asked.again or not path.is_file():
            return None
        found = json.loads(path.read_text())
        same = all(found.get(key) == content[key] for key in ("question", "reference", "n_images"))
        return found if same else None

    def write(self, name: str, content: dict[str, Any]) -> Path:
        """Write RUN/scores/NAME.json on the main process."""
        path = self.run.folder.path / "scores" / f"{name}.json"
        if self.processes.is_main:
            about = {"reference": self.identity, "environment": environment()}
            write_atomic(path, json.dumps({**content, **about}, indent=1))
        return path


def _reference(run: Run, asked: FidRequest) -> tuple[Source, Data | None]:
    """Return the reference, and the run's own images where their files are there."""
    if not asked.against:
        return split_source(run.images, asked.split), run.images
    try:
        own = run.images
    except UserError:
        if run.spec.modality != "image":  # the shape of decoded latents is unknown
            raise
        own = None
    return open_source(asked.against, asked.split, own.spec if own else run.spec), own


def score_source(
    source: str, n: int | None, against: str, split: str, features: FeatureSettings, out: Path | None
) -> FidScores:
    """Score existing images: a store, a folder of images, or a data set."""
    real = open_source(against, split)
    found = open_source(source, split, real.images.spec if real.images else None, n)
    if found.images is None:
        raise UserError(f"{source} are statistics: name the images to score first, and the reference with --against")
    if real.images is not None and not Path(against).suffix and Path(against).is_dir():  # a folder, read at their size
        real = open_source(against, split, found.images.spec)
    scorer = FidScorer.of_source(real, None, found.images.spec, features, cache_folder())
    result = scorer.score(replace(found.images, identity=""))  # scored once: do not keep the features
    record = {"images": source, "against": real.identity, **result.to_dict()}
    lines = []
    if out is not None:
        write_atomic(out, json.dumps({**record, "environment": environment()}, indent=1))
        lines.append(f"wrote {out}")
    title = f"{len(found.images.split)} images of {source} against {real.name}"
    return FidScores([scores_table([(found.name, record)], title)], lines)


def sweep(scorer: RunScorer, settings: Sequence[Setting], axes: Axes, n: int) -> tuple[list[Setting], Path, Table]:
    """Score every combination of ``axes`` on ``n`` images; return the settings with their best values, the file of the
    summary and its table. Every point is a record of its own, so that an interrupted sweep resumes."""
    tried = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    scorer.check([changed(setting, **point) for setting in settings for point in tried])
    best, content = [], []
    for setting in settings:
        points = []
        for point in tried:
            record = scorer.score(replace(changed(setting, **point), seed=setting.seed + _SWEEP_SEED), n)
            points.append({**point, "fid": record["generated"]["fid"], "noise_floor": record["noise_floor"]["fid"]})
        lead = min(points, key=lambda point: point["fid"])
        chosen = {key: lead[key] for key in axes}
        best.append(changed(setting, **chosen))
        content.append({"setting": to_text(setting), "points": points, "best": chosen})
    identity = digest(json.dumps([content, n]), digits=6)
    name = f"fid-sweep-{'-'.join(axes)}-{scorer.reference.name}-n{n}-{identity}"
    path = scorer.write(name, {"axes": axes, "sweeps": content, "n_images": n, "seed_added": _SWEEP_SEED})
    rows = [(one, point) for one in content for point in one["points"]]

    def mark(row: _Point) -> str:
        one, point = row
        if any(point[key] != value for key, value in one["best"].items()):
            return ""
        numeric = {key: values for key, values in axes.items() if all(isinstance(v, int | float) for v in values)}
        ends = [key for key, values in numeric.items() if point[key] in (min(values), max(values))]
        return f"best, at the end of the {' and '.join(ends)} range" if ends else "best"

    columns: list[Column[_Point]] = [Column("setting", lambda row: row[0]["setting"], words=True)]
    for key in axes:
        columns.append(Column(key, lambda row, key=key: row[1][key], text=lambda row, key=key: str(row[1][key])))
    columns.append(Column("FID", lambda row: row[1]["fid"], "lower"))
    columns.append(Column("", mark, words=True))
    return best, path, Table(columns, rows, title=f"Sweep: FID of {n} images a point")


def compare_seeds(
    scorer: RunScorer, settings: Sequence[Setting], seeds: int, n: int, margin: float
) -> tuple[Path, Table]:
    """Score ``n`` images of each setting for each of the seeds from its own on; return the file and the table.

    The change to the first setting is paired: seed r of one against seed r of the other. ``within``: the 95 % interval
    of the relative change lies below ``margin``.
    """
    rows: list[dict[str, Any]] = []
    for setting in settings:
        fids = [scorer.score(replace(setting, seed=setting.seed + r), n)["generated"]["fid"] for r in range(seeds)]
        change = relative_change(fids, rows[0]["fid"]["values"]) if rows else None
        row = {
            "setting": to_text(setting),
            **asdict(setting),
            "question": settings_digest(question(scorer.run, setting), 12),
        }
        row |= {"fid": asdict(spread(fids)), "relative_change": asdict(change) if change else None}
        row["within"] = None if change is None or change.interval is None else change.interval[1] < margin
        rows.append(row)
    name = digest(json.dumps([[row["question"] for row in rows], seeds]), digits=6)
    content = {"n_images": n, "seeds": seeds, "margin": margin, "rows": rows}
    path = scorer.write(f"fid-seeds{seeds}-{scorer.reference.name}-n{n}-{name}", content)

    def of_fid(row: dict[str, Any]) -> str:
        found = row["fid"]
        return f"{found['mean']:.3f} ± {found['sd']:.3f}" + _interval(found["interval"], " [{:.3f}, {:.3f}]")

    def of_change(row: dict[str, Any]) -> str:
        found = row["relative_change"]
        return f"{found['mean']:+.1%}" + _interval(found["interval"], " [{:+.1%}, {:+.1%}]")

    columns: list[Column[dict[str, Any]]] = [
        Column("setting", lambda row: row["setting"], words=True),
        Column("FID", lambda row: row["fid"]["mean"], "lower", text=of_fid, unit="mean ± sd [95 %]"),
        Column(
            "change", lambda row: row["relative_change"] and row["relative_change"]["mean"], text=of_change,
            unit="to the first [95 %]",
        ),
        Column(f"below {margin:+.0%}", lambda row: {True: "yes", False: "no", None: None}[row["within"]]),
    ]  # fmt: skip
    return path, Table(columns, rows, title=f"FID of {n} images against {scorer.reference.name}, {seeds} seeds")


def _interval(interval: Sequence[float] | None, form: str) -> str:
    return "" if interval is None else form.format(*interval)


def changed(setting: Setting, **values: Any) -> Setting:
    """Return the setting with other values; a value that is not a field of it is an option of the head."""
    own = {key: value for key, value in values.items() if key in Setting.__dataclass_fields__}
    head = {key: value for key, value in values.items() if key not in own}
    for key in ("guidance", "temperature"):
        if key in own:
            own[key] = float(own[key])
    return replace(setting, **own, head={**setting.head, **head})


def to_text(setting: Setting) -> str:
    """Return a setting in a few words: its plan and every value that is not the default."""
    default = Setting(setting.plan)
    keys = ("guidance", "guidance_schedule", "temperature", "seed", "adaptive", "remask", "precision")
    told = [f"{key}={getattr(setting, key)}" for key in keys if getattr(setting, key) != getattr(default, key)]
    return " ".join([setting.plan, *told, *(f"{key}={value}" for key, value in setting.head.items())])


def scores_table(rows: Sequence[tuple[str, Score]], title: str) -> Table[tuple[str, Score]]:
    """Return the table of records by name."""

    def of(key: str) -> Callable[[tuple[str, Score]], float | None]:
        return lambda row: row[1]["generated"][key]

    def with_spread(key: str, digits: int) -> Callable[[tuple[str, Score]], str]:
        return lambda row: " ± ".join(f"{row[1]['generated'][f'{key}_{part}']:.{digits}f}" for part in ("mean", "std"))

    def balance(row: tuple[str, Score], part: str = "generated") -> float | None:
        return row[1][part]["balance"] and row[1][part]["balance"]["chi2"]

    def chi2(row: tuple[str, Score]) -> str:
        floor = balance(row, "noise_floor")
        return f"{balance(row):.0f}" + (f" ({floor:.0f})" if floor else "")

    def as_asked(row: tuple[str, Score]) -> float | None:
        return row[1]["generated"]["balance"] and row[1]["generated"]["balance"]["agreement"]

    columns: list[Column[tuple[str, Score]]] = [
        Column("setting", lambda row: row[0], words=True),
        Column("FID", of("fid"), "lower"),
        Column("floor", lambda row: row[1]["noise_floor"]["fid"]),
        Column("KID", of("kid_mean"), "lower", text=with_spread("kid", 4)),
        Column("IS", of("inception_score_mean"), "higher", text=with_spread("inception_score", 2)),
        Column("precision", of("precision"), "higher"),
        Column("recall", of("recall"), "higher"),
        Column("classes χ² (floor)", balance, text=chi2),
        Column("as asked", as_asked, "higher"),
    ]
    return Table(columns, rows, footer(rows[-1][1]), title)


def footer(record: Score) -> list[str]:
    """Return what to know before quoting the scores."""
    real = f"{record['n_real']} real images" if record["n_real"] else "statistics of real images"
    line = f"features: {record['extractor']}; {real} ({record['split']})"
    if record["generated"]["kid_mean"] is not None:
        line += f"; KID subsets of {record['kid_subset_size']}"
    if record["noise_floor"]["n_images"]:
        line += f"; the noise floor is real {record['noise_floor_split']} images scored alike (docs/evaluation.md)"
    return [line, *(f"note: {note}" for note in record["notes"])]


def parse_compared(text: str, setting: Setting) -> Setting:
    """Read ``solver=unipc:steps=10``: the setting with these values (plan, guidance, temperature, or head options).

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


def parse_axis(text: str) -> tuple[str, list[Any]]:
    """Read ``guidance=1:4:0.25`` (from, to, step; both ends) or ``steps=10,25,50`` as name and values.

    Raises:
        UserError: written otherwise, or it has one value.
    """
    name, equals, written = text.partition("=")
    if not equals or not written:
        raise UserError(f"a sweep is written guidance=1:4:0.25 or steps=10,25,50, not {text!r}")
    values = parse_values(written)
    if len(values) < 2:
        raise UserError(f"a sweep of {name} takes at least two values, not {written!r}")
    return name, values


def axes_of(sweeps: Sequence[str], **written: str) -> tuple[Axes, dict[str, float]]:
    """Return the swept axes, and the value of each number ``written`` as an option (1 where that is a range).

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
    """Read ``1:2:0.5`` as [1.0, 1.5, 2.0] and ``10,ddim`` as [10, "ddim"].

    Raises:
        UserError: a range without values.
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
