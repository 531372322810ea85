"""What the parts of a model cannot do together, refused when a recipe is read.

B batch · L tokens

Recipe -> objects. The registries of classes lie beside their families (``mar.networks.NETWORKS``, …).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from mar.config import Component, Recipe
from mar.core.errors import Unsupported, UserError
from mar.core.noise import derived_seed, stream
from mar.core.tokens import Categories
from mar.data import DATA
from mar.data.base import About, Data
from mar.heads import HEADS
from mar.model.model import Model
from mar.model.policy import OrderPolicy
from mar.networks import NETWORKS
from mar.tokenizers import TOKENIZERS
from mar.training.objectives import MASK_RATIOS, MaskRatio, Uniform
from orderings import (
    Grid,
    Ordering,
    Partition,
    Plan,
    as_options,
    make_ordering,
    make_partition,
    name_of,
)


def check_lengths(model: Model, plan: Plan, network: str) -> None:
    """Refuse what examples of their own lengths cannot have, if they are such."""
    model.tokenizer.check(plan.step_BL)
    if model.tokenizer.end is not None and (model.network.shares_plan or not model.network.one_pass):
        raise Unsupported(
            f"network={network} would be told where a document ends: use one that reads from left to "
            "right, e.g. causal-transformer, lstm, gru or wavenet, or windows of one length (data.kind=text)"
        )


def check_tasks(model: Model, plan: Plan, ratio: MaskRatio, kind: str, seed: int) -> None:
    """Refuse a mask ratio that makes tasks which the network cannot serve, though it serves the plan."""
    position_B, iteration = torch.arange(len(plan.step_BL)), stream(seed, "check", 1)
    task = ratio.task(plan, position_B, iteration, model.network.one_pass)
    try:
        for row in task.step_BL.split(1):
            model.network.check(row)
    except Unsupported as refusal:
        asked = f"train.mask_ratio={kind} asks for other plans"
        raise Unsupported(f"{asked}: use train.mask_ratio=plan ({refusal})") from None


def check_policy(model: Model, ratio: MaskRatio, head: str) -> None:
    """Refuse a learned order whose bound cannot be trained with this head or mask ratio."""
    if not model.head.loss_is_nll:
        raise Unsupported(
            f"ordering=learned trains a bound in nats, and the loss of head {head!r} is none: use head=categorical"
        )
    if ratio != Uniform():
        raise Unsupported(
            "ordering=learned trains on one step drawn uniformly, all unknown tokens its targets: "
            "use train.mask_ratio=uniform"
        )


FAMILIES = {"network": NETWORKS, "head": HEADS, "tokenizer": TOKENIZERS, "data": DATA, "mask_ratio": MASK_RATIOS}


def ordering(recipe: Recipe) -> Ordering:
    """``ordering.kind`` is a name beside its options, or the short text of the command line (``spiral:outward``)."""
    return make_ordering(recipe.ordering.kind, recipe.ordering.options)


def partition(recipe: Recipe) -> Partition:
    """``partition.kind`` is a name beside its options, or short text (``cosine:16``)."""
    return make_partition(recipe.partition.kind, recipe.partition.options)


def mask_ratio(recipe: Recipe) -> MaskRatio:
    return MASK_RATIOS.options(recipe.train.mask_ratio.kind, recipe.train.mask_ratio.options)


def data(recipe: Recipe) -> Data:
    return DATA.find(recipe.data.kind).load(DATA.options(recipe.data.kind, recipe.data.options))


def images(dataset: Data) -> Data:
    """The data set itself, or the images that a cache of latents was made from.

    Raises:
        UserError: they are not there, or have changed since.
    """
    if dataset.source is None:
        return dataset
    section, fingerprint = dataset.source
    component = Component.model_validate(section)
    found = DATA.find(component.kind).load(DATA.options(component.kind, component.options))
    if found.fingerprint != fingerprint:
        raise UserError(f"the images of {component.kind} are not those that the cache was made from: set data.images")
    return found


def model(recipe: Recipe, dataset: Data | About) -> Model:
    """An untrained model of such data, initialised from the recipe's seed, checked against its ordering and partition.

    Raises:
        UserError, Unsupported: the components do not fit each other; the message says which would.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(recipe.seed, "initialisation"))
        built = _assemble(recipe, dataset)
    grid = Grid(built.tokenizer.shape)
    noise = stream(recipe.seed, "check", 2)
    plan = Plan.sample(ordering(recipe), partition(recipe), grid, 2, noise)
    built.network.check(plan.step_BL)
    check_lengths(built, plan, recipe.network.kind)
    check_tasks(built, plan, mask_ratio(recipe), recipe.train.mask_ratio.kind, recipe.seed)
    return built


def _assemble(recipe: Recipe, dataset: Data | About) -> Model:
    n_classes = dataset.spec.n_classes if recipe.class_conditional else 0
    tokenizer_class = TOKENIZERS.find(recipe.tokenizer.kind)
    if dataset.spec.latents is not None and not tokenizer_class.reads_latents:
        raise UserError(
            f"tokenizer {recipe.tokenizer.kind!r} reads images, and these are latents: use "
            f"tokenizer.kind={dataset.spec.latents.kind}"
        )
    tokenizer = tokenizer_class(dataset.spec, TOKENIZERS.options(recipe.tokenizer.kind, recipe.tokenizer.options))
    head_class = HEADS.find(recipe.head.kind)
    if not isinstance(tokenizer.token, head_class.tokens):
        kinds = "categories" if isinstance(tokenizer.token, Categories) else "vectors"
        raise UserError(
            f"head {recipe.head.kind!r} does not model {kinds}, which tokenizer {recipe.tokenizer.kind!r} makes"
        )
    network = NETWORKS.find(recipe.network.kind)(
        tokenizer.shape, NETWORKS.options(recipe.network.kind, recipe.network.options)
    )
    head = head_class(network.context_width, tokenizer.token, HEADS.options(recipe.head.kind, recipe.head.options))
    built = Model(tokenizer, network, head, n_classes)
    if ordering(recipe).learned:  # last, so that all else starts as it does under ordering=random
        built.policy = _policy(recipe, built)
    return built


def _policy(recipe: Recipe, model: Model) -> OrderPolicy:
    """The policies of a learned order. Raises Unsupported: their bound cannot be trained."""
    check_policy(model, mask_ratio(recipe), recipe.head.kind)
    network = model.network
    return OrderPolicy(
        len(Grid(model.tokenizer.shape)), model.tokenizer.token, network.context_width, network.token_width,
        network.condition_width,
    )  # fmt: skip


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every option of every component written out, checked."""
    filled = recipe.as_dict()
    for family in ("data", "tokenizer", "network", "head"):
        filled[family] = _filled(family, getattr(recipe, family))
    for family, component in (("ordering", ordering(recipe)), ("partition", partition(recipe))):
        filled[family] = {"kind": name_of(component), **as_options(component)}
    filled["train"]["mask_ratio"] = _filled("mask_ratio", recipe.train.mask_ratio)
    return Recipe.model_validate(filled)


def _filled(family: str, component: Component) -> dict[str, Any]:
    return {"kind": component.kind, **asdict(FAMILIES[family].options(component.kind, component.options))}
