"""log p(x | plan) token by token: the sum over steps and over the tokens of each set.

B batch · N images · L tokens · M gathered tokens · R (image, step) pairs · K AR steps

    -log p(x | plan) = sum_k sum_{l in S_k} -log p(x_l | x_{S_<k})

A one-pass network gives every conditional in one forward pass. Any other needs a pass for each step: those are batched
over (image, step) pairs, ordered by step, so that the device stays full and the pairs of a batch know about equally
many tokens (``pairs``). Orders found along the way, and contexts that generation approximates, are read step by step
(``read_walks``). A memory budget says how many rows go through the network at a time.

An order that the model chooses, lowest or highest entropy first (``adaptive_log_prob``), is a deterministic function of
the tokens already known (ties by token number). So every image lies on one path of a tree of decisions, and the product
of conditionals along it is a normalised density: the sum over the last set's
values is one, then that over the set before it, and so on. A rule that depends on the values just drawn has no such
tree.

Everything that is drawn for image k (its plan, the steps of an estimate, its dequantisation, the noise of a bound) is a
function of (seed, k) and the numbers of a repeat alone, so two plans scored with one seed are compared on the same
images, noise and steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise, stream
from mar.core.progress import Progress
from mar.core.records import Part, Partial
from mar.core.tokens import Categories
from mar.heads.base import LogProb
from mar.likelihood.estimate import EVERY_STEP, Estimator
from mar.likelihood.summary import Conditionals, Likelihood, summarise
from mar.model.model import Model
from mar.model.walk import Chooser, Walk, along, by_score, full_precision
from orderings import ABSENT, GIVEN, Adaptive, Plan, inverse, name_of

IMAGES_AT_ONCE = 256  # the memory budget cuts these further
_CPU_BUDGET = 2**25  # bytes; larger batches only leave a CPU's caches (8 x 8 digits: 1.2 times as slow at 128 MiB)
_GPU_BUDGET = 2**30

OnRows = Callable[[int], None]  # called with the number of rows just done
DrawPlan = Callable[[Noise], Plan]  # one plan for each stream, the same for the same key


@dataclass(frozen=True)
class TokenLogProb:
    """Log-probabilities of the tokens of a batch."""

    nats_BL: torch.Tensor  # log p(x_l | x_{S_<k}) in nats; 0 where a token is given or absent
    kind: str  # "exact", "bound" or "ode"
    evaluations: int  # of the head per token, the most for any
    forward_rows: int  # rows that went through the network
    estimate: bool = False  # they depend on drawn noise (``LogProb.estimate``)
    settings: dict[str, Any] = field(default_factory=dict)  # the head's


# (model, token, plan, label_B, noise, kind, budget, on_rows) -> log-probabilities along orders found, and the orders
FindOrders = Callable[..., tuple[TokenLogProb, Plan]]


@dataclass(frozen=True, repr=False)
class TokenScores:
    """Log-probabilities of every token of N examples along a plan."""

    plan: str  #: short text
    kind: str  #: "exact"; "bound": at most log p, in expectation; "ode"
    #: log p(x_l | x_{S_<k}) in nats; 0 where a token is given or absent. Densities of continuous tokens are without the
    #: Jacobian that a Likelihood includes
    nats_NL: torch.Tensor
    step_NL: torch.Tensor  #: the AR step of each token (GIVEN, 0.., ABSENT)
    position_LD: torch.Tensor  #: the place of each token on the grid, (row, column) of an image

    def __repr__(self) -> str:
        n, length = self.nats_NL.shape
        nats = float(self.nats_NL.sum(1).mean())
        return f"TokenScores({self.plan}, {self.kind}: {n} examples of {length} tokens, {nats:.2f} nats each)"


@dataclass(frozen=True)
class ImageBatch:
    """Some images of a scoring, with the streams of their numbers."""

    index_B: torch.Tensor
    x: torch.Tensor
    label_B: torch.Tensor
    noise: Noise

    def tokens(self, model: Model, dequantisation: int = 0) -> torch.Tensor:
        """(B, L) or (B, L, E), dequantised by the draw of this number."""
        return model.tokenizer.encode(self.x.to(self.label_B.device), self.noise.at("dequantise", dequantisation))

    def repeated(self, number: int) -> Noise:
        """The streams of an independent draw of orders, steps and noise."""
        return self.noise.at(f"repeat {number}") if number else self.noise


def image_batches(model: Model, images: torch.Tensor, labels: torch.Tensor | None, seed: int) -> Iterator[ImageBatch]:
    """``images`` (N, C, H, W) in batches; ``labels`` None: no class. Raises UserError: there are no images."""
    if len(images) == 0:
        raise UserError("no images to score")
    device = next(model.parameters()).device
    label_N = torch.full((len(images),), -1) if labels is None else labels
    for index_B in torch.arange(len(images)).split(IMAGES_AT_ONCE):
        noise = image_noise(seed, index_B, device)
        yield ImageBatch(index_B, images[index_B], label_N[index_B].to(device), noise)


def image_noise(seed: int, index: int | torch.Tensor, device: torch.device | str = "cpu") -> Noise:
    """The streams of images 0..index-1, or of these numbers: the same in every likelihood of a seed."""
    return stream(seed, "nll", index, device)


def counter(progress: Progress | None, total: int) -> OnRows:
    """A function that adds up rows done and reports (rows done, ``total``) to ``progress``."""
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, total)

    return count


def rows_in_budget(model: Model, budget: int | None = None) -> int:
    """How many rows at a time keep the activations of a forward pass (no gradients) within ``budget`` bytes.

    Counted in float32: the network's own (``row_floats``), and four of the vocabulary for each token. None: 32 MiB on
    a CPU, 1 GiB elsewhere.
    """
    n_tokens, token = math.prod(model.tokenizer.shape), model.tokenizer.token
    head = 4 * token.vocabulary if isinstance(token, Categories) else 0
    budget = budget or (_CPU_BUDGET if next(model.parameters()).device.type == "cpu" else _GPU_BUDGET)
    return max(1, budget // (4 * (model.network.row_floats(n_tokens) + n_tokens * head)))


@dataclass(frozen=True)
class Pairs:
    """Some (image, step) pairs that went through the network together."""

    image_R: torch.Tensor
    step_R: torch.Tensor
    target_RL: torch.Tensor  # bool, the tokens whose contexts were asked for
    z_MD: torch.Tensor  # the contexts, M = ``target_RL.nonzero()`` row-major

    @cached_property
    def at_M(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(image_M, token_M): where the targets lie in the batch."""
        row_M, token_M = self.target_RL.nonzero(as_tuple=True)
        return self.image_R[row_M], token_M


