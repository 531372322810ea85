"""Inputs of the contract tests: small grids, plans with sets, given and absent tokens, randomized weights.

B batch · L tokens · D width · C condition width · M gathered tokens
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise, stream
from mar.core.tokens import Categories, TokenKind, Vectors
from mar.heads.base import Head
from mar.networks.base import Network
from orderings import ABSENT, GIVEN, Grid, Plan

SHAPES = ((3, 3), (7,), (2, 2, 2))  # for networks alone
SMALL = ((2, 2), (4,), (1, 2, 2))  # where every image can be enumerated
TOKENS: tuple[TokenKind, ...] = (Categories(2), Categories(5), Vectors(1), Vectors(3))
WIDTH = 8  # of the contexts in tests of a head
CONTEXTS = 12  # contexts in tests of a head
DRAWS = 4000  # samples of each context in a chi-square test


@dataclass(frozen=True)
class Case:
    """One plan, and random inputs for it."""

    name: str
    plan: Plan
    token_BLD: Tensor
    condition_BC: Tensor


def normal(seed: int, purpose: str, *shape: int) -> Tensor:
    """Return standard normals of a shape, a function of seed and purpose."""
    return stream(seed, f"verify/{purpose}", shape[0]).normal(math.prod(shape[1:])).reshape(shape)


def random_plan(n_tokens: int, batch: int, seed: int, given: bool = False, absent: bool = False) -> Plan:
    """Return a random ordered partition for every row; with about a quarter of the tokens given, or absent."""
    uniform = stream(seed, "verify/plan", batch).uniform(2 * n_tokens + 2)
    order_BL = uniform[:, :n_tokens].argsort(1).argsort(1)
    n_given_B = (uniform[:, -1] * n_tokens / 2).long() * given
    n_absent_B = (uniform[:, -2] * n_tokens / 2).long() * absent
    rank_BL = order_BL - n_given_B[:, None]
    cut_BL = uniform[:, n_tokens : 2 * n_tokens] < 0.5  # a new set starts at this rank
    cut_BL[:, 0] = False
    step_BL = cut_BL.cumsum(1).gather(1, rank_BL.clamp(min=0))
    n_scored_B = n_tokens - n_given_B - n_absent_B
    for mark, here_BL in ((GIVEN, rank_BL < 0), (ABSENT, rank_BL >= n_scored_B[:, None])):
        rank_BL, step_BL = rank_BL.masked_fill(here_BL, mark), step_BL.masked_fill(here_BL, mark)
    return Plan(rank_BL, step_BL)


def raster_plan(n_tokens: int, batch: int, n_given: int = 0, one_set: bool = False) -> Plan:
    """Return raster order, one token at a time after ``n_given`` given ones, or all tokens as one set."""
    rank_BL = (torch.arange(n_tokens) - n_given).clamp(min=GIVEN).expand(batch, -1)
    return Plan(rank_BL, torch.zeros_like(rank_BL) if one_set else rank_BL)


def plans(network: Network, n_tokens: int, batch: int = 4, seed: int = 0) -> dict[str, Plan]:
    """Return every kind of plan that the network accepts, by name."""
    first = torch.zeros(batch, dtype=torch.int64)
    candidates = {
        "random sets": random_plan(n_tokens, batch, seed),
        "random sets, given and absent tokens": random_plan(n_tokens, batch, seed + 1, given=True, absent=True),
        "the same random sets in every row": random_plan(n_tokens, 1, seed + 2).rows(first),
        "the same random sets, given and absent tokens": random_plan(n_tokens, 1, seed + 5, True, True).rows(first),
        "raster": raster_plan(n_tokens, batch),
        "raster after a given prefix": raster_plan(n_tokens, batch, n_given=n_tokens // 3),
        "everything at once": raster_plan(n_tokens, batch, one_set=True),
    }
    return {name: plan for name, plan in candidates.items() if accepts(network, plan)}


def accepts(network: Network, plan: Plan) -> bool:
    with suppress(Unsupported):
        network.check(plan.step_BL)
        return True
    return False


def cases(network: Network, n_tokens: int, batch: int = 4) -> list[Case]:
    return [case(name, network, plan) for name, plan in plans(network, n_tokens, batch).items()]


def case(name: str, network: Network, plan: Plan) -> Case:
    batch, n_tokens = plan.step_BL.shape
    token_BLD = normal(0, f"token/{name}", batch, n_tokens, network.token_width)
    return Case(name, plan, token_BLD, normal(0, f"condition/{name}", batch, network.condition_width))


Module = TypeVar("Module", bound=nn.Module)


def seeded(make: Callable[[], Module]) -> Module:
    """Return the module with weights as initialised from seed 0; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def small_network(cls: type[Network], shape: tuple[int, ...]) -> Network:
    """Return an instance with its ``test_options`` and randomized weights, or raise Unsupported or UserError."""
    return randomize_weights(seeded(lambda: cls(shape, cls.Options(**cls.test_options))))


def small_head(cls: type[Head], token: TokenKind, context_width: int = WIDTH, live: bool = True) -> Head:
    """Return an instance as ``small_network`` does; without ``live`` its weights stay as initialised."""
    if not isinstance(token, cls.tokens):
        raise Unsupported(f"{cls.__name__} does not model {token}")
    head = seeded(lambda: cls(context_width, token, cls.Options(**cls.test_options)))
    head.sampling, head.scoring = cls.Sampling(**cls.test_sampling), cls.Scoring(**cls.test_scoring)
    return randomize_weights(head) if live else head.eval()


def served(make: Any, cls: type, candidates: tuple[Any, ...]) -> tuple[dict[str, Any], str]:
    """Return ``make(cls, candidate)`` by name for each candidate that the class accepts, and the other refusals."""
    made, refusals = {}, []
    for candidate in candidates:
        name = str(Grid(candidate)) if isinstance(candidate, tuple) else str(candidate)
        try:
            made[name] = make(cls, candidate)
        except (Unsupported, UserError) as refusal:
            refusals.append(f"{name}: {refusal}")
    return made, "; ".join(refusals)


def randomize_weights(module: Module, scale: float = 0.3) -> Module:
    """Shift all weights at random, so that zero-initialised layers take part; switch to evaluation mode."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.is_floating_point():
                shift = stream(0, f"verify/weights/{name}", 1).normal(parameter.numel())
                parameter.add_(scale * shift.reshape(parameter.shape))
    return module.eval()


@dataclass(frozen=True)
class HeadCase:
    """A head with a few contexts, tokens and streams of noise."""

    head: Head
    z_MD: Tensor
    x_M: Tensor
    noise: Noise

    @classmethod
    def of(cls, head: Head) -> HeadCase:
        if isinstance(head.token, Categories):
            x_M = torch.arange(CONTEXTS) % head.token.vocabulary
        else:
            x_M = normal(5, "value", CONTEXTS, head.token.width)
        return cls(head, normal(6, "context", CONTEXTS, WIDTH), x_M, streams(CONTEXTS))


def streams(count: int) -> Noise:
    """Return one stream for each token, as generation passes them to a head."""
    return stream(7, "verify/head", 1).tokens(torch.zeros(count, dtype=torch.int64), torch.arange(count))


def all_images(vocabulary: int, n_tokens: int) -> Tensor:
    """Return every image: (vocabulary ** n_tokens, n_tokens) int64."""
    return torch.tensor(list(itertools.product(range(vocabulary), repeat=n_tokens)), dtype=torch.int64)
