"""The family of metrics: what a metric asks about a trained model, and what its answers share.

A metric says what identifies its answer (``question``), computes it (``compute``) and reads it back (``read``). The
engine of ``mar.experiments`` and ``mar score`` know metrics by these three alone. To add one, write a file with a
subclass and name it in ``METRICS`` of ``mar/metrics/__init__.py``.

L tokens
"""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationInfo, field_validator, model_serializer

from mar.config import Recipe, Scalar, Section
from mar.core.errors import UserError
from mar.core.files import environment, settings_digest, short, write_atomic
from mar.core.noise import stream
from mar.core.progress import Progress
from mar.core.records import Question
from mar.core.spec import DataSpec
from mar.core.table import Column
from mar.core.tokens import Categories
from mar.data.base import Data
from mar.model.model import Model
from mar.run import Run
from mar.sampling.guidance import Guidance, Temperature
from mar.tokenizers.base import Tokenizer
from orderings import Partition, Plan, PlanSpec, parse_adaptive, to_text
from orderings.optimal import Optimal
from orderings.partitions import Linear

SplitName = Literal["train", "validation", "test"]


class Variant(Section):
    """A named way to use a model. Each variant is one table row; only options that change the conditionals affect its
    NLL."""

    name: str = Field(min_length=1)
    guidance: float | None = Field(default=None, ge=0, description="None: as the section fid says")
    temperature: float | None = Field(default=None, ge=0, description="None: as the section fid says")
    guidance_schedule: str = Field(default="linear", description="growth of the scale along the generation")
    temperature_schedule: str = Field(default="constant", description="from the first AR step to the last")
    adaptive: str = Field(default="", description="the rule that finds the order; of the plans, the set sizes count")
    options: dict[str, Scalar] = Field(default={}, description="of the sampler or the network: steps, refresh, …")
    likelihood: dict[str, Scalar] = Field(default={}, description="options of scoring: refresh, timesteps, …")
    weights: Literal["", "best", "last"] = Field(default="", description="the checkpoint; empty: as the grid selects")

    @field_validator("adaptive")
    @classmethod
    def _known(cls, rule: str) -> str:
        if rule:
            parse_adaptive(rule)
        return rule

    @field_validator("guidance_schedule", "temperature_schedule")
    @classmethod
    def _written(cls, schedule: str, info: ValidationInfo) -> str:
        Guidance(schedule=schedule) if info.field_name == "guidance_schedule" else Temperature(schedule=schedule)
        return schedule

    @model_serializer(mode="wrap")
    def _omit_default(self, dump: Any) -> dict[str, Any]:
        """Omit defaults of later fields, so that answers to existing questions stay answers."""
        off = {"weights": "", "guidance_schedule": "linear", "temperature_schedule": "constant"}
        return {key: value for key, value in dump(self).items() if key not in off or value != off[key]}

    @property
    def is_scored_alone(self) -> bool:
        """True if its likelihood differs from the plan's."""
        return bool(self.adaptive or self.likelihood or self.weights)

    @property
    def has_likelihood(self) -> bool:
        """False if the order depends on the sampled values."""
        return not (self.adaptive and parse_adaptive(self.adaptive).uses_sampled_values)


def plan_variants(plans: Iterable[PlanSpec], variants: tuple[Variant, ...]) -> list[tuple[PlanSpec, Variant | None]]:
    """Return each plan in each variant; without variants, each plan with None.

    An adaptive variant takes only the set sizes from a plan: it is paired with the first plan of each partition.
    """
    found: dict[tuple[Any, str], tuple[PlanSpec, Variant | None]] = {}
    for plan in plans:
        for variant in variants or (None,):
            along = plan.partition if variant and variant.adaptive else plan
            found.setdefault((along, variant.name if variant else ""), (plan, variant))
    return list(found.values())


@dataclass(frozen=True)
class Subject:
    """A trained model along a plan, in a variant."""

    recipe: str  #: the recipe's fingerprint
    weights: str  #: the place of the scored weights' hash in a question's content
    plan: PlanSpec
    variant: Variant | None = None

    @cached_property
    def measured_along(self) -> str | None:
        """The ordering, short text, along which the plan's set costs are measured; None: it needs none."""
        return to_text(self.plan.ordering) if awaits_costs(self.plan.partition) else None


@dataclass(frozen=True)
class Workspace:
    """What a metric computes with."""

    load: Callable[[], Run]  #: returns the trained model, loaded once
    recipe: Recipe  #: of the model
    data: Data  #: of the model
    variant: Variant | None  #: of the question
    folder: Path  #: of the record; pictures lie beside it
    cache: Path  #: features of real images, shared by all models
    progress: Progress | None = None


