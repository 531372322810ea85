"""FID of one run's samples: settings are generated into stores, scored once, swept over and compared over seeds."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mar.core.errors import UserError
from mar.core.files import cache_folder, digest, environment, settings_digest, write_atomic
from mar.core.overrides import value_of
from mar.core.processes import Processes
from mar.core.records import find
from mar.core.table import Column, Table
from mar.data.base import Data
from mar.metrics.base import file_name, save
from mar.metrics.fid import FidScorer, scorer_of
from mar.metrics.images import FeatureSettings, Images, Reference, images_in, images_of, open_source
from mar.metrics.protocols import PROTOCOLS
from mar.metrics.samples import Setting, check_decodes, fill, question
from mar.metrics.statistics import Spread, relative_change, spread
from mar.run import Run

Score = dict[str, Any]  # a record of RUN/scores: the setting beside ``FidResult.to_dict()``
Axes = dict[str, list[Any]]
_SHOWN_CLASSES = 20  # FID by class: all are in the record
_SWEEP_SEED = 10_000  # added to the seed: other images choose a value than score it


@dataclass(frozen=True)
class FidRequest:
    """What ``mar fid RUN`` asks for."""

    settings: tuple[Setting, ...]  # scored side by side
    n: int = 1000  # images of each
    against: str = ""  # as ``open_source`` reads it; "": the run's own data
    split: str = "test"  # of a data set
    axes: Axes = field(default_factory=dict)  # swept over on ``sweep_images``; the best values replace a setting's own
    sweep_images: int = 1000
    seeds: int = 1  # of generation, from each setting's own on; several give an interval
    compared: tuple[str, ...] = ()  # changes of the settings, as ``parse_compared`` reads them; each becomes a setting
    margin: float = 0.05  # of the relative change of FID to the first setting
    store: Path | None = None  # where the images of one setting are generated; None: RUN/generated
    features: FeatureSettings = field(default_factory=FeatureSettings)
    weights: str = "ema"
    batch_size: int = 256
    shard: int = 0
    again: bool = False
    protocol: str = ""  # of ``mar.metrics.protocols``, checked and named beside the number


class FidScores(NamedTuple):
    """Printed tables and lines; the summary of a sweep, where there was one."""

    tables: list[Table]
    lines: list[str]
    sweep: Path | None = None


@dataclass(frozen=True)
class Row:
    """A scored setting: a record for each seed, and the change of FID to the first row, paired over seeds."""

    name: str
    records: Sequence[Score]
    change: Spread | None = None
    within: bool | None = None  # the interval of the change lies below the margin
    mark: str = ""

    @cached_property
    def fid(self) -> Spread:
        return spread([record["generated"]["fid"] for record in self.records])

    def mean(self, *keys: str, of: str = "generated") -> float | None:
        """Return the mean over seeds of a figure; None where it is not defined."""
        found: list[Any] = [record[of] for record in self.records]
        for key in keys:
            found = [value and value.get(key) for value in found]
        return None if None in found else sum(found) / len(found)


def score_run(run: Run, processes: Processes, asked: FidRequest) -> FidScores:
    """Generate and score; every process calls."""
    check_decodes(run)
    scorer = RunScorer(run, processes, asked)
    settings = [parse_compared(text, one) for one in asked.settings for text in asked.compared] or list(asked.settings)
    if asked.store is not None and (len(settings) > 1 or asked.axes or asked.seeds > 1):
        raise UserError("--store takes the images of one plan, setting and seed: several keep theirs in RUN/generated")
    tables, path = [], None
    if asked.axes:
        settings, path, table = scorer.sweep(settings)
        tables.append(table)
    written, table = scorer.compare(settings)
    names = ", ".join(file.name for file in (path, written) if file) or "JSON"
    return FidScores([*tables, table], [f"wrote {names} to {run.folder.path / 'scores'}"], path)


class RunScorer:
    """Scores settings of ``run``; with several processes all of them call, and the first one scores."""

    def __init__(self, run: Run, processes: Processes, asked: FidRequest) -> None:
        self.run, self.processes, self.asked = run, processes, asked
        self.reference, self._own = _reference(run, asked)
        self.identity = f"{self.reference.identity} {asked.features.identity} {asked.protocol}".strip()
        if asked.protocol:
            PROTOCOLS[asked.protocol].check(self.reference)
        self.folder = run.folder.path / "scores"

    @cached_property
    def scorer(self) -> FidScorer:
        features = replace(self.asked.features, device=self.run.device)
        return scorer_of(self.reference, (self._own or self.run).spec, features, self.folder / "features", self._own)

    def score(self, setting: Setting, n: int) -> Score:
        """Return the record of the first ``n`` images of a setting: read from RUN/scores, or generated and scored.

        Raises UserError, Unsupported: a setting or reference that this run does not serve.
        """
        asked, split = question(self.run, setting), self.reference.name
        content = {**setting.told(), "plan": asked["plan"], "n_images": n, "split": split}
        content |= {"weights": self.asked.weights, "question": settings_digest(asked, 12), "reference": self.identity}
        classes = "+".join(map(str, content.pop("classes")))
        content |= {"classes": classes} if classes else {}
        content |= {"protocol": self.asked.protocol} if self.asked.protocol else {}
        path = self.folder / f"fid-{file_name(content['plan'], content)}.json"
        same = {key: content[key] for key in ("question", "reference", "n_images")}
        recorded = None if self.asked.again else find([path], same)
        if (known := self.processes.broadcast(recorded and recorded[1])) is not None:
            return known
        name = file_name(content["plan"], content | {"n_images": ""}).replace(f"-{split}-n", "", 1)
        folder = self.asked.store or self.run.folder.path / "generated" / f"{name}-{content['question'][:6]}"
        self.processes.on_main(lambda: self.scorer.name)  # features that cannot be had are said before images are made
        size, shard = self.asked.batch_size, self.asked.shard
        filled = fill(folder, self.run, setting, n, self.processes, size, shard, to_text(setting))

        def scored() -> Score:
            result = self.scorer.score(replace(images_in(filled, n), name="generated", identity=""))
            save(self.run, "fid", content["plan"], {**content, "store": str(folder), **result.to_dict()})
            return json.loads(path.read_text())

        return self.processes.on_main(scored)

    def rows(self, settings: Sequence[Setting], n: int, seeds: int = 1, added: int = 0) -> list[Row]:
        """Score each setting on ``n`` images of each of ``seeds`` seeds, from its own plus ``added`` on.

        The change to the first setting is paired: seed r of one against seed r of the other. Raise UserError or
        Unsupported for a setting that the run does not serve, before time is spent on any.
        """
        for setting in settings:
            question(self.run, setting)
        rows: list[Row] = []
        for setting in settings:
            records = [self.score(replace(setting, seed=setting.seed + added + r), n) for r in range(seeds)]
            row = Row(to_text(setting), records)
            if rows and seeds > 1:
                change = relative_change(row.fid.values, rows[0].fid.values)
                within = change.interval is not None and change.interval[1] < self.asked.margin
                row = replace(row, change=change, within=within)
            rows.append(row)
        return rows

    def sweep(self, settings: Sequence[Setting]) -> tuple[list[Setting], Path, Table[Row]]:
        """Score every combination of the axes; return the settings with their best values, the summary and its table.

        Every point is a record of its own, so that an interrupted sweep resumes.
        """
        axes, n = self.asked.axes, self.asked.sweep_images
        tried = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        rows = self.rows([changed(s, **point) for s in settings for point in tried], n, added=_SWEEP_SEED)
        best, content = [], []
        for k, setting in enumerate(settings):
            found = rows[k * len(tried) : (k + 1) * len(tried)]
            lead = min(range(len(tried)), key=lambda k, found=found: found[k].fid.mean)
            rows[k * len(tried) + lead] = replace(found[lead], mark=_mark(tried[lead], axes))
            points = [
                {**point, "fid": row.fid.mean, "noise_floor": row.mean("fid", of="noise_floor")}
                for point, row in zip(tried, found, strict=True)
            ]
            content.append({"setting": to_text(setting), "points": points, "best": tried[lead]})
            best.append(changed(setting, **tried[lead]))
        identity = digest(json.dumps([content, n]), digits=6)
        name = f"fid-sweep-{'-'.join(axes)}-{self.reference.name}-n{n}-{identity}"
        path = self._write(name, {"axes": axes, "sweeps": content, "n_images": n, "seed_added": _SWEEP_SEED})
        return best, path, fid_table(rows, f"Sweep: FID of {n} images a point", self.asked.margin)

    def compare(self, settings: Sequence[Setting]) -> tuple[Path | None, Table[Row]]:
        """Score each setting for each of the seeds; return the summary of several seeds, and the table."""
        n, seeds, margin = self.asked.n, self.asked.seeds, self.asked.margin
        rows = self.rows(settings, n, seeds)
        about = f"against {self.run.about.name} {self.reference.name}, {self.asked.weights} weights"
        if seeds == 1:
            return None, fid_table(rows, f"{n} samples {about}", margin)
        content = [
            {
                "setting": row.name, **setting.told(), "question": row.records[0]["question"], "fid": asdict(row.fid),
                "relative_change": row.change and asdict(row.change), "within": row.within,
            }
            for setting, row in zip(settings, rows, strict=True)
        ]  # fmt: skip
        identity = digest(json.dumps([[row["question"] for row in content], seeds]), digits=6)
        summary = {"n_images": n, "seeds": seeds, "margin": margin, "rows": content}
        path = self._write(f"fid-seeds{seeds}-{self.reference.name}-n{n}-{identity}", summary)
        return path, fid_table(rows, f"{n} samples {about}, {seeds} seeds", margin)

    def _write(self, name: str, content: dict[str, Any]) -> Path:
        """Write RUN/scores/NAME.json on the main process."""
        path = self.folder / f"{name}.json"
        if self.processes.is_main:
            about = {"reference": self.identity, "environment": environment()}
            write_atomic(path, json.dumps({**content, **about}, indent=1))
        return path


def _reference(run: Run, asked: FidRequest) -> tuple[Reference, Data | None]:
    """Return the reference, and the run's own images where their files are there."""
    if not asked.against:
        return images_of(run.images, asked.split), run.images
    try:
        own = run.images
    except UserError:
        if run.spec.modality != "image":  # the shape of decoded latents is unknown
            raise
        own = None
    return open_source(asked.against, asked.split, own.spec if own else run.spec), own


