"""Contract tests of a whole model: likelihood and sampler, along a plan.

B batch · L tokens · P plans (rows of a Plan) · V vocabulary · N draws
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mar.core.noise import Noise, stream
from mar.core.spec import Conditions
from mar.core.tokens import Categories, TokenKind, Vectors
from mar.heads.base import Head
from mar.likelihood.chain import token_log_prob
from mar.model.model import Model
from mar.networks.base import Network
from mar.sampling.guidance import Guidance
from mar.sampling.samplers import generate
from mar.tokenizers.base import Tokenizer
from mar.verification.cases import (
    SMALL,
    all_images,
    normal,
    plans,
    randomize_weights,
    seeded,
    served,
    small_head,
    small_network,
)  # fmt: skip
from mar.verification.verdict import ALPHA, Verdict, claim, p_value, require
from orderings import GIVEN, Grid, Plan

_N_CLASSES = 2
_DRAWS = 2000  # images of each plan in a chi-square test


class BareTokens(Tokenizer):
    """The identity tokenizer: the data are tokens."""

    def __init__(self, shape: tuple[int, ...], token: TokenKind) -> None:
        super().__init__()
        self.shape, self.token, self.dimensions = shape, token, len(Grid(shape))

    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        return x

    def decode(self, token: Tensor) -> Tensor:
        return token


def small_model(
    network: type[Network], head: type[Head], shape: tuple[int, ...], token: TokenKind, given: Conditions | None = None
) -> Model:
    """Return an instance of classes, or conditions ``given``, with random weights, or raise Unsupported, UserError."""
    built = small_network(network, shape)
    under = small_head(head, token, built.context_width)
    if "steps" in vars(under.scoring):  # the accuracy of the integration is a claim about the head alone
        under.scoring = replace(under.scoring, steps=4)  # pyright: ignore[reportCallIssue]
    model = seeded(lambda: Model(BareTokens(shape, token), built, under, 0 if given else _N_CLASSES, given))
    calm = isinstance(token, Vectors)  # without norms generated values grow along a plan
    return randomize_weights(model, 0.1 if calm else 0.3)


def verify_network_in_model(cls: type[Network], head: type[Head], subject: str) -> list[Verdict]:
    """Test the network under a categorical head: probabilities sum to one, and the sampler follows them."""
    models, _ = served(lambda network, shape: small_model(network, head, shape, Categories(2)), cls, SMALL)
    verdicts = []
    for name, model in models.items():
        on, kinds = f"{subject} on {name}", plans(model.network, len(model.tokenizer.lattice), batch=3)
        found = [verify_model(model, plan, f"{on}, {kind}") for kind, plan in kinds.items()]
        for of_claim in zip(*found, strict=True):  # the first that failed, or all as one
            first, failed = of_claim[0], [verdict for verdict in of_claim if not verdict.passed]
            detail = f"{len(of_claim)} kinds of plan, the first: {first.detail}"
            verdicts.append(failed[0] if failed else Verdict(first.claim, on, True, detail))
    return verdicts


def verify_model(model: Model, plan: Plan, subject: str, draws: int = _DRAWS) -> list[Verdict]:
    """Every claim about a model under a plan of a few rows; ``draws``: images of each in the chi-square test."""
    verdicts = [check(subject, model, plan) for check in (generation_is_keyed, likelihood_is_keyed)]
    if isinstance(model.tokenizer.token, Categories):
        verdicts = [sums_to_one(subject, model, plan), sampler_agrees(subject, model, plan, draws), *verdicts]
    return verdicts


def _labels(model: Model, batch: int) -> Tensor:
    """Both classes and none; or conditions, sequences of several lengths, and none."""
    label_B = torch.arange(batch) % (_N_CLASSES + 1) - 1
    if model.given is None:
        return label_B
    spec = model.given.spec
    value_BTE = (
        stream(11, "verify/conditions", batch).uniform(max(1, spec.length) * spec.width).view(batch, -1, spec.width)
    )
    value_BTE[torch.arange(value_BTE.shape[1]) > label_B[:, None]] = torch.nan
    return value_BTE if spec.length else value_BTE[:, 0]


def _noise(batch: int) -> Noise:
    return stream(9, "verify/model", batch)


def _tokens(model: Model, batch: int) -> Tensor:
    """Any tokens of the model's kind."""
    n_tokens, token = len(model.tokenizer.lattice), model.tokenizer.token
    if isinstance(token, Categories):
        return (stream(10, "verify/tokens", batch).uniform(n_tokens) * token.vocabulary).long()
    return normal(10, "tokens", batch, n_tokens, token.width)


