"""The recipe of a run, as nested typed models. Unknown keys are refused with the nearest valid one.

A component (data, tokenizer, ordering, partition, network, head, objective) is a ``kind`` with that kind's own options.
This file knows no classes and imports no torch: ``mar.build`` checks each component's options against its class.

``train.objective`` was called ``train.mask_ratio``, with other names of the same three objectives. Both are read. Run
folders and fingerprints keep the old form, so that existing runs, grids and results stay what they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_serializer, model_validator

from mar.core.errors import UserError, unknown
from mar.core.files import settings_digest
from mar.core.overrides import merged, overridden
from mar.core.readers import read_yaml, reading

RECIPES = Path(__file__).parent / "recipes"
_OLD_OBJECTIVES = {"uniform": "any_order", "plan": "next_set", "truncated-normal": "mar_masking"}
_ENOUGH = 8  # validations before a plateau is looked for: the last quarter then has two
Scalar = bool | int | float | str


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Component(BaseModel):
    """``kind``, and that kind's own options in ``model_extra``."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str


Signal = Literal["SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU"]  # beside SIGINT and SIGTERM
_SIGNALS: tuple[Signal, ...] = ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
Share = Annotated[float, Field(ge=0, lt=1)]


class Schedule(Section):
    """Learning rate as a pure function of the iteration, and so of examples seen."""

    kind: Literal["constant", "cosine", "linear", "wsd"] = "constant"
    warmup: int = Field(default=100, ge=0, description="iterations of linear warm-up")
    final: float = Field(default=0.0, ge=0, description="the last learning rate as a share of the peak")
    decay: float = Field(default=0.2, gt=0, le=1, description="share of the training in which it falls (wsd)")

    @model_serializer(mode="wrap")
    def _omit_decay(self, dump: Any) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if key != "decay" or self.kind == "wsd"}


class ScheduledSampling(Section):
    """How often training replaces known tokens with the model's samples (``mar.training.objectives``)."""

    probability: float = Field(default=0.0, ge=0, le=1, description="of a known token, after the ramp; 0: off")
    start: float = Field(default=0.0, ge=0, lt=1, description="share of the training before the ramp")
    ramp: float = Field(default=1.0, ge=0, le=1, description="share of the training in which it rises linearly from 0")

    def at(self, progress: float) -> float:
        """Return the probability at a fraction 0..1 of training."""
        if progress < self.start:
            return 0.0
        return self.probability * (min(1.0, (progress - self.start) / self.ramp) if self.ramp else 1.0)


