"""Option groups of the commands, each declared once.

A group is a frozen dataclass whose fields are options; its methods make what the options mean. A command takes a group as
one parameter:

    @grouped
    def fid(run: TrainedRun, sampling: Sampling, features: Features) -> None: ...

This file imports no torch: methods import what they need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import typer

if TYPE_CHECKING:
    from mar.core.table import Table
    from mar.metrics.images import FeatureSettings
    from mar.metrics.samples import Setting
    from mar.run import Run

Split = Literal["train", "validation", "test"]
Precision = Literal["fp32", "bf16"]

# Options of one value, for the signature of any command.
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value pairs that change the recipe.")]
Seed = Annotated[int, typer.Option(min=0, help="All random draws depend on it.")]
Json = Annotated[bool, typer.Option("--json", help="Print the table as JSON.")]
Plan = Annotated[str, typer.Option(help="Plan, ordering/partition: spiral/cosine:16; default the training plan.")]
SplitOption = Annotated[Split, typer.Option(help="Split of the data set.")]
Kind = Annotated[str | None, typer.Option(help="Likelihood: exact, bound or ode; default the head's.")]
Budget = Annotated[
    float | None,
    typer.Option(min=0.01, help="GiB of memory for activations; default 1/32 on a CPU, 1 on a GPU."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Examples generated at a time.")]
Shard = Annotated[
    int,
    typer.Option(min=0, help="Examples in a file of the store; 0: a batch, at least 256. A kill loses at most one."),
]
HeadOptions = Annotated[
    list[str] | None,
    typer.Option(help="Sampling option of the head, key=value, repeatable: top_k=5, solver=unipc, steps=25."),
]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take option groups: each parameter annotated with a group becomes the group's fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for parameter in signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _parameters(groups[parameter.name])
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def flat(*values: Any, **given: Any) -> None:
        given |= zip((parameter.name for parameter in parameters), values, strict=False)
        for name, group in groups.items():
            own = {field.name for field in fields(group)} & set(given)
            given[name] = group(**{key: given.pop(key) for key in own})
        command(**given)

    flat.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _parameters(group: Any) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


@dataclass(frozen=True)
class TrainedRun:
    """A run and its weights."""

    run: Annotated[Path, typer.Argument(help="A run folder.")]
    last_weights: Annotated[
        bool, typer.Option("--last-weights", help="Use the last weights instead of the averaged (EMA) ones.")
    ] = False

    @property
    def weights(self) -> str:
        """The word for the weights in score files: "ema" or "last"."""
        return "last" if self.last_weights else "ema"

    def load(self, device: str | None = None) -> Run:
        """Load the run. Raises UserError: the folder holds no run."""
        from mar.run import load

        return load(self.run, not self.last_weights, device)


@dataclass(frozen=True)
class DecodedRun(TrainedRun):
    """A run whose samples are shown: an imported model of latents takes the autoencoder that decodes them."""

    vae: Annotated[
        str, typer.Option(help="KL autoencoder of an imported model without one: a diffusers folder or hub name.")
    ] = ""

    def load(self, device: str | None = None) -> Run:
        """Load the run and attach its autoencoder. Raises UserError: either is missing or they do not fit."""
        run = super().load(device)
        if self.vae:
            from mar.compat.released import attach

            attach(run, self.vae)
        return run


@dataclass(frozen=True)
class Plans:
    """The plans to score."""

    plans: Annotated[
        str,
        typer.Option(
            help="Comma-separated plans, e.g. raster,spiral/cosine:16,random/sizes:(1,3,60); default the training plan."
        ),
    ] = ""
    partitions: Annotated[
        str, typer.Option(help="Comma-separated partitions; every ordering of --plans takes each: singles,cosine:16.")
    ] = ""

    def texts(self, default: str) -> list[str]:
        """Return the canonical plans, each once. Raises UserError: a plan names a partition beside --partitions."""
        return plan_product(self.plans, self.partitions, default)


@dataclass(frozen=True)
class Sampling:
    """How examples are generated."""

    label: Annotated[
        list[int] | None, typer.Option("--class", help="Class, repeatable; default all classes in turn.")
    ] = None
    guidance: Annotated[float, typer.Option(min=0.0, help="Scale of classifier-free guidance; 1: off.")] = 1.0
    guidance_schedule: Annotated[
        Literal["linear", "constant"], typer.Option(help="Growth of the scale with the share of known tokens.")
    ] = "linear"
    temperature: Annotated[float, typer.Option(min=0.0, help="Temperature of the head.")] = 1.0
    head: HeadOptions = None
    adaptive: Annotated[
        str, typer.Option(help="Let the model choose each next set: lowest-entropy, confidence, ….")
    ] = ""
    remask: Annotated[
        str,
        typer.Option(
            help="Redraw tokens afterwards (masked networks): random:ROUNDS:SHARE or least-confident:ROUNDS:SHARE."
        ),
    ] = ""
    seed: Seed = 0

    def head_options(self) -> dict[str, Any]:
        """Return the typed values of ``--head``. Raises UserError: one is not written key=value."""
        return key_values(self.head or [], "--head")

    def setting(self, plan: str, precision: Precision = "fp32") -> Setting:
        """Return the setting of a store of examples along ``plan``."""
        from mar.metrics.samples import Setting

        return Setting(
            plan, self.guidance, self.guidance_schedule, self.temperature, self.head_options(), self.seed,
            self.adaptive, self.remask, tuple(self.label or ()), precision,
        )  # fmt: skip


@dataclass(frozen=True)
class Features:
    """The feature extractor of FID."""

    features: Annotated[
        Literal["auto", "inception", "classifier"],
        typer.Option(help="Feature extractor; auto: a classifier for small images.", rich_help_panel="Features"),
    ] = "auto"
    inception_weights: Annotated[
        Path | None, typer.Option(help="torch-fidelity's Inception weights file.", rich_help_panel="Features")
    ] = None
    labelled: Annotated[
        str,
        typer.Option(
            help="For unlabelled data: kind:path of labelled data that trains the classifier.",
            rich_help_panel="Features",
        ),
    ] = ""

    def settings(self, seed: int = 0, device: str = "cpu") -> FeatureSettings:
        """Return the extractor's settings on a device."""
        from mar.metrics.images import FeatureSettings

        return FeatureSettings(self.features, self.inception_weights, self.labelled, seed, device)


