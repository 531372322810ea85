"""Option groups of the commands, each declared once. This file imports no torch: methods import what they need.

A group is a frozen dataclass whose fields are options; its methods make what the options mean. A command takes a group as
one parameter:

    @grouped
    def fid(run: TrainedRun, sampling: Sampling, features: Features) -> None: ...
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from mar.cli.help import listed as laid_out
from mar.core.errors import UserError, unknown
from mar.core.files import RUN, check_file, check_writable
from mar.core.hub import local_folder
from mar.core.log import logger, set_up
from mar.core.progress import wide_console

if TYPE_CHECKING:
    from mar.core.spec import DataSpec
    from mar.metrics.images import FeatureSettings
    from mar.metrics.samples import Setting
    from mar.run import Run

Split = Literal["train", "validation", "test"]
Precision = Literal["fp32", "bf16"]
Texts = list[str] | None


def opt(help: str, *names: str, **settings: Any) -> Any:
    """Return an option of typer; without ``names`` it is called as its parameter."""
    return typer.Option(*names, help=help, **settings)


def arg(help: str, **settings: Any) -> Any:
    """Return an argument of typer."""
    return typer.Argument(help=help, **settings)


# Options of one value, for the signature of any command.
Adaptive = Annotated[str, opt("Let the model choose each next set: lowest-entropy, confidence, ….")]
Again = Annotated[bool, opt("Score anew what was scored before with the same settings.", "--again")]
BatchSize = Annotated[int, opt("Examples generated at a time.", min=1)]
Budget = Annotated[float | None, opt("GiB of memory for activations; default 1/32 on a CPU, 1 on a GPU.", min=0.01)]
Device = Annotated[str, opt("cpu, cuda, xpu or mps; default $MAR_DEVICE, else cuda if there is one, else cpu.")]
DataPath = Annotated[Path | None, opt("Where the run's data lie now, if they have moved.")]
Guidance = Annotated[float, opt("Scale of classifier-free guidance; 1: off.", min=0.0)]
HeadOptions = Annotated[Texts, opt("Sampling option of the head, repeatable: top_k=5, solver=unipc.")]
Json = Annotated[bool, opt("Print the table as JSON.", "--json")]
Kind = Annotated[str | None, opt("Likelihood: exact, bound or ode; default the head's.")]
LastWeights = Annotated[bool, opt("Use the last weights instead of the averaged (EMA) ones.", "--last-weights")]
Overrides = Annotated[Texts, arg("key=value pairs that change the recipe.")]
Plan = Annotated[str, opt("Plan, ordering/partition: spiral/cosine:16; default the training plan.")]
Schedule = Annotated[str, opt("Guidance scale along the AR steps: constant, power-cosine:2.75, linear@0.2-0.8, ….")]
Seed = Annotated[int, opt("All random draws depend on it.", min=0)]
Shard = Annotated[int, opt("Examples in a file of the store; 0: a batch, at least 256.", min=0)]
SplitOption = Annotated[Split, opt("Split of the data set.")]
Temperature = Annotated[float, opt("Temperature of the head.", min=0.0)]
TemperatureSchedule = Annotated[
    str, opt("Temperature along the AR steps: linear:FROM, cosine:FROM, inverse:FROM, maskgen.")
]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take option groups: each parameter annotated with a group becomes the group's fields."""
    groups = {name: hint for name, hint in get_type_hints(command).items() if is_dataclass(hint)}

    def parameters_of(owner: Any) -> list[Parameter]:
        hints = get_type_hints(owner, include_extras=True)
        found = signature(owner).parameters.values()
        return [one.replace(annotation=hints[one.name], kind=Parameter.KEYWORD_ONLY) for one in found]

    parameters = [
        one
        for parameter in parameters_of(command)
        for one in (parameters_of(groups[parameter.name]) if parameter.name in groups else [parameter])
    ]

    @wraps(command)
    def flat(*values: Any, **given: Any) -> None:
        given |= zip((parameter.name for parameter in parameters), values, strict=False)
        for name, group in groups.items():
            own = {field.name for field in fields(group)} & set(given)
            given[name] = group(**{key: given.pop(key) for key in own})  # type: ignore[operator]
        command(**given)

    flat.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def load_run(path: Path, last_weights: bool, device: str | None = None, data_path: Path | None = None) -> Run:
    """Load a run. Raises UserError: the folder holds no run, before torch is imported."""
    path = local_folder(path)
    if not (path / RUN).is_file():
        runs = sorted(f"{one.parent}" for one in path.parent.glob(f"*/{RUN}")) if not path.exists() else []
        raise UserError(
            f"{path} is not a run folder: it has no {RUN}" + (f"; runs there: {', '.join(runs[:8])}" if runs else "")
        )
    from mar.run import load

    return load(path, not last_weights, device, data_path=data_path or "")