def _renamed(content: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {(new if key == old else key): value for key, value in content.items()}


class Train(Section):
    iterations: int = Field(default=2000, ge=1, description="with until=plateau: at most")
    until: Literal["iterations", "plateau"] = Field(default="iterations", description="what ends the training")
    plateau: float = Field(
        default=0.002, gt=0, lt=1, description="the share of the best validation loss that the last quarter must gain"
    )
    init: str = Field(default="", description="run, .safetensors file or hub name whose weights training starts from")
    batch_size: int = Field(default=128, ge=1, description="examples per iteration, over all processes")
    accumulation: int = Field(default=1, ge=1, description="micro-batches an iteration")
    learning_rate: float = Field(default=1e-3, gt=0)
    optimizer: Component = Component(kind="adamw")
    schedule: Schedule = Schedule()
    weight_decay: float = Field(default=0.02, ge=0)
    decayed: Literal["matrices", "published"] = Field(
        default="matrices", description="published (MAR's code): also the mask token and the unconditional embedding"
    )
    betas: tuple[Share, Share] = (0.9, 0.95)
    clip: float = Field(default=3.0, gt=0, description="gradient norm")
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(default="auto", description="auto: bf16 on GPUs")
    compile: bool | Literal["auto"] = Field(default="auto", description="auto: large Transformers on GPUs")
    parallel: Literal["ddp", "fsdp"] = Field(default="ddp", description="a process holds the model, or a share")
    checkpoint_activations: bool = Field(default=False, description="less memory: blocks are computed twice")
    objective: Component = Component(kind="any_order")
    label_drop: float = Field(default=0.1, ge=0, le=1, description="share of labels replaced by the null condition")
    scheduled_sampling: ScheduledSampling = ScheduledSampling()
    log_every: int = Field(default=20, ge=1)
    validate_every: int = Field(default=500, ge=0, description="iterations; 0: never")
    validation_examples: int = Field(default=128, ge=1)
    sample_every: int = Field(default=1000, ge=0, description="iterations; 0: never")
    fid_every: int = Field(default=0, ge=0, description="iterations; 0: never")
    fid_images: int = Field(default=1000, ge=8, description="images generated for each FID")
    save_every: int = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=1, description="checkpoints kept")
    save_on: tuple[Signal, ...] = Field(default=_SIGNALS, description="further signals that save and end the training")
    trackers: tuple[str, ...] = Field(
        default=("tensorboard",), description="tensorboard, wandb, trackio, mlflow, … or FILE.py:Class"
    )
    keep_best: bool | Literal["fid"] = Field(
        default=False, description="the averaged weights of best validation, too (early stopping); fid: of lowest FID"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_mask_ratio(cls, content: Any) -> Any:
        """Read ``mask_ratio`` as ``objective``, and the old names of the objectives as the new ones."""
        if not isinstance(content, dict):
            return content
        content = _renamed(content, "mask_ratio", "objective")
        chosen = content.get("objective")
        if isinstance(chosen, dict) and str(chosen.get("kind")) in _OLD_OBJECTIVES:
            content["objective"] = {**chosen, "kind": _OLD_OBJECTIVES[chosen["kind"]]}
        return content

    @model_serializer(mode="wrap")
    def _in_old_form(self, dump: Any) -> dict[str, Any]:
        """Omit disabled sections and write ``objective`` as ``mask_ratio``: existing recipes keep their fingerprint."""
        old_names = {new: old for old, new in _OLD_OBJECTIVES.items()}
        content = _renamed(dump(self), "objective", "mask_ratio")
        chosen = content["mask_ratio"]
        content["mask_ratio"] = {**chosen, "kind": old_names.get(chosen["kind"], chosen["kind"])}
        off = ["until", "plateau"] * (self.until == "iterations") + ["keep_best"] * (not self.keep_best)
        off += ["save_on"] * (self.save_on == _SIGNALS)
        off += ["scheduled_sampling"] * (not self.scheduled_sampling.probability)
        off += ["decayed"] * (self.decayed == "matrices")
        off += ["fid_every", "fid_images"] * (not self.fid_every)
        off += ["trackers"] * (self.trackers == ("tensorboard",))
        off += ["init"] * (not self.init)
        off += ["optimizer"] * (self.optimizer == Component(kind="adamw"))
        return {key: value for key, value in content.items() if key not in off}

    @model_validator(mode="after")
    def _has_an_fid(self) -> Train:
        if self.keep_best == "fid" and not self.fid_every:
            raise ValueError("keep_best=fid keeps the weights of lowest FID: set train.fid_every to at least 1")
        return self

    @model_validator(mode="after")
    def _can_see_a_plateau(self) -> Train:
        if self.until == "plateau" and not self.validate_every:
            raise ValueError("until=plateau reads the validation loss: set train.validate_every to at least 1")
        if self.until == "plateau" and self.schedule.kind != "constant":
            raise ValueError("until=plateau has its own decay: set train.schedule.kind=constant")
        return self

    def length(self, curve: Sequence[tuple[int, float]]) -> int:
        """Return the iteration at which training ends, as far as its validations ``curve`` (iteration, nats) tell.

        With ``until=plateau`` the learning rate decays over the last fifth. The decay begins at the first validation
        after the warm-up at which the lowest loss gained less than the share ``plateau`` over the last quarter of the
        training so far, at the latest in time for ``iterations``.
        """
        for n in range(_ENOUGH, len(curve) + 1) if self.until == "plateau" else ():
            now = curve[n - 1][0]
            if now > self.iterations * 4 // 5:
                break
            before = min((nats for iteration, nats in curve[:n] if iteration <= 0.75 * now), default=float("inf"))
            gained = before - min(nats for _, nats in curve[:n])
            if now > self.schedule.warmup and gained < self.plateau * abs(before):
                return now + math.ceil(now / 4)
        return self.iterations


class Condition(Section):
    """What examples are generated under. Vectors are those of a column of the data set, or of a file beside it."""

    kind: Literal["none", "class", "vector", "tokens"] = "class"
    column: str = Field(default="", description="of hub data sets, .npz files and digits")
    mask: str = Field(default="", description="tokens: the column that is true where a vector exists")
    path: str = Field(default="", description=".npz with arrays train, validation, test and train_mask, …, of any data")

    @model_validator(mode="after")
    def _has_vectors(self) -> Condition:
        if (self.column or self.path) and self.kind in ("none", "class"):
            raise ValueError(f"a column or path is of condition.kind=vector or tokens, not of {self.kind}")
        if self.mask and (self.kind != "tokens" or not self.column):
            raise ValueError("condition.mask is for condition.kind=tokens with condition.column")
        return self


class Recipe(Section):
    name: str = "run"
    seed: int = Field(default=0, ge=0)
    data: Component = Component(kind="digits")
    tokenizer: Component = Component(kind="pixels")
    ordering: Component = Component(kind="random")
    partition: Component = Component(kind="singles")
    network: Component = Component(kind="masked-transformer")
    head: Component = Component(kind="categorical")
    class_conditional: bool = True  # the spelling of condition.kind=class and none in run folders and fingerprints
    condition: Condition = Condition()
    train: Train = Train()

    @model_validator(mode="before")
    @classmethod
    def _read_condition(cls, content: Any) -> Any:
        chosen = content.get("condition") if isinstance(content, dict) else None
        if isinstance(chosen, dict) and "kind" in chosen:
            content = {**content, "class_conditional": chosen["kind"] == "class"}
        elif isinstance(content, dict) and content.get("class_conditional") is False:
            content = {**content, "condition": {**(chosen if isinstance(chosen, dict) else {}), "kind": "none"}}
        return content

    @model_serializer(mode="wrap")
    def _in_old_form(self, dump: Any) -> dict[str, Any]:
        """Omit a condition that ``class_conditional`` says: existing recipes keep their fingerprint."""
        said = self.condition.kind in ("none", "class")
        return {key: value for key, value in dump(self).items() if key != "condition" or not said}

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name or any(c in name for c in "/\\") or name.startswith("."):
            raise ValueError("a run's name is a plain folder name")
        return name

    def as_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        """Return twelve hex digits of everything but the name and the spread over memory; ``auto`` counts as plain
        float32, whatever a machine makes of it."""
        content = {k: v for k, v in self.as_dict().items() if k != "name"}
        of_machine = ("parallel", "checkpoint_activations", "save_on", "trackers")
        train = {k: v for k, v in content["train"].items() if k not in of_machine}
        plain = {"precision": "fp32", "compile": False}
        content["train"] = train | {k: v for k, v in plain.items() if train[k] == "auto"}
        return settings_digest(content, 12)


_COMPONENTS = {key for key, field in Recipe.model_fields.items() if field.annotation is Component}
_COMPONENTS |= {"train.objective", "train.optimizer", "condition"}
_SHORT = {"class_conditional=true": "condition=class", "class_conditional=false": "condition=none"}


def recipe_names() -> list[str]:
    return sorted(p.stem for p in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """Return the path of a recipe file or of a shipped recipe."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise UserError(f"no recipe file {name!r}")
    if (RECIPES / f"{name}.yaml").is_file():
        return RECIPES / f"{name}.yaml"
    raise unknown("recipe", name, recipe_names())


def read(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a file or a shipped name, with ``key=value`` overrides (nested keys with dots).

    Raises:
        UserError: no such recipe; a key, a value or the YAML is wrong.
    """
    path = recipe_path(name)
    return parse({"name": path.stem, **read_content(path)}, overrides)


def read_content(path: Path, resolve: bool = True) -> dict[str, Any]:
    """Return the keys of a recipe file over those of the recipe that it ``extends``, as overrides replace them.

    An autoencoder beside a file, as an exported run has one, is found from anywhere.

    Args:
        resolve: replace ``${a.b}`` by the value of the recipe's key.

    Raises:
        UserError: it is no recipe, or extends itself.
    """
    with reading(path, "a recipe"):
        return OmegaConf.to_container(OmegaConf.create(_extended(path)), resolve=resolve)  # type: ignore[return-value]


def _extended(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the plain keys of a recipe file and those that it inherits, which are all but the name."""
    own = read_yaml(path, "a recipe")
    content = OmegaConf.to_container(own) if OmegaConf.is_config(own) else own or {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys")
    found = {str(key): value for key, value in content.items()}
    tokenizer = found.get("tokenizer")
    if isinstance(tokenizer, dict) and tokenizer.get("path") and (path.parent / str(tokenizer["path"])).is_dir():
        found["tokenizer"] = tokenizer | {"path": str(path.parent / str(tokenizer["path"]))}
    parent = found.pop("extends", None)
    if parent is None:
        return found
    beside = path.parent / str(parent)
    place = (beside if beside.is_file() else recipe_path(str(parent))).resolve()
    below = (*below, path.resolve())
    if place in below:
        raise UserError(f"{path} extends {parent}, which extends it in turn")
    inherited = _extended(place, below)
    inherited.pop("name", None)
    return merged(inherited, found, _COMPONENTS)


def parse(content: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Make a recipe from plain values and ``key=value`` overrides. Changing a component drops its old options."""
    train = content.get("train")
    if isinstance(train, dict):  # overrides use the new key
        content = {**content, "train": _renamed(train, "mask_ratio", "objective")}
    old, new = "train.mask_ratio", "train.objective"
    texts = [
        _SHORT.get(text.lower(), text.replace(old, new, 1) if text.startswith(old) else text) for text in overrides
    ]
    content = overridden(content, texts, _COMPONENTS)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(_readable(error)) from None


def _readable(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        section = where.removesuffix(str(first["loc"][-1]))
        names = [section + key for key in _valid_keys(first["loc"][:-1])]
        if not section:  # iterations=5 means train.iterations=5
            names += [f"{key}.{inner}" for key in names for inner in _valid_keys((key,)) if where in inner]
        return str(unknown("recipe key", where, names))
    got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
    return f"recipe key {where!r}: {first['msg'].removeprefix('Value error, ')}{got}"


def _valid_keys(path: tuple[int | str, ...]) -> list[str]:
    model: Any = Recipe
    for part in path:
        model = model.model_fields[str(part)].annotation
    return list(getattr(model, "model_fields", ()))
