"""What generating tokens in parallel costs a model: the expected NLL of every token after every number of known ones.

B batch · L tokens · M gathered tokens · R (image, known) pairs · S numbers of known tokens

One forward pass with all unknown tokens as targets after s known ones gives a whole row of the costs, so that all sets
of all schedules cost L passes per image, one for each s.

The known tokens stand in the plan one at a time. A network that needs a pass per step only sees which tokens are known,
so its costs are exact for every schedule. A one-pass network may also see how the known tokens were grouped: its costs
are exact for one token at a time, and near it for small sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from mar.errors import UserError
from mar.likelihood.chain import CPU_BUDGET, GPU_BUDGET, rows_in_budget
from mar.model import Model
from mar.noise import Noise, stream
from orderings import Grid, Ordering, describe
from orderings.set_costs import SetCosts
from orderings.stochastic import Random

Progress = Callable[[int, int], None]

_IMAGES = 256  # at a time; the memory budget cuts these further


@torch.no_grad()
def measure_set_costs(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    ordering: Ordering,
    seed: int = 0,
    kind: str | None = None,
    budget: int | None = None,
    progress: Progress | None = None,
) -> SetCosts:
    """The costs of all sets under ``ordering``, on the mean over ``images`` (N, C, H, W), in the data set's levels.

    Image k has the order and the noise that ``score`` gives example k for the same seed: one order for all its numbers
    of known tokens, so that differences between those are less noisy than each.

    Args:
        model: in evaluation mode.
        kind: one of the head's likelihoods; None: its default.
        budget: bytes of activations; None: what suits the device.
        progress: called with (rows done, rows in all).

    Raises:
        UserError: fewer than two images.
        Unsupported: the head has no likelihood of this kind, or the ordering cannot serve the grid.
    """
    if len(images) < 2:
        raise UserError(f"set costs want at least 2 images, not {len(images)}")
    grid, kind = Grid(model.tokenizer.shape), model.head.check_kind(kind)
    device = next(model.parameters()).device
    labels = torch.full((len(images),), -1) if labels is None else labels
    sums = _Sums(len(grid), len(images) * len(grid), device, progress)
    for index in torch.arange(len(images)).split(_IMAGES):
        noise = stream(seed, "nll", index, device)
        rank_BL = ordering.ranks(grid, len(index), noise.at("order").to("cpu")).to(device)
        token = model.tokenizer.encode(images[index].to(device), noise.at("dequantise"))
        _measure(model, token, rank_BL, labels[index].to(device), noise.at("head"), kind, budget, sums)
    mean_NS, uniform = torch.cat(sums.means).cpu(), isinstance(ordering, Random)
    total_SL = (sums.total_SL / len(images)).round(decimals=7).tolist()
    return SetCosts(
        ordering=describe(ordering),
        grid=str(grid),
        uniform=uniform,
        nats=mean_NS.mean(0).tolist() if uniform else [row[s:] for s, row in enumerate(total_SL)],
        standard_error_nats=(mean_NS.std(0) / math.sqrt(len(images))).tolist(),
        n_images=len(images),
        provenance={"kind": kind, "seed": seed},
    )


class _Sums:
    """What is kept of all pairs: the sum over images by (known, rank), and each image's mean over its unknown tokens."""

    def __init__(self, n_tokens: int, rows: int, device: torch.device, progress: Progress | None) -> None:
        self.total_SL = torch.zeros(n_tokens, n_tokens, dtype=torch.float64, device=device)
        self.means: list[torch.Tensor] = []
        self.rows, self.done, self.progress = rows, 0, progress

    def advance(self, rows: int) -> None:
        self.done += rows
        if self.progress is not None:
            self.progress(self.done, self.rows)


def _measure(
    model: Model,
    token: torch.Tensor,
    rank_BL: torch.Tensor,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str,
    budget: int | None,
    sums: _Sums,
) -> None:
    """Every (image, known) pair of a batch, by known, so that the pairs of a pass know about equally many tokens."""
    batch, n_tokens = rank_BL.shape
    rows = rows_in_budget(model, budget or (CPU_BUDGET if token.device.type == "cpu" else GPU_BUDGET))
    rows = 1 if model.network.shares_plan else rows  # every pair has its own plan
    pairs = torch.arange(batch * n_tokens, device=token.device)
    condition_BC, mean_SB = model.condition(label_B), sums.total_SL.new_zeros(n_tokens, batch)
    for pair_R in pairs.split(rows):
        image_R, known_R = pair_R % batch, pair_R // batch
        rank_RL = rank_BL[image_R]
        target_RL = rank_RL >= known_R[:, None]
        step_RL = torch.minimum(rank_RL, known_R[:, None])
        z_MD = model.context(token[image_R], step_RL, condition_BC[image_R], target_RL)
        row_M, token_M = target_RL.nonzero(as_tuple=True)
        streams = noise.tokens(image_R[row_M], token_M)
        nats_M = -model.head.log_prob(z_MD, token[image_R][target_RL], kind, streams).nats_M.double()
        sums.total_SL.view(-1).index_add_(0, known_R[row_M] * n_tokens + rank_RL[target_RL], nats_M)
        mean_SB.view(-1).index_add_(0, pair_R[row_M], nats_M / (n_tokens - known_R[row_M]))
        sums.advance(len(pair_R))
    sums.means.append(mean_SB.T)
