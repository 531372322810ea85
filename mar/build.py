"""Recipe -> parts: build every component a recipe names, once, and check that they fit each other.

The registries of classes lie beside their families (``mar.networks.NETWORKS``, …).

B batch · L tokens
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mar.config import Component, Recipe
from mar.core.errors import Unsupported, UserError
from mar.core.files import in_data_folder
from mar.core.noise import derived_seed, stream
from mar.core.tokens import Categories
from mar.data import DATA
from mar.data.base import About, Data
from mar.data.conditions import with_condition
from mar.heads import HEADS
from mar.model.model import Model
from mar.model.policy import OrderPolicy
from mar.networks import NETWORKS
from mar.tokenizers import TOKENIZERS
from mar.tokenizers.base import Tokenizer
from mar.training.objectives import OBJECTIVES, AnyOrder, LearnedOrder, NextSet, Objective
from mar.training.optimizers import check_name
from mar.training.parts import Parts
from orderings import Ordering, Partition, Plan, as_options, name_of, parse_ordering, parse_partition

FAMILIES = {"network": NETWORKS, "head": HEADS, "tokenizer": TOKENIZERS, "data": DATA, "objective": OBJECTIVES}


def assemble(recipe: Recipe, dataset: Data | About | None = None, check: bool = True) -> Parts:
    """Build and check everything a recipe names. The model is untrained, initialised from the recipe's seed.

    Args:
        dataset: data that are loaded already, or their metadata; default: resolve the recipe and load its data.
        check: that the network serves plan and objective; training did where the model is trained.

    Raises:
        UserError, Unsupported: the components do not fit each other; the message says which would.
    """
    chosen = _chosen(recipe)
    if dataset is None:
        read = _options("data", recipe.data)
        recipe, dataset = _resolved(recipe, chosen | {"data": read}), _load(recipe.data, read)
    if isinstance(dataset, Data):
        dataset = conditioned(dataset, recipe)
    loss = chosen["objective"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(recipe.seed, "initialisation"))
        model = _model(recipe, chosen, dataset)
        if chosen["ordering"].learned:  # last, so that all other weights start as they do under ordering=random
            model.policy = _policy(recipe, model, loss)
            loss = LearnedOrder()
    parts = Parts(recipe, dataset, model, chosen["ordering"], chosen["partition"], loss)
    if check:
        _check(parts)
    return parts


def resolve(recipe: Recipe) -> Recipe:
    """Return the recipe with every option of every component written out and checked."""
    return _resolved(recipe, _chosen(recipe) | {"data": _options("data", recipe.data)})


def _chosen(recipe: Recipe) -> dict[str, Any]:
    """Return the typed options of every component but the data by its family, the ordering and the partition."""
    check_name(recipe.train)
    found = {family: _options(family, getattr(recipe, family)) for family in ("tokenizer", "network", "head")}
    return found | {"objective": objective(recipe), "ordering": ordering(recipe), "partition": partition(recipe)}


def _resolved(recipe: Recipe, chosen: dict[str, Any]) -> Recipe:
    content = recipe.as_dict()
    for family in ("data", "tokenizer", "network", "head"):
        content[family] = {"kind": getattr(recipe, family).kind, **asdict(chosen[family])}
    for family in ("ordering", "partition"):
        content[family] = {"kind": name_of(chosen[family]), **as_options(chosen[family])}
    content["train"]["mask_ratio"] = {"kind": recipe.train.objective.kind, **asdict(chosen["objective"])}
    return Recipe.model_validate(content)


def ordering(recipe: Recipe) -> Ordering:
    """``ordering.kind`` is a name beside its options, or the short text of the command line (``spiral:outward``)."""
    return parse_ordering(recipe.ordering.kind, recipe.ordering.model_extra or {})


def partition(recipe: Recipe) -> Partition:
    """``partition.kind`` is a name beside its options, or short text (``cosine:16``)."""
    return parse_partition(recipe.partition.kind, recipe.partition.model_extra or {})


def objective(recipe: Recipe) -> Objective:
    return _options("objective", recipe.train.objective)


def data(recipe: Recipe) -> Data:
    """Load the data set, with the recipe's conditions."""
    return conditioned(_load(recipe.data), recipe)


def conditioned(dataset: Data, recipe: Recipe) -> Data:
    """Return the data set with the vectors of the recipe's condition, if it names any, in place of classes."""
    chosen = recipe.condition
    if chosen.kind == "class" and (found := dataset.spec.conditions) is not None:
        raise UserError(f"the data have vectors: set condition.kind={'tokens' if found.length else 'vector'}, or none")
    if chosen.kind in ("none", "class"):
        return dataset
    return with_condition(dataset, chosen.kind, chosen.column, chosen.mask, in_data_folder(chosen.path, ""))


def _load(section: Component, options: Any = None) -> Data:
    """Load the data of a section with its typed ``options``; relative paths may lie in MAR_DATA."""
    options = options or _options("data", section)
    paths = {key: getattr(options, key) for key in ("path", "images") if isinstance(getattr(options, key, None), str)}
    placed = {key: in_data_folder(path, section.kind if key == "path" else "") for key, path in paths.items()}
    return DATA[section.kind].load(replace(options, **placed) if placed else options)