@dataclass(frozen=True)
class Execution:
    """Where a grid runs and where its results go.

    Raises:
        UserError: a wrong --slurm pair, or workers and jobs together.
    """

    workers: Annotated[int, typer.Option(min=1, help="Processes of this machine; each takes the next free cell.")] = 1
    processes: Annotated[
        int, typer.Option(min=1, help="Processes (torchrun) that train one cell, each on a GPU of its own.")
    ] = 1
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Run as Slurm jobs: sbatch's options in submitit's names, and jobs=N; repeatable. cluster=local runs the jobs on this machine.",
        ),
    ] = None
    results: Annotated[
        Path | None, typer.Option(help="Keep table, figures, page and provenance here, e.g. results/NAME.")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and their cost; train nothing.")] = False
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Compute failed cells again.")] = False
    json: Json = False

    def __post_init__(self) -> None:
        if not self.slurm:
            return
        from mar.core.errors import UserError
        from mar.experiments.slurm import read_cluster

        read_cluster(self.slurm)
        if self.workers > 1:
            raise UserError("--workers starts processes of this machine: with --slurm, jobs=N sets their number")


def print_tables(tables: Sequence[Table[Any]], as_json: bool, *lines: str) -> None:
    """Print tables and lines to the terminal; as JSON the rows of the tables alone, by title if there are several."""
    if as_json:
        import json

        rows = {table.title: json.loads(table.json()) for table in tables}
        print(json.dumps(rows, indent=1) if len(tables) > 1 else tables[0].json())
        return
    from mar.core.progress import wide_console

    console = wide_console()
    console.print(*tables, sep="\n")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def key_values(texts: list[str], option: str) -> dict[str, Any]:
    """Read a repeated ``key=value`` option: ``["steps=25", "solver=ddim"]`` -> typed values.

    Raises:
        UserError: one is not written key=value.
    """
    if not texts:
        return {}  # importing omegaconf takes a fifth of a second
    from omegaconf import OmegaConf

    from mar.core.errors import UserError

    for text in texts:
        if "=" not in text:
            raise UserError(f"{option} is written key=value, not {text!r}")
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist(texts)))


def whole_numbers(text: str, option: str) -> list[int]:
    """Read ``"4,8,16"``. Raises UserError: it holds anything else."""
    from mar.core.errors import UserError

    try:
        return [int(part) for part in _listed(text)]
    except ValueError:
        raise UserError(f"{option} is written 4,8,16, not {text!r}") from None


def gibibytes(budget: float | None) -> int | None:
    """Return the bytes of ``--budget``."""
    return int(budget * 2**30) if budget else None


def plan_product(plans: str, partitions: str, default: str) -> list[str]:
    """Return canonical plans, each once: ``raster,spiral`` × ``singles,cosine:16``, or the plans alone.

    Raises:
        UserError: a plan names a partition beside ``partitions``.
    """
    from mar.core.errors import UserError
    from orderings import PlanSpec, parse_partition
    from orderings.partitions import Singles

    chosen = [PlanSpec.parse(text, adaptive=True) for text in _listed(plans) or [default]]
    cuts = [parse_partition(text) for text in _listed(partitions)]
    for spec in chosen:
        if cuts and plans and spec.partition != Singles():
            raise UserError(f"{spec} names a partition: with --partitions, --plans takes orderings alone")
    named = [str(PlanSpec(ordering, cut)) for ordering, partition in chosen for cut in cuts or [partition]]
    return list(dict.fromkeys(named))


def _listed(text: str) -> list[str]:
    from orderings import text as values

    return [part.strip() for part in values.split(text, ",") if part.strip()]