@dataclass(frozen=True)
class TrainedRun:
    """A run and its weights."""

    run: Annotated[Path, arg("A run folder, or a run's name on the hub: OWNER/NAME.")]
    last_weights: LastWeights = False
    data_path: DataPath = None
    device: Device = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", local_folder(self.run))

    @property
    def weights(self) -> str:
        """The word for the weights in score files."""
        return "last" if self.last_weights else "ema"

    def load(self, device: str | None = None) -> Run:
        """Load the run. Raises UserError: the folder holds no run."""
        return load_run(self.run, self.last_weights, device, self.data_path)


@dataclass(frozen=True)
class DecodedRun(TrainedRun):
    """A run whose samples are shown: an imported model of latents takes the autoencoder that decodes them."""

    vae: Annotated[str, opt("KL autoencoder of an imported model without one: a diffusers folder or hub name.")] = ""

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

    plans: Annotated[str, opt("Plans: raster,spiral/cosine:16,random/sizes:(1,3,60); default the training plan.")] = ""
    partitions: Annotated[str, opt("Partitions that every ordering of --plans takes: singles,cosine:16.")] = ""

    def __post_init__(self) -> None:
        if self.plans or self.partitions:
            _ = self._given  # a mistake is told before torch is imported

    @cached_property
    def _given(self) -> list[str]:
        return plan_product(self.plans, self.partitions, "raster")

    def texts(self, default: str) -> list[str]:
        """Return the canonical plans, each once; without options ``default``, which is canonical.

        Raises UserError: a plan names a partition beside --partitions.
        """
        if self.plans:
            return self._given
        return plan_product("", self.partitions, default) if self.partitions else [default]


@dataclass(frozen=True)
class Sampling:
    """How examples are generated."""

    label: Annotated[
        list[str] | None, opt("Class, number or name, repeatable; default all classes in turn.", "--class")
    ] = None
    condition: Annotated[Path | None, opt("Conditions in turn, .npy or .npz; default the null condition.")] = None
    guidance: Guidance = 1.0
    guidance_schedule: Schedule = "linear"
    temperature: Temperature = 1.0
    temperature_schedule: TemperatureSchedule = "constant"
    head: HeadOptions = None
    adaptive: Adaptive = ""
    remask: Annotated[
        str,
        opt("Redraw tokens: random:ROUNDS:SHARE, least-confident:ROUNDS:SHARE, cap:ETA, rescale:ETA or confidence."),
    ] = ""
    speculate: Annotated[str, opt("Several tokens a pass, exactly: self:8, jacobi:8 or DRAFT_RUN:8.")] = ""
    seed: Seed = 0

    def __post_init__(self) -> None:
        from mar.sampling import guidance  # a mistake is told before torch is imported

        guidance.Guidance(schedule=self.guidance_schedule)
        guidance.Temperature(schedule=self.temperature_schedule)

    def head_options(self) -> dict[str, Any]:
        """Return the typed values of ``--head``. Raises UserError: one is not written key=value."""
        return key_values(self.head, "--head")

    def classes(self, spec: DataSpec) -> tuple[int, ...]:
        """Return the numbers of the classes of ``--class``. Raises UserError: a name that the data do not have."""
        if self.label and spec.conditions is not None:
            raise UserError("--class is for runs of classes: this run takes vectors, --condition FILE")
        return tuple(spec.class_number(text) for text in self.label or ())

    def setting(self, plan: str, spec: DataSpec, precision: Precision = "fp32") -> Setting:
        """Return the setting of a store of examples like ``spec`` along ``plan``."""
        from mar.metrics.samples import Setting

        return Setting(
            plan, self.guidance, self.guidance_schedule, self.temperature, self.head_options(), self.seed,
            self.adaptive, self.remask, self.classes(spec), precision, self.speculate, self.temperature_schedule,
            str(self.condition or ""),
        )  # fmt: skip


