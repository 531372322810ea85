"""The diffusion chain: q(x_t | x_0), p(x_{t-1} | x_t), and the terms of its variational bound.

N rows (a token at a timestep) · E token channels · T timesteps of the chain

One definition of p(x_{t-1} | x_t) serves the ancestral sampler and the bound (Ho et al. 2020; Nichol & Dhariwal 2021,
"Improved denoising diffusion probabilistic models"). Coefficients are computed in float64; noise comes from outside.

Both q(x_{t-1} | x_t, x_0) and p(x_{t-1} | x_t) have the mean (x_t - beta eps / sqrt(1 - abar)) / sqrt(alpha), q with
the true noise and p with the predicted one. A difference of means is therefore a difference of eps, not cancelled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mar.core.devices import back, double
from mar.core.errors import UserError

NoiseSchedule = Literal["cosine", "linear"]
LastTerm = Literal["gaussian", "discretised"]

_LARGEST_BETA = 0.999  # keeps the last timesteps of the cosine schedule away from a division by zero
_LEAST_SIGNAL = 1e-4  # abar below which a timestep says nothing about x_0 any more


def betas(schedule: NoiseSchedule, total: int) -> Tensor:
    """beta_T (float64) of the training chain: linear (Ho et al. 2020) or cosine (Nichol & Dhariwal 2021, eq. 17)."""
    if schedule == "linear":
        scale = 1000 / total
        return torch.linspace(scale * 1e-4, scale * 0.02, total, dtype=torch.float64).clamp(max=_LARGEST_BETA)
    time = torch.arange(total + 1, dtype=torch.float64) / total
    abar = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - abar[1:] / abar[:-1]).clamp(max=_LARGEST_BETA)


def spaced_timesteps(total: int, count: int, trailing: bool = False) -> list[int]:
    """Return ``count`` of the timesteps 0..total-1, evenly spaced.

    With both ends (improved-diffusion's respacing), or ``trailing``: back from the last (Lin et al. 2024, table 2), so
    that the first is total / count - 1 and a solver's last step to x_0 is as long as the others.
    """
    if not 2 <= count <= total:
        raise UserError(f"a chain of {count} timesteps cannot be cut from {total}: choose 2 to {total}")
    if trailing:
        return [round((index + 1) * total / count) - 1 for index in range(count)]
    # Summed, not multiplied: the accumulated rounding decides ties, and published chains were spaced that way.
    stride = (total - 1) / (count - 1)
    return [round(position) for position in accumulate([0.0] + [stride] * (count - 1))]


def section_counts(text: str) -> tuple[int, ...]:
    """Return the counts of a respacing ``10,15,20``; none of ``ddim50``. Raise UserError: it is neither."""
    if not re.fullmatch(r"ddim\d{1,6}|\d{1,6}(,\d{1,6})*", text):
        raise UserError(f"a respacing is written ddim50, or as counts of equal sections, 10,15,20, not {text!r}")
    return () if text.startswith("ddim") else tuple(map(int, text.split(",")))


def respaced_timesteps(total: int, text: str) -> list[int]:
    """Return the timesteps of 0..total-1 that improved-diffusion's ``space_timesteps`` keeps.

    ``ddim50``: every stride-th from 0, of the smallest stride that gives 50 (Song et al. 2021). ``10,15,20``: 10, 15
    and 20 of the first, second and last third, each with both ends; where ``total`` does not divide, the first parts
    are longer by one. Raise UserError: there is no such stride, or a part is too short.
    """
    counts = section_counts(text)
    if not counts:
        count, strides = int(text[len("ddim") :]), {}
        for stride in range(1, total):
            strides.setdefault(len(range(0, total, stride)), stride)
        if count not in strides:
            nearest = min(strides, key=lambda other: abs(other - count))
            raise UserError(f"no stride gives {count} of {total} timesteps: choose ddim{nearest}")
        return list(range(0, total, strides[count]))
    short, longer = divmod(total, len(counts))
    chosen, start = [], 0
    for part, count in enumerate(counts):
        size = short + (part < longer)
        if count > size:
            raise UserError(f"respacing {text}: a part of {size} timesteps has no {count}")
        few = [0] * count  # of one timestep, the first
        chosen += [start + offset for offset in (spaced_timesteps(size, count) if count > 1 else few)]
        start += size
    return chosen


class Coefficients(NamedTuple):
    """Of one timestep: numbers, or one for each row, shape (N, 1)."""

    signal: Tensor | float  # sqrt(abar): x_t = signal x_0 + noise eps
    noise: Tensor | float  # sqrt(1 - abar)
    grow: Tensor | float  # 1 / sqrt(alpha): mean of x_{t-1} = grow x_t - gain eps
    gain: Tensor | float  # beta / sqrt(alpha (1 - abar))
    log_smallest: Tensor | float  # log of the variance of q(x_{t-1} | x_t, x_0), the least that p can need
    log_largest: Tensor | float  # log beta, the most


class Process:
    """A chain over chosen timesteps of the training chain; ``index`` 0..T-1 counts the chosen ones, least noise first.

    Attributes:
        timesteps: the chosen timesteps, increasing: what the network is told.
        table, alpha_bar, betas: the rows of ``Coefficients``, (6, T); of the chosen timesteps, (T,); float64.
    """

    def __init__(self, schedule: NoiseSchedule, total: int, timesteps: Sequence[int] | None = None) -> None:
        self.timesteps = list(range(total)) if timesteps is None else list(timesteps)
        ascending = all(a < b for a, b in pairwise(self.timesteps))
        if len(self.timesteps) < 2 or not ascending or self.timesteps[0] < 0 or self.timesteps[-1] >= total:
            raise UserError(f"timesteps must be two or more increasing numbers in 0..{total - 1}: {self.timesteps}")
        abar = torch.cumprod(1 - betas(schedule, total), 0)[self.timesteps]
        before = torch.cat([abar.new_ones(1), abar[:-1]])
        alpha = abar / before
        beta = 1 - alpha
        variance = beta * (1 - before) / (1 - abar)
        variance[0] = variance[1]  # zero otherwise: q(x_0 | x_1, x_0) is a point, p(x_0 | x_1) is not
        gain = beta / (alpha * (1 - abar)).sqrt()
        self.table = torch.stack([abar.sqrt(), (1 - abar).sqrt(), alpha.rsqrt(), gain, variance.log(), beta.log()])
        self.betas = beta
        self.alpha_bar = abar
        self._tables: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def start(self) -> int:
        """The noisiest index that still has a signal: abar >= 1e-4.

        From pure noise, a step multiplies the error of eps by 1 / sqrt(alpha): 350 for the first of 100 steps of the
        cosine chain, whose samples explode unless the network is very well trained. Starting from N(0, 1) here instead
        costs KL(q(x_t | x_0) || N(0, 1)), 5e-5 nats for a channel of unit variance.
        """
        return max(1, int((self.table[0].square() >= _LEAST_SIGNAL).sum()) - 1)

    def stratified(self, uniform_MJ: Tensor) -> tuple[Tensor, Tensor]:
        """Return index_MJ > 0 and weight_MJ (float64): J terms whose weighted sum estimates all but index 0's.

        One from each of J strata of equal share of the chain's log signal-to-noise ratio, a term as likely as its own
        share is large, weighted by the inverse of its expected count: unbiased for any network. A term is about half
        its share times the squared error of eps (Kingma et al. 2021, eq. 13), so that the weighted terms are alike.
        """
        u_MJ, device = double(uniform_MJ), uniform_MJ.device
        log_snr_T = 2 * (self.table[0].log() - self.table[1].log()).to(u_MJ.device)
        share_T = (log_snr_T[:-1] - log_snr_T[1:]) / (log_snr_T[0] - log_snr_T[-1])
        strata = uniform_MJ.shape[1]
        place_MJ = (torch.arange(strata, device=u_MJ.device) + u_MJ) / strata
        index_MJ = torch.searchsorted(share_T.cumsum(0), place_MJ, right=True).clamp(max=len(share_T) - 1)
        return index_MJ.to(device) + 1, back(1 / (strata * share_T[index_MJ]), device)

    def at(self, index: int | Tensor) -> Coefficients:
        """Return the coefficients at one index (numbers), or at one index for each row ((N, 1) float32)."""
        if not isinstance(index, Tensor):
            return Coefficients(*self.table[:, index].tolist())
        if index.device not in self._tables:
            self._tables[index.device] = back(self.table, index.device)
        return Coefficients(*self._tables[index.device][:, index].float()[..., None])

    def diffuse(self, x_0_NE: Tensor, eps_NE: Tensor, index: int | Tensor) -> Tensor:
        """Return x_t ~ q(x_t | x_0) for standard normal ``eps``."""
        c = self.at(index)
        return c.signal * x_0_NE + c.noise * eps_NE

    def reverse(self, x_t_NE: Tensor, eps_NE: Tensor, range_NE: Tensor, index: int | Tensor) -> tuple[Tensor, Tensor]:
        """mean_NE and log_variance_NE of p(x_{t-1} | x_t) from the network's two outputs.

        ``range`` -1 is the smallest variance that p can need, +1 the largest (Nichol & Dhariwal 2021, eq. 15).
        """
        c = self.at(index)
        share_NE = (range_NE + 1) / 2
        log_variance_NE = share_NE * c.log_largest + (1 - share_NE) * c.log_smallest
        return c.grow * x_t_NE - c.gain * eps_NE, log_variance_NE

    def step(self, x_t_NE: Tensor, eps_NE: Tensor, range_NE: Tensor, index: int, noise_NE: Tensor | None) -> Tensor:
        """Return x_{t-1} ~ p(x_{t-1} | x_t); the mean itself when ``noise_NE`` is None, as it is used at index 0."""
        mean_NE, log_variance_NE = self.reverse(x_t_NE, eps_NE, range_NE, index)
        return mean_NE if noise_NE is None else mean_NE + (0.5 * log_variance_NE).exp() * noise_NE

    def bound_terms(
        self,
        x_0_NE: Tensor,
        true_eps_NE: Tensor,
        eps_NE: Tensor,
        range_NE: Tensor,
        index_N: Tensor,
        last_term: LastTerm = "gaussian",
    ) -> Tensor:
        """Return nats_NE: a term of the bound for each row (Ho et al. 2020, eq. 5); x_t = diffuse(x_0, true_eps).

        Index > 0: KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)). Index 0: -log p(x_0 | x_1), a Gaussian density, or
        for 8-bit pixels in [-1, 1] the probability of its 256-level bin ("discretised").
        """
        c = self.at(index_N)
        x_t_NE = self.diffuse(x_0_NE, true_eps_NE, index_N)
        mean_NE, log_variance_NE = self.reverse(x_t_NE, eps_NE, range_NE, index_N)
        square_NE = (c.gain * (true_eps_NE - eps_NE)).square()
        scaled_NE = square_NE * (-log_variance_NE).exp()
        excess_NE = log_variance_NE - c.log_smallest
        kl_NE = 0.5 * (excess_NE + (-excess_NE).exp() - 1 + scaled_NE)
        if last_term == "gaussian":
            last_NE = 0.5 * (math.log(2 * math.pi) + log_variance_NE + scaled_NE)
        else:
            last_NE = discretised_nats(x_0_NE, mean_NE, 0.5 * log_variance_NE)
        return torch.where(index_N[:, None] == 0, last_NE, kl_NE)

    def prior_nats(self, x_0_NE: Tensor) -> Tensor:
        """Return nats_NE (float64): KL(q(x_T | x_0) || N(0, 1)), the term of the bound that nothing can learn."""
        last = float(self.alpha_bar[-1])
        variance = 1 - last
        return 0.5 * (variance - 1 - math.log(variance) + last * double(x_0_NE).square())


def discretised_nats(x_NE: Tensor, mean_NE: Tensor, log_scale_NE: Tensor) -> Tensor:
    """Return nats_NE: -log of a Gaussian's mass in the bin of x among 256 levels on [-1, 1], the outer bins open.

    The normal distribution function is the tanh approximation that published numbers use. No density bound for
    anything but 8-bit pixels.
    """
    scale_NE = (-log_scale_NE).exp()
    above_NE = _normal_cdf(scale_NE * (x_NE - mean_NE + 1 / 255))
    below_NE = _normal_cdf(scale_NE * (x_NE - mean_NE - 1 / 255))
    above_NE = torch.where(x_NE > 0.999, 1.0, above_NE)
    below_NE = torch.where(x_NE < -0.999, 0.0, below_NE)
    return -(above_NE - below_NE).clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