def pairs(
    model: Model,
    token: torch.Tensor,
    plan: Plan,
    label_B: torch.Tensor,
    budget: int | None = None,
    drawn_BK: torch.Tensor | None = None,
    pooled: bool = False,
    first: int = 0,
) -> Iterator[Pairs]:
    """The contexts of every (image, step) pair of a batch, by step, so that pairs of a pass know equally many tokens.

    Args:
        token: (B, L) int64 or (B, L, E) float32.
        plan: one row for each row of ``token``, on its device.
        label_B: classes; negative: none.
        budget: bytes of activations; None: what suits the device.
        drawn_BK: bool, the steps wanted; None: all.
        pooled: after each step's past, ask for all unknown tokens, not those of the step alone.
        first: number of pairs that are done already and are left out.
    """
    one_pass = model.network.one_pass and not pooled
    image_R, step_R = (index_R[first:] for index_R in _index(plan, one_pass, drawn_BK))
    wanted_BL = plan.scored_BL
    if drawn_BK is not None:
        wanted_BL = wanted_BL & drawn_BK.gather(1, plan.step_BL.clamp(0, drawn_BK.shape[1] - 1))
    condition_BC, rows = model.condition(label_B), rows_in_budget(model, budget)
    if model.network.shares_plan and (pooled or not bool((plan.step_BL == plan.step_BL[:1]).all())):
        rows = 1  # every row has its own plan
    if not len(image_R):
        return
    for image, step in zip(image_R.split(rows), step_R.split(rows), strict=True):
        step_RL, target_RL = plan.step_BL[image], wanted_BL[image]
        if pooled:
            target_RL = target_RL & (step_RL >= step[:, None])
            step_RL = torch.minimum(step_RL, step[:, None])
        elif not one_pass:
            target_RL = step_RL == step[:, None]
        token_RLD = model.embedding(token[image])
        yield Pairs(image, step, target_RL, model.network(token_RLD, step_RL, condition_BC[image], target_RL))