class Baseline(NamedTuple):
    """An answer that needs no trained model, with the texts of its row."""

    plan: str
    ordering: str
    partition: str
    answer: Any


class Metric(ABC):
    """A metric with its options.

    Args:
        options: of this metric.
        asked: the options of every metric of the grid, by name.

    Attributes:
        name: key in ``METRICS`` and in a grid file.
        title: what errors and times call it.
        Options: read from a grid file, shown by the command line.
        Answer: a frozen dataclass, units in its field names.
        default: the options of a grid file that does not name the metric; None: it is not asked.
        alone: measured one model at a time, when nothing else runs; the answer describes the model, not a row.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Options: ClassVar[type[Section]]
    Answer: ClassVar[type]
    default: ClassVar[Section | None] = None
    alone: ClassVar[bool] = False

    def __init__(self, options: Any, asked: Mapping[str, Section]) -> None:
        self.options, self.asked = options, asked

    @abstractmethod
    def question(self, subject: Subject) -> Question | None:
        """Return what identifies the answer; None: the metric does not apply to the subject."""

    @abstractmethod
    def compute(self, question: Question, at: Workspace) -> Any:
        """Compute the answer. Errors are recorded; the remaining questions go on."""

    @classmethod
    def columns(cls, answers: Sequence[Any]) -> Sequence[Column[Any]]:
        """Return the printed columns of an answer; ``answers`` are those of the whole table."""
        return ()

    @classmethod
    def alike(cls, answer: Any, recipe: Mapping[str, Any]) -> Hashable:
        """Return a value that is equal for answers that compare; ``recipe`` is the model's, empty for a baseline."""
        return None

    @classmethod
    def notes(cls, answers: Sequence[Any], grid: Mapping[str, Any]) -> list[str]:
        """Return how to read the columns: a line for each claim; ``grid`` is the resolved grid file."""
        return []

    @classmethod
    def data_columns(cls) -> Sequence[Column[Any]]:
        """Return the CSV columns of an answer; default: its numbers and words."""
        plain = {field.name: getattr(field.type, "__name__", str(field.type)) for field in fields(cls.Answer)}
        named = [name for name, kind in plain.items() if kind.partition(" ")[0] in ("int", "float", "str", "bool")]
        return [Column(f"{cls.name}_{name}", lambda answer, name=name: getattr(answer, name)) for name in named]

    @classmethod
    def typed(cls, answer: Any) -> Any:
        """Return the answer of plain values."""
        return TypeAdapter(cls.Answer).validate_python(answer)

    def read(self, answer: Any, folder: str) -> Any:
        """Return the answer of a record; ``folder`` is the record's, relative to the grid's folder."""
        return self.typed(answer)

    def baselines(self, recipe: Recipe, data: Data) -> Iterator[Baseline]:
        """Yield answers without a model, to compare the trained ones with."""
        yield from ()

    def along_plan(self, subject: Subject, variant: Variant | None) -> Question:
        """Return a question along a plan; ``variant``: None where it does not change the answer."""
        content: dict[str, Any] = {"plan": str(subject.plan), "weights": subject.weights}
        sections = {"variant": variant, "sets": self.asked["sets"] if subject.measured_along else None}
        content |= {name: section.model_dump(mode="json") for name, section in sections.items() if section is not None}
        content |= self.options.model_dump(mode="json")
        return Question(self.name, content["plan"], "" if variant is None else variant.name, content)


@dataclass(frozen=True)
class PlanMap:
    """A plan on its grid; one sample of it where each image has its own (``random``)."""

    grid: tuple[int, ...]
    random: bool
    rank_L: tuple[int, ...]
    step_L: tuple[int, ...]


def plan_map(model: Model, plan: PlanSpec) -> PlanMap:
    """Return the plan on the model's grid: equal sets stand in for sets that are not measured yet.

    Raises:
        Unsupported: the plan does not fit this grid or this network; the message says which would.
    """
    ordering, partition = plan
    if isinstance(partition, Optimal) and awaits_costs(partition):
        partition = Linear(partition.k)
    grid = model.tokenizer.lattice
    drawn = Plan.sample(ordering, partition, grid, 2, stream(0, "map", 2))
    model.network.check(drawn.step_BL)
    return PlanMap(grid.picture, ordering.random, tuple(drawn.rank_BL[0].tolist()), tuple(drawn.step_BL[0].tolist()))


