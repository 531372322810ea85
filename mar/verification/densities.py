"""Contract tests of a head for continuous tokens of one channel: its density on the whole line.

M gathered tokens · D context width · N points or draws
"""

from __future__ import annotations

import numpy as np
import torch

from mar.heads.base import Head
from mar.noise import stream
from mar.verification.cases import DRAWS, WIDTH, HeadCase, normal, streams
from mar.verification.statistics import ALPHA, p_value
from mar.verification.verdict import claim, require

_BOUND_DRAWS = 50  # evaluations of a stochastic bound that are averaged before exponentiation
_MASS_TOLERANCE = {"exact": 1e-3, "ode": 5e-3}


def fit(head: Head, iterations: int = 300, batch: int = 64) -> Head:
    """The head trained for a few seconds on a standard normal, whatever the context: a bound of random weights is so
    loose that it shows nothing."""
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, iterations)
    for iteration in range(iterations):
        z_MD, x_M1 = (normal(iteration, f"fit/{what}", batch, n) for what, n in (("context", WIDTH), ("value", 1)))
        optimiser.zero_grad()
        head.loss(z_MD, x_M1, stream(iteration, "verify/fit", batch)).mean().backward()
        optimiser.step()
        schedule.step()
    head.zero_grad()
    return head


@torch.no_grad()
def _density(of: HeadCase, m: int, kind: str, x_N: torch.Tensor, draws: int = 1) -> torch.Tensor:
    """The density of context m at points x_N; for a bound, the exponential of its mean over draws of noise."""
    nats_N = torch.zeros(len(x_N), dtype=torch.float64)
    for draw in range(draws):
        z_ND = of.z_MD[m : m + 1].expand(len(x_N), -1)
        noise = streams(len(x_N)).at(f"point {draw}")
        nats_N += of.head.log_prob(z_ND, x_N[:, None].float(), kind, noise).nats_M.double()
    return (nats_N / draws).exp()


def _support(of: HeadCase, m: int, kind: str, points: int) -> torch.Tensor:
    """Evenly spaced points over all places where the density is not negligible."""
    wide_N = torch.linspace(-8.0, 8.0, 533, dtype=torch.float64).sinh()  # -1500 to 1500, finest at zero
    density_N = _density(of, m, kind, wide_N, draws=4)
    sound = bool(density_N.isfinite().all()) and float(density_N.max()) > 0
    require(sound, f"context {m}: the density is 0 or infinite")
    inside = (density_N > 1e-9 * density_N.max()).nonzero()[:, 0]
    low, high = max(0, int(inside[0]) - 1), min(len(wide_N) - 1, int(inside[-1]) + 1)
    return torch.linspace(float(wide_N[low]), float(wide_N[high]), points, dtype=torch.float64)


@claim("the density integrates to 1")
def integrates_to_one(of: HeadCase, kind: str) -> str:
    masses = []
    for m in range(3):
        x_N = _support(of, m, kind, points=4001)
        masses.append(float(torch.trapezoid(_density(of, m, kind, x_N), x_N)))
        off = abs(masses[-1] - 1)
        require(off < _MASS_TOLERANCE[kind], f"context {m}: the density integrates to {masses[-1]:.5f}")
    return ", ".join(f"{mass:.5f}" for mass in masses)


@claim("a bound lies below a density: its exponential integrates to at most 1")
def bound_is_below(of: HeadCase) -> str:
    masses = []
    for m in range(3):
        x_N = _support(of, m, "bound", points=201)
        masses.append(float(torch.trapezoid(_density(of, m, "bound", x_N, _BOUND_DRAWS), x_N)))
        require(masses[-1] < 1.01, f"context {m}: exp of the bound integrates to {masses[-1]:.4f}")
    return f"{', '.join(f'{mass:.2f}' for mass in masses)} after a few seconds of training"


@claim("samples follow the density (chi-square)")
@torch.no_grad()
def sampler_agrees_with_density(of: HeadCase) -> str:
    smallest = 1.0
    for m in range(3):
        x_N = _support(of, m, "exact", points=4001).numpy()
        density_N = _density(of, m, "exact", torch.from_numpy(x_N)).numpy()
        cdf_N = np.append(0.0, np.cumsum(np.diff(x_N) * (density_N[1:] + density_N[:-1]) / 2))
        edges = np.interp(np.linspace(0, 1, 21)[1:-1], cdf_N / cdf_N[-1], x_N)  # twenty bins of equal probability
        draws = of.head.sample(of.z_MD[m : m + 1].expand(DRAWS, -1), streams(DRAWS))[:, 0].double().numpy()
        count = np.bincount(np.searchsorted(edges, draws), minlength=20)
        smallest = min(smallest, p_value(count, np.full(20, 0.05)))
    require(smallest > ALPHA / 3, f"smallest p-value {smallest:.1e} over 3 contexts")
    return f"3 contexts of {DRAWS} draws, smallest p-value {smallest:.2g}"
