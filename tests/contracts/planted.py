"""Parts with one bug each, which verification must catch.

B batch · L tokens · D width · C condition width · M gathered tokens · V vocabulary
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from mar.errors import Unsupported
from mar.heads.base import Head, LogProb
from mar.heads.categorical import CategoricalHead
from mar.networks.base import ABSENT, GIVEN
from mar.noise import Noise
from mar.tokens import Vectors
from orderings import Grid, Ordering, Partition, Source
from tests.helpers import Cached, Memory, OnePass

# Networks


class OffByOneMask(OnePass):
    """Sees its own step."""

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        return step_BL[:, :, None] >= step_BL[:, None, :]


class OneStepBehind(OnePass):
    """Never sees the step just before."""

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        return step_BL[:, :, None] > step_BL[:, None, :] + 1


class RasterWhateverThePlan(OnePass):
    """A triangular mask, as in a language model."""

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        order_L = torch.arange(step_BL.shape[1])
        return (order_L[:, None] > order_L[None, :]).expand(len(step_BL), -1, -1)


class FirstRowsPlan(OnePass):
    """The mask of the first row for the whole batch, without saying that it shares plans."""

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        return super().sees(step_BL[:1]).expand(len(step_BL), -1, -1)


class ShiftedPosition(OnePass):
    """Answers with the context of the token after."""

    def contexts(self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        return super().contexts(token_BLD, step_BL, condition_BC).roll(-1, dims=1)


class PaddingIsKnown(OnePass):
    """Takes absent tokens for given ones."""

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        return super().sees(torch.where(step_BL == ABSENT, GIVEN, step_BL))


class NormalisedOverAll(OnePass):
    """Centres the tokens by a mean that includes the unknown ones."""

    def read(self, token_BLD: torch.Tensor) -> torch.Tensor:
        return super().read(token_BLD - token_BLD.mean(1, keepdim=True))


class NormalisedOverBatch(OnePass):
    """Centres the condition by the batch's mean."""

    def contexts(self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        return super().contexts(token_BLD, step_BL, condition_BC - condition_BC.mean(0))


class ColumnMajor(OnePass):
    """Gathers the targets token by token instead of row by row."""

    def forward(
        self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor, target_BL: torch.Tensor
    ) -> torch.Tensor:
        return self.contexts(token_BLD, step_BL, condition_BC).transpose(0, 1)[target_BL.T]


class Deaf(OnePass):
    """Ignores the condition."""

    def contexts(self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        return super().contexts(token_BLD, step_BL, torch.zeros_like(condition_BC))


class CacheBehind(Cached):
    """Its memory forgets which tokens it had observed before."""

    def observe(self, state: Memory, token_BLD: torch.Tensor, index_BL: torch.Tensor) -> Memory:
        state = super().observe(state, token_BLD, index_BL)
        return Memory(state.condition_BC, state.token_BLD, index_BL)


class RefusesEverything(OnePass):
    def check(self, step_BL: torch.Tensor) -> None:
        raise Unsupported("no plan is good enough")


class NotANumber(OnePass):
    """No start: a softmax over nothing."""

    def contexts(self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        weight_BLL = torch.zeros(self.sees(step_BL).shape).masked_fill(~self.sees(step_BL), -torch.inf).softmax(-1)
        return super().contexts(token_BLD, step_BL, condition_BC) + weight_BLL @ self.value(self.read(token_BLD))


# Heads


class IgnoresTemperature(CategoricalHead):
    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        return super().sample(z_MD, noise, z_null_MD, guidance_M)


class SharperSamples(CategoricalHead):
    """Samples from other probabilities than it scores."""

    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        return super().sample(z_MD, noise, z_null_MD, guidance_M, 0.9 * temperature)


class OneDrawForAll(CategoricalHead):
    """Every token of a batch uses the first token's noise."""

    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        first = noise.rows(torch.zeros(len(noise), dtype=torch.int64))
        return super().sample(z_MD, first, z_null_MD, guidance_M, temperature)


class NotNormalised(CategoricalHead):
    """Forgets the softmax's denominator."""

    def log_prob(self, z_MD: torch.Tensor, x_M: torch.Tensor, kind: str, noise: Noise) -> LogProb:
        return LogProb(F.logsigmoid(self.logits(z_MD)).gather(1, x_M[:, None])[:, 0], "exact")


class MeanLoss(CategoricalHead):
    """A loss for the batch instead of one for each token."""

    def loss(self, z_MD: torch.Tensor, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
        return super().loss(z_MD, x_M, noise).mean()


class EntropyInBits(CategoricalHead):
    def entropy(self, z_MD: torch.Tensor) -> torch.Tensor:
        return super().entropy(z_MD) / math.log(2)


class Gaussian(Head):
    """A right one: a diagonal Gaussian, with its density and a bound that lies ½ noise² below it."""

    tokens = Vectors
    likelihoods = frozenset({"exact", "bound"})
    default_likelihood = "exact"

    def __init__(self, context_width: int, token: Vectors, options: object) -> None:
        super().__init__()
        self.token, self.sampling = token, self.Sampling()
        self.parameters_of = nn.Linear(context_width, 2 * token.width)

    def _normal(self, z_MD: torch.Tensor) -> torch.distributions.Normal:
        mean_ME, log_scale_ME = self.parameters_of(z_MD).chunk(2, dim=-1)
        return torch.distributions.Normal(mean_ME, (0.3 * log_scale_ME).exp())

    def loss(self, z_MD: torch.Tensor, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
        return -self._normal(z_MD).log_prob(x_M).sum(-1)

    def gap(self, noise: Noise) -> torch.Tensor:
        return 0.5 * noise.at("gap").normal(1)[:, 0].square()

    def log_prob(self, z_MD: torch.Tensor, x_M: torch.Tensor, kind: str, noise: Noise) -> LogProb:
        nats_M = -self.loss(z_MD, x_M, noise)
        return LogProb(nats_M - self.gap(noise) if kind == "bound" else nats_M, kind)

    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        normal = self._normal(z_MD)
        return normal.loc + temperature * normal.scale * noise.normal(self.token.width)


class BoundAbove(Gaussian):
    def gap(self, noise: Noise) -> torch.Tensor:
        return -super().gap(noise)


class ForgetsTheScale(Gaussian):
    """A Gaussian density without its log-scale."""

    def loss(self, z_MD: torch.Tensor, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
        return super().loss(z_MD, x_M, noise) - self._normal(z_MD).scale.log().sum(-1)


class WideSamples(Gaussian):
    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        return super().sample(z_MD, noise, z_null_MD, guidance_M, 1.2 * temperature)


# Orderings


@dataclass(frozen=True)
class NoPermutation(Ordering):
    """Every token twice, on grids of even length."""

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return (torch.arange(len(grid)) // 2 * 2).clamp(max=len(grid) - 1).expand(batch, -1)


@dataclass(frozen=True)
class SortedWithNeighbours(Ordering):
    """A random order that depends on the rest of the batch."""

    random: ClassVar[bool] = True

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        uniform_BL = generator.uniform(len(grid))
        return (uniform_BL - uniform_BL.mean(0)).argsort(1).argsort(1)


@dataclass(frozen=True)
class SecretlyRandom(Ordering):
    """Draws, but says that it does not."""

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return generator.uniform(len(grid)).argsort(1).argsort(1)


@dataclass(frozen=True)
class Unseeded(Ordering):
    """Draws from the global state."""

    random: ClassVar[bool] = True

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return torch.rand(batch, len(grid)).argsort(1).argsort(1)


# Partitions


@dataclass(frozen=True)
class EmptyStep(Partition):
    """Counts steps by twos."""

    def sizes(self, n: int) -> torch.Tensor:
        return torch.ones(n, dtype=torch.int64)

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        step_BL = super().steps(rank_BL, grid)
        return torch.where((step_BL > GIVEN) & (step_BL < ABSENT), 2 * step_BL, step_BL)


@dataclass(frozen=True)
class EmptySet(Partition):
    """Its first set is empty."""

    def sizes(self, n: int) -> torch.Tensor:
        return torch.tensor([0, n])


@dataclass(frozen=True)
class LosesTheRemainder(Partition):
    """Sets of four, and no more."""

    def sizes(self, n: int) -> torch.Tensor:
        return torch.full((max(1, n // 4),), min(4, n))


@dataclass(frozen=True)
class GeneratesPadding(Partition):
    """Gives absent tokens a step."""

    def sizes(self, n: int) -> torch.Tensor:
        return torch.ones(n, dtype=torch.int64)

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        step_BL = super().steps(rank_BL, grid)
        return torch.where(step_BL == ABSENT, len(grid), step_BL)