def adaptive_plan(rule: str, plan: str) -> str:
    """Return the order found by ``rule`` in sets of the sizes of ``plan``."""
    return f"{rule}/{to_text(PlanSpec.parse(plan)[1])}"


def awaits_costs(partition: Partition) -> bool:
    """True for ``optimal`` by costs that its run has to measure."""
    return isinstance(partition, Optimal) and not partition.costs


@dataclass(frozen=True)
class Units:
    """What tables call an example and a dimension of it."""

    example: str = "image"  # or "document", "window" of text or sound, "example"
    per_dimension: str = "bits/dim"  # or "bits/character", …, or the unit of nats where there are no bits
    symbol: str = ""  # "character", "byte" or "token", of text alone
    token_bytes: float = 0.0  # as in ``Data``

    @classmethod
    def of(cls, spec: DataSpec, tokenizer: Tokenizer) -> Units:
        if spec.modality == "text":
            return cls("window" if spec.end is None else "document", f"bits/{spec.symbol}", spec.symbol)
        if spec.modality == "audio":
            return cls("window", "bits/sample")
        example = {"vector": "example", "video": "video"}.get(spec.modality, "image")
        if not tokenizer.dimensions:
            return cls(example, "nats/token" if isinstance(tokenizer.token, Categories) else "nats/latent dimension")
        return cls(example)

    @classmethod
    def of_run(cls, run: Run) -> Units:
        return replace(cls.of(run.spec, run.model.tokenizer), token_bytes=run.data.token_bytes)

    @property
    def nats(self) -> str:
        return f"nats/{self.example}"


_LONGEST = 120  # bytes of a plan in a file's name

# defaults of settings, which are not part of a file's name
_DEFAULTS: dict[str, Any] = {
    "guidance": 1.0, "guidance_schedule": "linear", "adaptive": "", "remask": "", "classes": "", "temperature": 1.0,
    "seed": 0, "weights": "ema", "head": {}, "estimator": "exact", "orders": 0, "pairs": 16, "draws": 1,
    "speculate": "", "precision": "fp32", "past": None, "likelihood": {}, "control": "",
    "temperature_schedule": "constant",
}  # fmt: skip
# their values say what they are
_UNNAMED = ("guidance_schedule", "adaptive", "estimator", "precision", "likelihood", "control", "temperature_schedule")


def scores_folder(run: Run) -> Path:
    """Return RUN/scores. Write nothing; raise UserError if it takes no file, before time is spent on a score."""
    folder = run.folder.path / "scores"
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"cannot write scores to {folder}: score a copy of the run")
    return folder


def save(run: Run, metric: str, plan: str, content: dict[str, Any], made_by: dict[str, Any] | None = None) -> Path:
    """Write RUN/scores/METRIC-PLAN-SPLIT-N….json with the data set's fingerprint, the iteration and the environment."""
    try:
        data = run.data
    except UserError:  # its files are not here: name the data as in training
        data = run.about
    record = {
        **content,
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "iteration": run.checkpoint.iteration,
        "environment": made_by or environment(),
    }
    path = run.folder.path / "scores" / f"{metric}-{file_name(plan, content)}.json"
    write_atomic(path, json.dumps(record, indent=1))
    return path


def file_name(plan: str, content: dict[str, Any]) -> str:
    """Return PLAN-SPLIT-N and every setting that differs from its default."""
    keys = [short(_plain(plan), _LONGEST), str(content["split"]), f"n{content['n_images']}"]
    changed = [key for key, default in _DEFAULTS.items() if key in content and content[key] != default]
    keys += [("" if key in _UNNAMED else key.replace("_", "-")) + _plain(content[key]) for key in changed]
    return "-".join([*keys, str(content["kind"])] if "kind" in content else keys)


def samples_name(plan: str, options: dict[str, Any], seed: int) -> str:
    """Return PLAN-OPTIONS-SEED: every set of sampling options has a folder of its own."""
    told = [f"{key}{_plain(value)}" for key, value in options.items() if value not in ("", None, 0)]
    name = "-".join([_plain(plan), *told])
    plain = re.sub(r"[^\w+.,=()~-]", "-", name)
    end = [f"seed{seed}"] if plain == name else [settings_digest({"name": name}, 8), f"seed{seed}"]
    return "-".join([short(plain, _LONGEST), *end])


def _plain(value: Any) -> str:
    """Return a setting as part of a file's name."""
    text = "-".join(f"{k}{v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return text.replace("/", "-").replace(":", "")
