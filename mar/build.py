"""What the parts of a model cannot do together, refused when a recipe is read.

B batch · L tokens

Recipe -> objects: the only file that knows every class.

Adding a network, head, tokenizer or data set is one new file in its family and one line here. Other packages plug in
through the entry-point groups ``mar.networks``, ``mar.heads``, ``mar.tokenizers`` and ``mar.data``.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict
from importlib.metadata import entry_points
from typing import Any

import torch

from mar.config import Component, Recipe
from mar.core.errors import Unsupported, UserError, unknown
from mar.core.noise import derived_seed, stream
from mar.core.options import typed
from mar.core.tokens import Categories
from mar.data.base import About, Data
from mar.model.model import Model
from mar.model.policy import OrderPolicy
from mar.training.objectives import MaskRatio, Uniform
from orderings import (
    Grid,
    Ordering,
    Partition,
    Plan,
    as_options,
    make_ordering,
    make_partition,
    name_of,
    parse_ordering,
    parse_partition,
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


NETWORKS = {
    "causal-transformer": "mar.networks.causal_transformer:CausalTransformer",
    "diagonal-bilstm": "mar.networks.pixel_rnn:DiagonalBiLSTM",
    "gru": "mar.networks.recurrent:GRU",
    "independent": "mar.networks.independent:Independent",
    "linear-ar": "mar.networks.linear_ar:LinearAR",
    "lstm": "mar.networks.recurrent:LSTM",
    "made": "mar.networks.made:Made",
    "masked-convolution": "mar.networks.masked_convolution:MaskedConvolution",
    "masked-transformer": "mar.networks.masked_transformer:MaskedTransformer",
    "nade": "mar.networks.nade:Nade",
    "per-position": "mar.networks.per_position:PerPosition",
    "row-lstm": "mar.networks.pixel_rnn:RowLSTM",
    "wavenet": "mar.networks.wavenet:WaveNet",
}


HEADS = {
    "categorical": "mar.heads.categorical:CategoricalHead",
    "diffusion": "mar.heads.diffusion:DiffusionHead",
    "flow": "mar.heads.flow:FlowHead",
    "gaussian-mixture": "mar.heads.gaussian_mixture:GaussianMixtureHead",
    "logistic-mixture": "mar.heads.logistic_mixture:LogisticMixtureHead",
}


TOKENIZERS = {
    "pixels": "mar.tokenizers.pixels:Pixels",
    "binary-patches": "mar.tokenizers.binary_patches:BinaryPatches",
    "patches": "mar.tokenizers.patches:Patches",
    "palette": "mar.tokenizers.palette:Palette",
    "channels": "mar.tokenizers.channels:Channels",
    "sequence": "mar.tokenizers.sequence:Sequence",
    "values": "mar.tokenizers.values:Values",
    "kl": "mar.tokenizers.kl:KL",
    "vq": "mar.tokenizers.vq:VQ",
    "latents": "mar.tokenizers.latents:Latents",
}


DATA = {
    "digits": "mar.data.digits:Digits",
    "mnist": "mar.data.idx:Mnist",
    "fashion-mnist": "mar.data.idx:FashionMnist",
    "binarized-mnist": "mar.data.amat:BinarizedMnist",
    "folder": "mar.data.folder:Folder",
    "synthetic": "mar.data.synthetic:Synthetic",
    "tree": "mar.data.synthetic:NoisyTree",
    "text": "mar.data.text:Text",
    "documents": "mar.data.documents:Documents",
    "npz": "mar.data.npz:Npz",
    "audio": "mar.data.audio:Audio",
    "cache": "mar.data.cache:Cache",
}


MASK_RATIOS = {
    "uniform": "mar.training.objectives:Uniform",
    "truncated-normal": "mar.training.objectives:TruncatedNormal",
    "plan": "mar.training.objectives:NextSet",
}


FAMILIES = {
    "network": NETWORKS,
    "head": HEADS,
    "tokenizer": TOKENIZERS,
    "data": DATA,
    "mask_ratio": MASK_RATIOS,
}


def find(family: str, kind: str) -> Any:
    """The class of a kind: our own, or another package's entry point.

    Raises:
        UserError: no such kind, with the nearest one.
    """
    names = FAMILIES[family]
    if kind in names:
        module, name = names[kind].split(":")
        return getattr(importlib.import_module(module), name)
    plugged = {e.name: e for e in entry_points(group=f"mar.{family}s" if family != "data" else "mar.data")}
    if kind in plugged:
        return plugged[kind].load()
    raise unknown(f"{family.replace('_', ' ')} kind", kind, [*names, *plugged])


def options(family: str, component: Component) -> Any:
    """The component's options, typed by its class (a mask ratio is its own options).

    Raises:
        UserError: no such kind or option, with the nearest one; or a value that it does not take.
    """
    cls = find(family, component.kind)
    wanted = getattr(cls, "Options", cls)
    return typed(wanted, component.options, f"option of {family} {component.kind!r}:", f"{component.kind} {family}.")


def ordering(recipe: Recipe) -> Ordering:
    """``ordering.kind`` is a name beside its options, or the short text of the command line (``spiral:outward``)."""
    kind = recipe.ordering.kind
    return parse_ordering(kind) if ":" in kind else make_ordering(kind, recipe.ordering.options)


def partition(recipe: Recipe) -> Partition:
    """``partition.kind`` is a name beside its options, or short text (``cosine:16``)."""
    kind = recipe.partition.kind
    return parse_partition(kind) if ":" in kind else make_partition(kind, recipe.partition.options)


def mask_ratio(recipe: Recipe) -> MaskRatio:
    return options("mask_ratio", recipe.train.mask_ratio)


def data(recipe: Recipe) -> Data:
    return find("data", recipe.data.kind).load(options("data", recipe.data))


def images(dataset: Data) -> Data:
    """The data set itself, or the images that a cache of latents was made from.

    Raises:
        UserError: they are not there, or have changed since.
    """
    if dataset.source is None:
        return dataset
    section, fingerprint = dataset.source
    component = Component.model_validate(section)
    found = find("data", component.kind).load(options("data", component))
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
    plan = Plan.draw(ordering(recipe), partition(recipe), grid, 2, noise)
    built.network.check(plan.step_BL)
    check_lengths(built, plan, recipe.network.kind)
    check_tasks(built, plan, mask_ratio(recipe), recipe.train.mask_ratio.kind, recipe.seed)
    return built


def _assemble(recipe: Recipe, dataset: Data | About) -> Model:
    n_classes = dataset.spec.n_classes if recipe.class_conditional else 0
    tokenizer_class = find("tokenizer", recipe.tokenizer.kind)
    if dataset.spec.latents is not None and not tokenizer_class.reads_latents:
        raise UserError(
            f"tokenizer {recipe.tokenizer.kind!r} reads images, and these are latents: use "
            f"tokenizer.kind={dataset.spec.latents.kind}"
        )
    tokenizer = tokenizer_class(dataset.spec, options("tokenizer", recipe.tokenizer))
    head_class = find("head", recipe.head.kind)
    if not isinstance(tokenizer.token, head_class.tokens):
        kinds = "categories" if isinstance(tokenizer.token, Categories) else "vectors"
        raise UserError(
            f"head {recipe.head.kind!r} does not model {kinds}, which tokenizer {recipe.tokenizer.kind!r} makes"
        )
    network = find("network", recipe.network.kind)(tokenizer.shape, options("network", recipe.network))
    head = head_class(network.context_width, tokenizer.token, options("head", recipe.head))
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
    return {"kind": component.kind, **asdict(options(family, component))}