_FEATURES = {"rich_help_panel": "Features"}


@dataclass(frozen=True)
class Features:
    """The feature extractor of FID."""

    features: Annotated[
        str,
        opt("inception, classifier, clip-vit-b-32, dinov2-vit-l-14, FILE.py:Class; auto: a classifier for small images.",
            **_FEATURES),
    ] = "auto"  # fmt: skip
    features_weights: Annotated[
        Path | None,
        opt("Weights file of inception, clip-… or dinov2-…", "--features-weights", "--inception-weights", **_FEATURES),
    ] = None
    labelled: Annotated[str, opt("kind:path of labelled data for the classifier.", **_FEATURES)] = ""
    resize: Annotated[str, opt("clean: to Inception's size as clean-fid; default as torch-fidelity.", **_FEATURES)] = ""
    sfid: Annotated[bool, opt("Also compare Inception's spatial features.", "--sfid", **_FEATURES)] = False
    by_class: Annotated[bool, opt("FID of each class, too.", "--by-class", **_FEATURES)] = False
    fd_infinity: Annotated[bool, opt("Extrapolate to infinitely many images.", "--fd-infinity", **_FEATURES)] = False

    def settings(self, seed: int = 0, on: str = "cpu") -> FeatureSettings:
        """Return the extractor's settings on a device. Raises UserError: an unknown --resize."""
        if self.resize not in ("", "clean"):
            raise unknown("resizing", self.resize, ("clean",))
        from mar.metrics.images import FeatureSettings

        return FeatureSettings(
            self.features,
            self.features_weights,
            self.labelled,
            seed,
            on,
            spatial=self.sfid,
            infinity=self.fd_infinity,
            by_class=self.by_class,
            resize=self.resize,
        )


_LARGEST = {"seed": 2**63 - 1}  # of whole numbers; others: 2^31 - 1
_WRITTEN = ("out", "npz", "results", "store")  # options that name what a command writes
_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.EIO)

_SPOKEN = [  # of every command
    Parameter(
        name, Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, opt(text, f"-{name[0]}", f"--{name}")]
    )
    for name, text in (("verbose", "Say more."), ("quiet", "Say warnings and results alone."))
]


def checked(command: Callable[..., None]) -> Callable[..., None]:
    """Check every value before the command runs: numbers are finite, ~ is the home, what is written can be written.

    Raises UserError: a wrong value, the command meets a file that it cannot read or write, or the memory is too small.
    """

    @wraps(command)
    def run(**given: Any) -> None:
        given = {name: _checked(name, value) for name, value in given.items()}
        for name in _WRITTEN:
            if given.get(name) is not None:
                (check_file if name == "npz" else check_writable)(given[name])
        set_up(given.pop("verbose", False) - given.pop("quiet", False), bool(given.get("json") or given.get("as_json")))
        before, started = os.environ.get("MAR_DEVICE", ""), time.monotonic()
        if given.get("device"):  # for this command and the processes that it starts
            os.environ["MAR_DEVICE"] = given["device"]
        try:
            command(**given)
            logger.debug(f"took {time.monotonic() - started:.1f} s")
        except OSError as error:
            if error.filename is None and error.errno not in _DISK:
                raise
            raise UserError(f"{error.filename or 'a file'}: {error.strerror}") from error
        except RecursionError as error:
            raise UserError("a value is nested too deeply") from error
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not re.search("allocate memory|out of memory", str(error)):
                raise
            reason = " ".join(str(error).split())[:100]
            raise UserError(f"the memory is too small ({reason}): choose smaller sizes, or fewer at a time") from error
        finally:
            os.environ["MAR_DEVICE"] = before

    own = signature(command).parameters.values()
    run.__signature__ = signature(command).replace(parameters=[*own, *_SPOKEN])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, **{one.name: one.annotation for one in _SPOKEN}}
    return run


