"""Settings of one run scored against one reference: generated into stores, scored once, read back when asked again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.table import Table

from mar.cli.generating import Setting, fill, question
from mar.cli.scoring import file_name, save
from mar.core.files import settings_digest
from mar.core.processes import Processes
from mar.metrics.fid import Images, Judge
from mar.run import Run

Record = dict[str, Any]  # a line of RUN/scores: the setting beside ``FidResult.to_dict()``


@dataclass
class Session:
    """Scores settings of ``run``; with several processes all of them call, the first one judges.

    Attributes:
        reference: its short name, part of the files' names.
        identity: names exactly the reference and the features: only records with the same one are read back.
        make_judge: called once, when something has to be scored.
        weights: "ema" or "last", for the record.
        again: score what has a record, too.
    """

    run: Run
    processes: Processes
    reference: str
    identity: str
    make_judge: Callable[[], Judge]
    weights: str = "ema"
    batch_size: int = 256
    shard: int = 0
    again: bool = False

    @cached_property
    def judge(self) -> Judge:
        return self.make_judge()

    def check(self, settings: Iterable[Setting]) -> None:
        """Before time is spent on any of them. Raises UserError, Unsupported: one is none of this run's."""
        for setting in settings:
            question(self.run, setting)

    def score(self, setting: Setting, n: int, store: Path | None = None) -> Record:
        """FID and the rest of the first ``n`` images of a setting.

        Args:
            store: where they are generated; default RUN/generated/PLAN-….

        Raises:
            UserError, Unsupported: a setting or reference that this run does not serve.
        """
        asked = question(self.run, setting)
        content = {**asdict(setting), "plan": asked["plan"], "n_images": n, "split": self.reference}
        content |= {"weights": self.weights, "question": settings_digest(asked, 12), "reference": self.identity}
        del content["classes"]
        path = self.run.folder.path / "scores" / f"fid-{file_name(content['plan'], content)}.json"
        if (found := self.processes.broadcast(self._recorded(path, content))) is not None:
            return found
        name = file_name(content["plan"], content | {"n_images": ""}).replace(f"-{self.reference}-n", "", 1)
        folder = store or self.run.folder.path / "generated" / f"{name}-{content['question'][:6]}"
        filled = fill(folder, self.run, setting, n, self.processes, self.batch_size, self.shard, label(setting))

        def judged() -> Record:
            result = self.judge.score(Images("generated", filled.images(n), filled.spec))
            save(self.run, "fid", content["plan"], {**content, "store": str(folder), **result.to_dict()})
            return json.loads(path.read_text())

        return self.processes.on_main(judged)

    def _recorded(self, path: Path, content: Record) -> Record | None:
        if self.again or not path.is_file():
            return None
        found = json.loads(path.read_text())
        same = all(found.get(key) == content[key] for key in ("question", "reference", "n_images"))
        return found if same else None


def changed(setting: Setting, **values: Any) -> Setting:
    """The setting with other values; what is none of its own is an option of the head."""
    own = {key: value for key, value in values.items() if key in Setting.__dataclass_fields__}
    head = {key: value for key, value in values.items() if key not in own}
    for key in ("guidance", "temperature"):
        if key in own:
            own[key] = float(own[key])
    return replace(setting, **own, head={**setting.head, **head})


def label(setting: Setting) -> str:
    """A setting in a few words: its plan and whatever is no default."""
    default = Setting(setting.plan)
    keys = ("guidance", "guidance_schedule", "temperature", "seed", "adaptive", "remask", "precision")
    said = [f"{key}={getattr(setting, key)}" for key in keys if getattr(setting, key) != getattr(default, key)]
    return " ".join([setting.plan, *said, *(f"{key}={value}" for key, value in setting.head.items())])


def scores_table(title: str) -> Table:
    table = Table(title=title)
    table.add_column("setting")
    for column in ("FID ↓", "floor", "KID ↓", "IS ↑", "precision ↑", "recall ↑", "classes χ² (floor)", "as asked ↑"):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def scores_row(name: str, record: Record) -> tuple[str, ...]:
    """What a record says, as cells of ``scores_table``."""
    g, floor = record["generated"], record["noise_floor"]
    balance, real_balance = g["balance"], floor["balance"]
    chi2 = f"{balance['chi2']:.0f}" if balance else "–"
    if balance and real_balance:
        chi2 += f" ({real_balance['chi2']:.0f})"
    agreement = _shown(balance and balance["agreement"], "{:.3f}")
    spread = "{:.4f} ± {:.4f}" if g["kid_mean"] is not None else "–"
    return (
        name, f"{g['fid']:.3f}", _shown(floor["fid"], "{:.3f}"), spread.format(g["kid_mean"], g["kid_std"]),
        f"{g['inception_score_mean']:.2f} ± {g['inception_score_std']:.2f}", _shown(g["precision"], "{:.3f}"),
        _shown(g["recall"], "{:.3f}"), chi2, agreement,
    )  # fmt: skip


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def footer(record: Record) -> list[str]:
    """What a reader of the scores must know."""
    real = f"{record['n_real']} real images" if record["n_real"] else "statistics of real images"
    lines = [f"features: {record['extractor']}; {real} ({record['split']})"]
    if record["generated"]["kid_mean"] is not None:
        lines[0] += f"; KID subsets of {record['kid_subset_size']}"
    if record["noise_floor"]["n_images"]:
        lines[0] += f"; the noise floor is real {record['noise_floor_split']} images scored alike (docs/evaluation.md)"
    return [*lines, *(f"note: {note}" for note in record["notes"])]