def moved(about: About, recipe: Recipe) -> About:
    """Return the metadata; the autoencoder of a cache that has moved is the one in the recipe's ``data.path``."""
    latents, path = about.spec.latents, (recipe.data.model_extra or {}).get("path", "")
    if latents is None or Path(latents.folder).is_dir() or not Path(path).expanduser().is_dir():
        return about
    folder = str((Path(path).expanduser() / "tokenizer").resolve())
    return replace(about, spec=replace(about.spec, latents=replace(latents, folder=folder)))


def images(dataset: Data) -> Data:
    """Return the data set with its classes, or a cache's images. Raise UserError if these are missing or changed."""
    dataset = dataset.bare or dataset
    if dataset.source is None:
        return dataset
    section, fingerprint = dataset.source
    if section["kind"] == "folder" and not section.get("path"):
        raise UserError(f"the images of {dataset.name} are not known: data.images names their folder")
    found = _load(Component.model_validate(section))
    if not found.about.recorded_as(fingerprint):
        raise UserError(f"the images of {found.name} are not those that the cache was made from: set data.images")
    return found


def tokenizer(recipe: Recipe, dataset: Data | About, options: Any = None) -> Tokenizer:
    """Return the recipe's tokenizer, not fitted to data. Raise UserError if it does not read such data.

    Args:
        options: those of the recipe, if they are typed already.
    """
    tokenizer_class = TOKENIZERS[recipe.tokenizer.kind]
    if dataset.spec.latents is not None and not tokenizer_class.reads_latents:
        raise UserError(
            f"tokenizer {recipe.tokenizer.kind!r} reads images, and these are latents: use "
            f"tokenizer.kind={dataset.spec.latents.kind}"
        )
    return tokenizer_class(dataset.spec, options or _options("tokenizer", recipe.tokenizer))


def _model(recipe: Recipe, chosen: dict[str, Any], dataset: Data | About) -> Model:
    n_classes = dataset.spec.n_classes if recipe.class_conditional else 0
    tokens = tokenizer(recipe, dataset, chosen["tokenizer"])
    head_class = HEADS[recipe.head.kind]
    if not isinstance(tokens.token, head_class.tokens):
        kinds = "categories" if isinstance(tokens.token, Categories) else "vectors"
        raise UserError(
            f"head {recipe.head.kind!r} does not model {kinds}, which tokenizer {recipe.tokenizer.kind!r} makes"
        )
    network = NETWORKS[recipe.network.kind](tokens.shape, chosen["network"])
    head = head_class(network.context_width, tokens.token, chosen["head"])
    given = dataset.spec.conditions if recipe.condition.kind in ("vector", "tokens") else None
    return Model(tokens, network, head, n_classes, given)


def _policy(recipe: Recipe, model: Model, objective: Objective) -> OrderPolicy:
    """Return the policies of a learned order. Raise Unsupported if their bound cannot be trained."""
    if not model.head.loss_is_nll:
        raise Unsupported(
            f"ordering=learned trains a bound in nats, and the loss of head {recipe.head.kind!r} is none: "
            "use head=categorical"
        )
    if objective != AnyOrder():
        raise Unsupported(
            "ordering=learned trains on one step drawn uniformly, all unknown tokens its targets: "
            "use train.objective=any_order"
        )
    tokens, network = model.tokenizer, model.network
    if model.null_condition(1).ndim > 2:
        raise Unsupported("ordering=learned reads one vector: use condition.kind=vector, or network=causal-transformer")
    widths = network.context_width, network.token_width, network.condition_width
    return OrderPolicy(len(tokens.lattice), tokens.token, *widths)


def _check(parts: Parts) -> None:
    """Raise Unsupported if the network does not serve the plan, examples of their own lengths, or the tasks."""
    recipe, network, tokenizer = parts.recipe, parts.model.network, parts.model.tokenizer
    noise = stream(recipe.seed, "check", 2)
    plan = Plan.sample(parts.ordering, parts.partition, tokenizer.lattice, 2, noise)
    network.check(plan.step_BL)
    tokenizer.check(plan.step_BL)
    if tokenizer.end is not None and (network.shares_plan or not network.one_pass):
        raise Unsupported(
            f"network={recipe.network.kind} would be told where a document ends: use one that reads from left to "
            "right, e.g. causal-transformer, lstm, gru or wavenet, or windows of one length (data.kind=text)"
        )
    if network.joint_sets and not isinstance(parts.objective, NextSet):
        raise Unsupported(
            f"network={recipe.network.kind} sees which tokens a set holds, and train.objective="
            f"{recipe.train.objective.kind} asks for all unknown tokens: use train.objective=next_set"
        )
    task = parts.objective.task(plan, torch.arange(2), noise.rows(slice(1)), network.one_pass)
    try:
        for row in task.step_BL.split(1):
            network.check(row)
    except Unsupported as refusal:
        asked = f"train.objective={recipe.train.objective.kind} asks for other plans"
        raise Unsupported(f"{asked}: use train.objective=next_set ({refusal})") from None


def _options(family: str, component: Component) -> Any:
    return FAMILIES[family].options(component.kind, component.model_extra or {})