def score_source(
    source: str, n: int | None, against: str, split: str, features: FeatureSettings, out: Path | None,
    protocol: str = "",
) -> FidScores:  # fmt: skip
    """Score existing images: a store, a folder of images, or a data set."""
    real = open_source(against, split)
    found = open_source(source, split, real.spec, n)
    if not isinstance(found, Images):
        if found.images is None:
            raise UserError(f"{source} are statistics: name the images to score first, the reference with --against")
        found = found.images
    found = found.first(n)
    if isinstance(real, Images) and real.of_any_size:  # read at the size of the images to score
        real = open_source(against, split, found.spec)
    if protocol:
        PROTOCOLS[protocol].check(real)
    scorer = scorer_of(real, found.spec, features, cache_folder())
    result = scorer.score(replace(found, identity=""))  # scored once: do not keep the features
    record = {"images": source, "against": real.identity, **result.to_dict()}
    record |= {"protocol": protocol} if protocol else {}
    lines = []
    if out is not None:
        write_atomic(out, json.dumps({**record, "environment": environment()}, indent=1))
        lines.append(f"wrote {out}")
    title = f"{len(found.split)} images of {source} against {real.name}"
    return FidScores([fid_table([Row(found.name, [record])], title)], lines)


def _mark(best: dict[str, Any], axes: Axes) -> str:
    """Say that a point is the best of its sweep, and the axes at whose end it lies."""
    numeric = {key: values for key, values in axes.items() if all(isinstance(v, int | float) for v in values)}
    ends = [key for key, values in numeric.items() if best[key] in (min(values), max(values))]
    return f"best, at the end of the {' and '.join(ends)} range" if ends else "best"