def _checked(name: str, value: Any) -> Any:
    """Return the value of an option with ~ as the home. Raises UserError: a number or a name that no command takes."""
    option, largest = f"--{name.replace('_', '-')}", _LARGEST.get(name, 2**31 - 1)
    if isinstance(value, list | tuple):
        return type(value)(_checked(name, one) for one in value)
    if isinstance(value, float) and not abs(value) <= 1e12:
        raise UserError(f"{option} takes a finite number up to 1e12, not {value}")
    if isinstance(value, int) and abs(value) > largest:
        raise UserError(f"{option} takes a whole number up to {largest}, not {value}")
    if isinstance(value, str | Path) and re.search("[\0\ud800-\udfff]", str(value)):
        raise UserError(f"{option} {str(value)[:40]!r} has a zero byte, or bytes that are no UTF-8")
    if isinstance(value, str) and value.startswith("~/") and name != "prompt":
        return os.path.expanduser(value)
    if isinstance(value, Path):
        if max(len(os.fsencode(part)) for part in (*value.parts, "")) > 255:
            raise UserError(f"{option} {str(value)[:40]}…: a name has at most 255 bytes")
        return Path(os.path.expanduser(value))
    return value


def print_tables(tables: Sequence[Any], as_json: bool, *lines: str) -> None:
    """Print tables and lines to the terminal; as JSON the rows of the tables alone, by title if there are several."""
    if as_json:
        rows = {table.title: json.loads(table.json()) for table in tables}
        print(json.dumps(rows, indent=1) if len(tables) > 1 else tables[0].json())
        return
    wide_console().print(*tables, sep="\n")
    for line in lines:
        printer()(line)


def printer(as_json: bool = False) -> Callable[[str], None]:
    """Return the function that prints a line; where the output is JSON, it prints to standard error."""
    return lambda line: wide_console(as_json).print(line, highlight=False, soft_wrap=True)


def device() -> str:
    """Return the device for images that belong to no run."""
    from mar.core.devices import chosen

    return str(chosen())


def print_listing(panels: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Print names and their texts under titles."""
    typer.echo("\n".join(laid_out(panels)[1:]))


def key_values(texts: list[str] | None, option: str) -> dict[str, Any]:
    """Read a repeated ``key=value`` option: ``["steps=25"]`` -> typed values. Raises UserError: one is written otherwise."""
    if not texts:
        return {}

    from mar.core.overrides import assigned

    keys = [text.partition("=")[0] for text in texts]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise UserError(f"{option} {min(twice)} is given twice: choose one value")
    return assigned(texts, option)


def whole_numbers(text: str, option: str) -> list[int]:
    """Read ``"4,8,16"``. Raises UserError: it holds anything else."""
    try:
        return [int(part) for part in listed(text)]
    except ValueError:
        raise UserError(f"{option} is written 4,8,16, not {text!r}") from None


def gibibytes(budget: float | None) -> int | None:
    """Return the bytes of ``--budget``. Raise UserError: no size of a memory."""
    if budget is not None and not 0.0 <= budget < 2**20:
        raise UserError(f"--budget is a memory in GiB, not {budget:g}")
    return int(budget * 2**30) if budget else None


def plan_product(plans: str, partitions: str, default: str) -> list[str]:
    """Return canonical plans, each once: ``raster,spiral`` × ``singles,cosine:16``, or the plans alone.

    Raises UserError: a plan names a partition beside ``partitions``.
    """
    from orderings import PlanSpec, parse_partition
    from orderings.partitions import Singles

    chosen = [PlanSpec.parse(text, adaptive=True) for text in listed(plans) or [default]]
    cuts = [parse_partition(text) for text in listed(partitions)]
    for spec in chosen:
        if cuts and plans and spec.partition != Singles():
            raise UserError(f"{spec} names a partition: with --partitions, --plans takes orderings alone")
    named = [str(PlanSpec(ordering, cut)) for ordering, partition in chosen for cut in cuts or [partition]]
    return list(dict.fromkeys(named))


def listed(text: str) -> list[str]:
    """Return the parts of a comma-separated text; commas inside brackets separate nothing."""
    from orderings import text as values

    return [part.strip() for part in values.split(text, ",") if part.strip()]