def _probabilities(model: Model, plan: Plan) -> list[Tensor]:
    """Return for each row of the plan the probability of every image that agrees with its given tokens."""
    assert isinstance(model.tokenizer.token, Categories)
    base_PL, label_P, probabilities = _tokens(model, len(plan.step_BL)), _labels(model, len(plan.step_BL)), []
    for row, scored_L in enumerate(plan.scored_BL):
        image_NU = all_images(model.tokenizer.token.vocabulary, int(scored_L.sum()))
        token_NL, row_N = base_PL[row].repeat(len(image_NU), 1), torch.full((len(image_NU),), row)
        token_NL[:, scored_L] = image_NU
        result = token_log_prob(model, token_NL, plan.rows(row_N), label_P[row_N], _noise(len(row_N)))
        probabilities.append(result.nats_BL.double().sum(1).exp())
    return probabilities


@claim("probabilities of all images sum to 1")
def sums_to_one(model: Model, plan: Plan) -> str:
    probabilities = _probabilities(model, plan)
    totals = [float(p_N.sum()) for p_N in probabilities]
    for row, total in enumerate(totals):
        steps = plan.step_BL[row].tolist()
        require(abs(total - 1) < 1e-4, f"under steps {steps} {len(probabilities[row])} images sum to {total:.5f}")
    return f"{sum(map(len, probabilities))} images under {len(totals)} plans, {min(totals):.6f} to {max(totals):.6f}"


@claim("generated images follow the likelihood (chi-square)")
def sampler_agrees(model: Model, plan: Plan, draws: int) -> str:
    assert isinstance(model.tokenizer.token, Categories)
    vocabulary, rows = model.tokenizer.token.vocabulary, len(plan.step_BL)
    row_N = torch.arange(rows).repeat(draws)
    drawn_NL = generate(
        model, plan.rows(row_N), _labels(model, rows)[row_N], _noise(len(row_N)), given=_tokens(model, rows)[row_N]
    )
    smallest = 1.0
    for row, p_V in enumerate(_probabilities(model, plan)):
        drawn_NU = drawn_NL[row_N == row][:, plan.scored_BL[row]]
        place_U = vocabulary ** torch.arange(drawn_NU.shape[1] - 1, -1, -1)
        count_V = torch.bincount((drawn_NU * place_U).sum(1), minlength=len(p_V)).numpy()
        smallest = min(smallest, p_value(count_V, np.asarray(p_V)))
    require(smallest > ALPHA / rows, f"smallest p-value {smallest:.1e} over {rows} plans of {draws} images")
    return f"{rows} plans of {draws} images, smallest p-value {smallest:.2g}"


@claim("image k of a generation does not depend on the batch, and given tokens stay")
def generation_is_keyed(model: Model, plan: Plan) -> str:
    rows = len(plan.step_BL)
    token, label_B, noise = _tokens(model, rows), _labels(model, rows), _noise(rows)
    for guidance in (Guidance(), Guidance(2.0)):
        drawn = generate(model, plan, label_B, noise, guidance, given=token)
        given_BL = plan.step_BL == GIVEN
        require(torch.equal(drawn[given_BL], token[given_BL]), "a given token was changed")
        require(bool(drawn[plan.scored_BL].isfinite().all()), "a generated token is not finite")
        for row in range(rows):
            one = slice(row, row + 1)
            alone = generate(model, plan.rows(one), label_B[one], noise.rows(one), guidance, given=token[one])
            close = torch.allclose(alone.float(), drawn[one].float(), atol=1e-3, rtol=1e-3)
            require(close, f"image {row} alone is another image (guidance {guidance.scale:g})")
    return f"{rows} images one by one, with and without guidance"


@claim("an image's likelihood does not depend on the batch or the memory budget")
def likelihood_is_keyed(model: Model, plan: Plan) -> str:
    rows = len(plan.step_BL)
    token, label_B, noise = _tokens(model, rows), _labels(model, rows), _noise(rows)
    for kind in sorted(model.head.likelihoods):
        all_BL = token_log_prob(model, token, plan, label_B, noise, kind).nats_BL
        require(bool(all_BL.isfinite().all()), f"{kind}: a log-probability is not finite")
        require(not bool(all_BL[~plan.scored_BL].any()), f"{kind}: a given or absent token is scored")
        for row in range(rows):
            one = slice(row, row + 1)
            alone = token_log_prob(model, token[one], plan.rows(one), label_B[one], noise.rows(one), kind, budget=1)
            close = torch.allclose(alone.nats_BL, all_BL[one], atol=1e-3, rtol=1e-3)
            require(close, f"{kind}: image {row} alone has another likelihood")
    return f"{rows} images one by one, {', '.join(sorted(model.head.likelihoods)) or 'no likelihood'}"