def fid_table(rows: Sequence[Row], title: str, margin: float = 0.0) -> Table[Row]:
    """Return the table of scored settings, without empty columns, and what to know before quoting the scores."""

    def of(*keys: str, of: str = "generated") -> Callable[[Row], float | None]:
        return lambda row: row.mean(*keys, of=of)

    def plus_minus(key: str, digits: int) -> Callable[[Row], str]:
        return lambda row: " ± ".join(f"{row.mean(f'{key}_{part}'):.{digits}f}" for part in ("mean", "std"))

    def chi2(row: Row) -> str:
        floor = row.mean("balance", "chi2", of="noise_floor")
        return f"{row.mean('balance', 'chi2'):.0f}" + (f" ({floor:.0f})" if floor else "")

    seeds = " over seeds, mean ± sd [95 %]" if len(rows[0].records) > 1 else ""
    columns: list[Column[Row]] = [
        Column("setting", lambda row: row.name, words=True),
        Column("FID" + seeds, lambda row: row.fid.mean, "lower", text=lambda row: _spread(row.fid, ".3f"), key="FID"),
        Column(
            "change to the first [95 %]", lambda row: row.change and row.change.mean,
            text=lambda row: _spread(row.change, "+.1%", sd=False),
        ),
        Column(f"below {margin:+.0%}", lambda row: {True: "yes", False: "no", None: None}[row.within]),
        Column("floor", of("fid", of="noise_floor")),
        Column("KID", of("kid_mean"), "lower", text=plus_minus("kid", 4)),
        Column("IS", of("inception_score_mean"), "higher", text=plus_minus("inception_score", 2)),
        Column("precision", of("precision"), "higher"),
        Column("recall", of("recall"), "higher"),
        Column("density", of("density"), "higher", drop=2),
        Column("coverage", of("coverage"), "higher", drop=2),
        Column("sFID", of("sfid"), "lower"),
        Column("FID∞", of("fid_infinity"), "lower"),
        Column("CMMD", of("cmmd"), "lower"),
        Column("classes χ² (floor)", of("balance", "chi2"), text=chi2),
        Column("as asked", of("balance", "agreement"), "higher"),
        Column("", lambda row: row.mark or None, words=True),
    ]  # fmt: skip
    record = rows[-1].records[-1]
    real = f"{record['n_real']} real images" if record["n_real"] else "statistics of real images"
    line = f"features: {record['extractor']}; {real} ({record['split']})"
    if record["generated"]["kid_mean"] is not None:
        beside = record.get("n_compared") or record["n_real"]
        if beside != record["n_real"]:
            line += f"; KID, precision, recall, density and coverage against {beside} of them"
        line += f"; KID subsets of {record['kid_subset_size']}"
    if record["noise_floor"]["n_images"]:
        line += f"; the noise floor is real {record['noise_floor_split']} images scored alike (docs/evaluation.md)"
    said = [PROTOCOLS[record["protocol"]].said] if record.get("protocol") else []
    if by_class := {name: value for name, value in record.get("by_class", {}).items() if value is not None}:
        worst = sorted(by_class, key=lambda name: -by_class[name])[:_SHOWN_CLASSES]
        said.append(f"FID by class, highest first: {', '.join(f'{name} {by_class[name]:.2f}' for name in worst)}")
    return Table(columns, rows, [line, *said, *(f"note: {note}" for note in record["notes"])], title).without_empty()


