"""Independent samples of known distributions, for tests: a small Ising model, and a scrambled tree of noisy copies.

N examples · B batch · L tokens · H, W rows and columns of the grid

The Ising model's probabilities follow by enumeration. The best order in sets of the tree is known:

    root -> children -> leaves (shared out evenly among the children); p(x) = ½ Π_{l ≠ root} p(x_l | x_parent(l)),
    where a token copies its parent and flips with probability ``flip``

One token at a time every order has the same NLL, the entropy log 2 + (L - 1) h(flip), so orders differ by their sets.
Under the sizes 1, ``children``, the rest, the order root, children, leaves loses nothing: the tokens of each set are
independent given the sets before, so the expected NLL is that entropy, the least of all plans. From three children of
two or more leaves each it is the only such order (except for the order within a set): the tokens of the first two sets
must cover every edge, which takes all the children, and those are independent of each other only given the root.

In a recipe: ``data.kind=tests/synthetic.py:NoisyTree``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from mar.core.errors import UserError
from mar.core.noise import Noise, stream
from mar.core.spec import DataSpec
from mar.data.base import Data, DataOptions, DataSource, TensorSplit, fingerprint


@dataclass(frozen=True)
class SampledOptions(DataOptions):
    rows: int = 3
    cols: int = 3
    n: int = 2000  # training examples; validation and test have a quarter of it each

    def __post_init__(self) -> None:
        if self.n < 4:
            raise UserError(f"data.n must be at least 4, not {self.n}")


class SampledData(DataSource):
    """Independent samples of ``distribution(options)``, on a grid of ``rows`` and ``cols`` binary sites."""

    @staticmethod
    def distribution(options: Any) -> Any:
        """An object whose ``sample(noise)`` draws one (1, H, W) uint8 example for each stream."""
        raise NotImplementedError

    @classmethod
    def load(cls, options: SampledOptions) -> Data:
        model = cls.distribution(options)
        sizes = {"train": options.n, "validation": options.n // 4, "test": options.n // 4}
        x = {split: model.sample(stream(0, f"data/{cls.name}/{split}", n)) for split, n in sizes.items()}
        return Data(
            name=cls.name,
            spec=DataSpec((1, options.rows, options.cols), 2),
            train=TensorSplit(x["train"]),
            validation=TensorSplit(x["validation"]),
            test=TensorSplit(x["test"]),
            fingerprint=fingerprint(*x.values()),
        )


@dataclass(frozen=True)
class Ising:
    """p(x) ∝ exp(coupling Σ s_i s_j over neighbouring pairs + field Σ s_i), spins s = 2x − 1, open borders."""

    rows: int
    cols: int
    coupling: float
    field: float

    def states(self) -> torch.Tensor:
        """(2^(H W), 1, H, W) uint8: every grid; the first site is the lowest bit of its number."""
        site = torch.arange(self.rows * self.cols)
        number = torch.arange(2 ** len(site))
        return (number[:, None] >> site & 1).to(torch.uint8).reshape(-1, 1, self.rows, self.cols)

    def log_probability(self, x_B1HW: torch.Tensor) -> torch.Tensor:
        """nats_B (float64): the exact log-probability of each grid."""
        return self._log_weight(x_B1HW) - self._log_partition

    def sample(self, noise: Noise) -> torch.Tensor:
        """x (N, 1, H, W) uint8, one exact sample for each stream, by inverse transform over all states."""
        states = self.states()
        cumulative = self.log_probability(states).exp().cumsum(0)
        coarse_N, fine_N = noise.uniform(2).double().unbind(1)  # 48 bits: the rarest states have their share
        index_N = torch.searchsorted(cumulative, (coarse_N + fine_N * 2.0**-24) * cumulative[-1], right=True)
        return states[index_N.clamp(max=len(states) - 1)]

    def _log_weight(self, x_B1HW: torch.Tensor) -> torch.Tensor:
        s = 2.0 * x_B1HW[:, 0].double() - 1.0
        pairs_B = (s[:, 1:] * s[:, :-1]).sum((1, 2)) + (s[:, :, 1:] * s[:, :, :-1]).sum((1, 2))
        return self.coupling * pairs_B + self.field * s.sum((1, 2))

    @cached_property
    def _log_partition(self) -> torch.Tensor:
        return self._log_weight(self.states()).logsumexp(0)


@dataclass(frozen=True)
class SyntheticOptions(SampledOptions):
    coupling: float = 0.4
    field: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.rows, self.cols) < 1 or self.rows * self.cols > 16:
            raise UserError(f"the grid is enumerated: at most 4x4 (16 sites), not {self.rows}x{self.cols}")


class Synthetic(SampledData):
    """Samples of the Ising model."""

    Options = SyntheticOptions
    name = "synthetic"

    @staticmethod
    def distribution(options: SyntheticOptions) -> Ising:
        return Ising(options.rows, options.cols, options.coupling, options.field)


@dataclass(frozen=True)
class Tree:
    """The distribution. ``seed`` scrambles: it says which site of the grid holds which token of the tree."""

    rows: int
    cols: int
    children: int
    flip: float
    seed: int = 0

    @cached_property
    def site_L(self) -> torch.Tensor:
        """The site (row-major) of each token, numbered root, children, leaves: a best order."""
        return stream(self.seed, "data/tree/sites", 1).uniform(self.rows * self.cols)[0].argsort()

    @cached_property
    def parent_L(self) -> torch.Tensor:
        """The number of each token's parent, in the numbering of ``site_L``; the root is its own."""
        number_L = torch.arange(self.rows * self.cols)
        leaf_L = 1 + (number_L - 1 - self.children) % self.children
        return torch.where(number_L > self.children, leaf_L, 0)

    @property
    def best_sizes(self) -> tuple[int, ...]:
        """The set sizes under which that order is best: its generations."""
        leaves = self.rows * self.cols - 1 - self.children
        return (1, self.children, leaves) if leaves else (1, self.children)

    @property
    def best_rank_L(self) -> torch.Tensor:
        """The rank of each site along ``site_L``."""
        return torch.empty_like(self.site_L).scatter_(0, self.site_L, torch.arange(len(self.site_L)))

    @property
    def entropy(self) -> float:
        """Nats: of the whole grid, which is the best order's expected NLL."""
        flip = self.flip
        return math.log(2.0) - (len(self.site_L) - 1) * (flip * math.log(flip) + (1.0 - flip) * math.log1p(-flip))

    def log_probability(self, x_B1HW: torch.Tensor) -> torch.Tensor:
        """nats_B (float64): the exact log-probability of each grid."""
        token_BL = x_B1HW.flatten(1)[:, self.site_L]
        flips_B = (token_BL != token_BL[:, self.parent_L]).double().sum(1)
        edges = len(self.site_L) - 1
        return flips_B * math.log(self.flip) + (edges - flips_B) * math.log1p(-self.flip) - math.log(2.0)

    def sample(self, noise: Noise) -> torch.Tensor:
        """x (N, 1, H, W) uint8, one exact sample for each stream."""
        uniform_NL = noise.uniform(len(self.site_L))
        root_N1, flips_NL = uniform_NL[:, :1] < 0.5, uniform_NL < self.flip
        children_NC = root_N1 ^ flips_NL[:, 1 : 1 + self.children]
        leaves = self.parent_L[1 + self.children :] - 1
        leaves_NF = children_NC[:, leaves] ^ flips_NL[:, 1 + self.children :]
        token_NL = torch.cat([root_N1, children_NC, leaves_NF], dim=1)
        return token_NL[:, self.best_rank_L].to(torch.uint8).reshape(-1, 1, self.rows, self.cols)


@dataclass(frozen=True)
class TreeOptions(SampledOptions):
    rows: int = 4
    cols: int = 4
    children: int = 3
    flip: float = 0.1
    scramble: int = 0  # which token sits where
    n: int = 8000

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.rows, self.cols) < 1 or not 1 <= self.children < self.rows * self.cols:
            raise UserError(
                f"data.children is 1 to {self.rows * self.cols - 1} on a grid {self.rows}x{self.cols}, "
                f"not {self.children}"
            )
        if not 0.0 < self.flip < 1.0:
            raise UserError(f"data.flip is between 0 and 1, not {self.flip:g}")


class NoisyTree(SampledData):
    """Samples of the tree."""

    Options = TreeOptions
    name = "tree"

    @staticmethod
    def distribution(options: TreeOptions) -> Tree:
        return Tree(options.rows, options.cols, options.children, options.flip, options.scramble)