def _index(plan: Plan, one_pass: bool, drawn_BK: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(image_R, step_R): every (drawn) step of every row, ordered by step; for a one-pass network one pair per row."""
    n_steps_B = plan.n_steps_B
    if one_pass:
        return torch.arange(len(n_steps_B), device=n_steps_B.device), torch.zeros_like(n_steps_B)
    if drawn_BK is None:
        drawn_BK = torch.arange(int(n_steps_B.max()), device=n_steps_B.device) < n_steps_B[:, None]
    step_R, image_R = drawn_BK.T.nonzero(as_tuple=True)
    return image_R, step_R


def n_pairs(plan: Plan, one_pass: bool, drawn_BK: torch.Tensor | None = None) -> int:
    """How many rows ``pairs`` sends through the network."""
    return len(_index(plan, one_pass, drawn_BK)[0])


@torch.no_grad()
def token_log_prob(
    model: Model,
    token: torch.Tensor,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str | None = None,
    budget: int | None = None,
    on_rows: OnRows = lambda rows: None,
    drawn_BK: torch.Tensor | None = None,
    part: Part | None = None,
) -> TokenLogProb:
    """Every conditional of ``plan`` for a batch of tokens, or those of the steps drawn.

    Args:
        model: in evaluation mode.
        token, plan, label_B, budget: as in ``pairs``.
        noise: one stream per row; read by stochastic bounds only.
        kind: one of the head's likelihoods; None: its default.
        on_rows: called with the number of (image, step) pairs just done, or found done.
        drawn_BK: bool, the steps to compute; None: all. The others' tokens keep 0 nats.
        part: where the work is saved as it is done, and taken up again.

    Raises:
        Unsupported: the head has no likelihood of this kind.
    """
    kind = model.head.check_kind(kind)
    if not model.network.sampling.exact:
        if drawn_BK is not None or kind != "exact":
            how = model.network.sampling
            raise Unsupported(f"contexts that a generation changes ({how}) need an exact likelihood of every step")
        found, _ = read_walks(model, token, plan, label_B, noise, kind, along, budget, on_rows)
        return replace(found, settings=asdict(model.network.sampling))
    nothing = {"done": 0, "evaluations": 0, "estimate": False, "settings": {}}
    kept, notes = (part.read() if part else None) or ({"nats_BL": torch.zeros(plan.step_BL.shape)}, nothing)
    nats_BL, total = kept["nats_BL"].to(token.device), n_pairs(plan, model.network.one_pass, drawn_BK)
    if notes["done"]:
        on_rows(notes["done"])
    for some in pairs(model, token, plan, label_B, budget, drawn_BK, first=notes["done"]):
        with torch.autocast(token.device.type, enabled=False):  # a network may run in bfloat16, probabilities never do
            z_MD = some.z_MD.to(torch.promote_types(some.z_MD.dtype, torch.float32))
            result = model.head.log_prob(z_MD, token[some.at_M], kind, noise.tokens(*some.at_M))
        nats_BL[some.at_M] = result.nats_M.float()
        notes = {
            "done": notes["done"] + len(some.image_R),
            "evaluations": max(notes["evaluations"], result.evaluations),
            "estimate": result.estimate,
            "settings": result.settings,
        }
        if part is not None and (notes["done"] == total or time.monotonic() >= part.due):
            part.write({"nats_BL": nats_BL}, notes)
        on_rows(len(some.image_R))
    return TokenLogProb(nats_BL, kind, notes["evaluations"], total, notes["estimate"], notes["settings"])


@torch.no_grad()
def read_walks(
    model: Model,
    token: torch.Tensor,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str,
    choose: Callable[[Plan], Chooser],
    budget: int | None = None,
    on_rows: OnRows = lambda rows: None,
) -> tuple[TokenLogProb, torch.Tensor]:
    """The conditionals along walks, as a generation that drew these tokens met them, and step_BL of the sets walked.

    Equal to ``token_log_prob`` where the plan says the sets and generation takes no short cuts.

    Args:
        choose: from the plans of some rows, their chooser.
        budget: bytes of activations; the network's cache comes on top.
    """
    rows = 1 if model.network.shares_plan else rows_in_budget(model, budget)  # every image has its own order
    nats_BL, step_BL = torch.zeros(plan.step_BL.shape, device=token.device), plan.step_BL.clone()
    found, evaluations, forwards = LogProb(nats_BL.flatten()[:0], kind, 0), 0, 0
    for index in torch.arange(len(token), device=token.device).split(rows):
        here, some = plan.rows(index), noise.rows(index)
        walk = Walk(model, here, label_B[index], token[index], choose(here))
        for step in walk:
            row_M, token_M = step.target_BL.nonzero(as_tuple=True)
            at_M = index[row_M], token_M
            with full_precision(step.z_MD) as z_MD:
                found = model.head.log_prob(z_MD, token[at_M], kind, some.tokens(row_M, token_M))
            nats_BL[at_M], step_BL[at_M] = found.nats_M.float(), step.number
            forwards += (count := int(step.target_BL.any(1).sum()))
            on_rows(count)
        evaluations = max(evaluations, found.evaluations)
    return TokenLogProb(nats_BL, kind, evaluations, forwards, found.estimate, found.settings), step_BL


def adaptive_log_prob(
    model: Model,
    token: torch.Tensor,
    plan: Plan,
    rule: Adaptive,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str | None = None,
    budget: int | None = None,
    on_rows: OnRows = lambda rows: None,
) -> tuple[TokenLogProb, Plan]:
    """Every conditional along the orders that ``rule`` finds, and those orders as plans, ranks by token within a set.

    The walk is that of generation, so that an image generated under this rule is scored along its own order.
    Of ``plan`` the set sizes, GIVEN and ABSENT tokens are read. Other arguments: as in ``token_log_prob``.

    Raises:
        Unsupported: the rule depends on sampled values, the network does not serve every order, or the head has no
            tractable entropy or no likelihood ``kind``.
    """
    if rule.uses_sampled_values:
        raise Unsupported(
            f"{name_of(rule)} looks at the values just sampled, so it has no tractable likelihood: lowest-entropy and "
            "highest-entropy have one"
        )
    model.network.check(torch.arange(token.shape[1], device=token.device).flip(0)[None])  # a fixed order rejects it
    kind = model.head.check_kind(kind)
    result, step_BL = read_walks(
        model, token, plan, label_B, noise, kind, lambda rows: by_score(rule, rows.sizes()), budget, on_rows
    )
    place_BL = inverse(torch.argsort(step_BL, dim=1, stable=True))  # given tokens first, absent ones last
    rank_BL = place_BL - (step_BL == GIVEN).sum(1, keepdim=True)
    return result, Plan(torch.where((step_BL > GIVEN) & (step_BL < ABSENT), rank_BL, step_BL), step_BL)


def conditionals(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    draw_plan: DrawPlan,
    seed: int = 0,
    kind: str | None = None,
    budget: int | None = None,
    progress: Progress | None = None,
    estimator: Estimator = EVERY_STEP,
    repeat: int = 0,
    dequantisation: int = 0,
    partial: Partial | None = None,
    name: str = "images",
    find: FindOrders | None = None,
) -> Conditionals:
    """The conditionals of ``images`` (N, C, H, W), in the data set's levels, along plans.

    Args:
        draw_plan: from one stream per image, their plans.
        kind: one of the head's likelihoods; None: its default.
        budget: bytes of activations; None: what suits the device.
        progress: called with (rows done, rows in all).
        estimator: which steps are computed.
        repeat: which independent draw of orders, steps and noise.
        dequantisation: which independent draw of it.
        partial: where finished work is kept, under ``name-…``, and taken up again.
        find: finds each image's order from the model; of the plans that are drawn, the set sizes count alone.

    Raises:
        UserError: there are no images.
        Unsupported: the head has no likelihood of this kind; or sub-sampled steps of an order found along the way.
    """
    if find is not None and estimator != EVERY_STEP:
        raise Unsupported("an order found along the way needs every step before the one drawn: use --estimator exact")
    batches = list(image_batches(model, images, labels, seed))
    drawn = [_draw(model, batch, draw_plan, estimator, repeat) for batch in batches]
    one_pass = model.network.one_pass and find is None
    expected = [n_pairs(plan, one_pass, drawn_BK) for plan, drawn_BK, _ in drawn]
    count, steps, results = counter(progress, sum(expected)), [], []
    for k, (batch, (plan, drawn_BK, _)) in enumerate(zip(batches, drawn, strict=True)):
        token, step_BL = batch.tokens(model, dequantisation), plan.step_BL
        part = partial.part(f"{name}-{k:05d}") if partial else None
        asked = (batch.label_B, batch.repeated(repeat).at("head"), kind, budget, count)
        if find is None:
            result = token_log_prob(model, token, plan, *asked, drawn_BK, part)
        elif part and (kept := part.read()):  # an order found along the way is kept when all of it is found
            result, step_BL = TokenLogProb(kept[0]["nats_BL"].to(token.device), **kept[1]), kept[0]["step_BL"]
            count(expected[k])
        else:
            result, found = find(model, token, plan, *asked)
            step_BL = found.step_BL
            count(expected[k] - result.forward_rows)  # a rule that chooses the sizes of sets takes fewer steps
            if part:
                notes = {key: value for key, value in vars(result).items() if key != "nats_BL"}
                part.write({"nats_BL": result.nats_BL, "step_BL": step_BL}, notes)
        results.append(result)
        steps.append(step_BL.cpu())
    weights = [weight_BL for _, _, weight_BL in drawn if weight_BL is not None]
    return Conditionals(
        torch.cat(steps),
        -torch.cat([r.nats_BL for r in results]).cpu().double(),
        results[0].kind,
        max(r.evaluations for r in results),
        sum(r.forward_rows for r in results),
        results[0].estimate,
        results[0].settings,
        torch.cat(weights).cpu() if weights else None,
        str(estimator) if weights else "exact",
    )


def _draw(
    model: Model, batch: ImageBatch, draw_plan: DrawPlan, estimator: Estimator, repeat: int
) -> tuple[Plan, torch.Tensor | None, torch.Tensor | None]:
    """(plan, drawn_BK, weight_BL): the plans of some images, and the steps drawn if not all are."""
    noise, tokenizer = batch.repeated(repeat), model.tokenizer
    plan = draw_plan(noise.at("order"))
    if tokenizer.end is not None:  # examples that end by themselves
        plan = plan.shortened(tokenizer.absent(tokenizer.encode(batch.x.to(batch.label_B.device))))
    weight_BK = None if estimator == EVERY_STEP else estimator.weights(plan.n_steps_B, noise.at("steps"))
    if weight_BK is None:
        return plan, None, None
    weight_BL = weight_BK.gather(1, plan.step_BL.clamp(0, weight_BK.shape[1] - 1))
    return plan, weight_BK > 0, weight_BL


def score(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    draw_plan: DrawPlan,
    plan: str,
    seed: int = 0,
    warnings: tuple[str, ...] = (),
    **options: Any,
) -> Likelihood:
    """The likelihood of ``images`` along plans. Arguments: those of ``conditionals`` and ``summarise``."""
    found = conditionals(model, images, labels, draw_plan, seed, **options)
    return summarise(model.tokenizer, plan, found, warnings)