def _spread(found: Spread | None, form: str, sd: bool = True) -> str:
    """Return the mean, the standard deviation and the interval of several figures; one figure alone."""
    assert found is not None
    if found.sd is None or found.interval is None:
        return f"{found.mean:{form}}"
    low, high = (f"{end:{form}}" for end in found.interval)
    return f"{found.mean:{form}}" + (f" ± {found.sd:{form}}" if sd else "") + f" [{low}, {high}]"


def changed(setting: Setting, **values: Any) -> Setting:
    """Return the setting with other values; a value that is not a field of it is an option of the head."""
    own = {key: value for key, value in values.items() if key in Setting.__dataclass_fields__}
    own |= {key: float(own[key]) for key in ("guidance", "temperature") if key in own}
    return replace(setting, **own, head={**setting.head, **{key: values[key] for key in values if key not in own}})


def to_text(setting: Setting) -> str:
    """Return a setting in a few words: its plan and every value that is not the default."""
    default = Setting(setting.plan)
    keys = ("guidance", "guidance_schedule", "temperature", "temperature_schedule", "seed", "adaptive", "remask",
            "speculate", "precision")  # fmt: skip
    told = [f"{key}={getattr(setting, key)}" for key in keys if getattr(setting, key) != getattr(default, key)]
    return " ".join([setting.plan, *told, *(f"{key}={value}" for key, value in setting.head.items())])


def parse_compared(text: str, setting: Setting) -> Setting:
    """Read ``solver=unipc:steps=10``: the setting with these values (plan, guidance, temperature, or head options).

    Raises UserError: written otherwise.
    """
    parts = [part.partition("=") for part in re.split(r":(?=[a-z_]+=)", text)]
    if not all(equals for _, equals, _ in parts):
        raise UserError(f"a setting to compare is written solver=unipc:steps=10, not {text!r}")
    return changed(setting, **{key: value if key == "plan" else value_of(value.strip()) for key, _, value in parts})


def parse_axis(text: str) -> tuple[str, list[Any]]:
    """Read ``guidance=1:4:0.25`` (from, to, step; both ends) or ``steps=10,25,50`` as name and values.

    Raises UserError: written otherwise, or it has one value.
    """
    name, _, written = text.partition("=")
    values = parse_values(written)
    if len(values) < 2:
        raise UserError(f"a sweep of at least two values is written guidance=1:4:0.25 or steps=10,25,50, not {text!r}")
    return name, values


def axes_of(sweeps: Sequence[str], **written: str) -> tuple[Axes, dict[str, float]]:
    """Return the swept axes, and the value of each number ``written`` as an option (1 where that is a range).

    Raises UserError: it is no number of at least 0, and no range of them.
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
    """Read ``1:2:0.5`` as [1.0, 1.5, 2.0] and ``10,ddim`` as [10, "ddim"]. Raises UserError: a range without values."""
    parts = [value_of(part.strip()) for part in written.split(":") if part.strip()]
    if len(parts) != 3 or "," in written:
        return [value_of(part.strip()) for part in written.split(",") if part.strip()]
    if not all(isinstance(part, int | float) for part in parts) or parts[2] <= 0 or parts[1] < parts[0]:
        raise UserError(f"a range is written FROM:TO:STEP with FROM below TO, e.g. 1:4:0.25, not {written!r}")
    first, last, step = map(float, parts)
    return [round(first + step * k, 10) for k in range(int((last - first) / step + 1e-6) + 1)]
