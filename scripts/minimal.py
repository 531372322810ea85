"""Train, sample and score in one file, with the project's own classes and no run folder: ``python scripts/minimal.py``.

Read it beside docs/concepts.md. ``mar train``, ``mar sample`` and ``mar score nll`` add checkpoints, averaged weights,
several processes and resuming.

B batch · L tokens · M gathered tokens · D context width
"""

from __future__ import annotations

import argparse
import math

import torch

from mar.core.noise import Noise, stream
from mar.core.tokens import Categories
from mar.data.digits import Digits
from mar.heads.categorical import CategoricalHead
from mar.model.model import Model
from mar.networks.masked_transformer import MaskedTransformer
from mar.tokenizers.levels import Pixels
from orderings import Grid, Plan, PlanSpec

SEED = 0


def build_model(spec) -> Model:
    """Tokenizer, network and head of the recipe ``digits``: categorical pixels, a masked Transformer."""
    torch.manual_seed(SEED)
    tokenizer = Pixels(spec, Pixels.Options())
    network = MaskedTransformer(tokenizer.shape, MaskedTransformer.Options(size="tiny"))
    assert isinstance(tokenizer.token, Categories)
    head = CategoricalHead(network.context_width, tokenizer.token, CategoricalHead.Options())
    return Model(tokenizer, network, head, spec.n_classes)


def draw_plan(text: str, grid: Grid, noise: Noise) -> Plan:
    """One plan per stream of noise, from ``ordering/partition``."""
    ordering, partition = PlanSpec.parse(text)
    return Plan.sample(ordering, partition, grid, len(noise), noise.at("order"))


def training_loss(model: Model, x: torch.Tensor, label_B: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Estimate the mean NLL over random orders, in nats per token (Uria et al. 2014).

    k tokens are known, k uniform over 0..L-1; all unknown tokens are targets with weight L / (L - k).
    """
    token = model.tokenizer.encode(x)
    n_tokens = token.shape[1]
    plan = draw_plan("random/singles", Grid(model.tokenizer.shape), noise)
    known_B = (noise.at("known").uniform(1)[:, 0] * n_tokens).long().clamp(max=n_tokens - 1)
    target_BL = plan.rank_BL >= known_B[:, None]
    step_BL = torch.where(target_BL, 0, -1)  # GIVEN where known, one common step for all targets
    drop_B = noise.at("label-drop").uniform(1)[:, 0] < 0.1  # trains the null condition for guidance
    z_MD = model.context(token, step_BL, model.condition(label_B, drop_B), target_BL)
    row_M, token_M = target_BL.nonzero(as_tuple=True)
    loss_M = model.head.loss(z_MD, token[target_BL], noise.at("head").tokens(row_M, token_M))
    weight_B = n_tokens / (n_tokens - known_B)
    return (loss_M * weight_B[row_M]).sum() / token.numel()


def train(model: Model, split, iterations: int, batch_size: int = 128) -> None:
    """Plain AdamW with a cosine schedule."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=iterations + 1, pct_start=0.05)
    for iteration in range(iterations):
        noise = stream(SEED, "train", torch.arange(batch_size) + iteration * batch_size)
        index_B = (noise.at("example").uniform(1)[:, 0] * len(split)).long()
        x, label_B = split.batch(index_B)
        loss = training_loss(model, x, label_B, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()
        schedule.step()
        if iteration % 50 == 0 or iteration == iterations - 1:
            print(f"iteration {iteration:5d}  loss {loss.item():.3f} nats/token")


@torch.no_grad()
def sample(model: Model, text: str, label_B: torch.Tensor) -> torch.Tensor:
    """Draw images along a plan: query the head, draw the set, observe it."""
    model.eval()
    noise = stream(SEED, "sample", len(label_B))
    plan = draw_plan(text, Grid(model.tokenizer.shape), noise)
    token = torch.zeros_like(plan.step_BL)
    none_BL = torch.zeros_like(token, dtype=torch.bool)
    state = model.network.begin(model.condition(label_B), none_BL)
    state = model.network.observe(state, model.embedding(token), none_BL)  # nothing is given
    for step in range(int(plan.n_steps_B.max())):
        target_BL = plan.target(step)
        z_MD = model.network.query(state, target_BL)
        token[target_BL] = model.head.sample(z_MD, noise.at("draw").tokens(*target_BL.nonzero(as_tuple=True)))
        state = model.network.observe(state, model.embedding(token), target_BL)
    return model.tokenizer.decode(token)


@torch.no_grad()
def score(model: Model, text: str, x: torch.Tensor, label_B: torch.Tensor) -> tuple[float, float]:
    """Return exact bits/dim along a plan, and its standard error over images: the same steps, read instead of drawn."""
    model.eval()
    noise = stream(SEED, "score", len(x))
    plan = draw_plan(text, Grid(model.tokenizer.shape), noise)
    token = model.tokenizer.encode(x)
    nats_B = torch.zeros(len(x), dtype=torch.float64)
    for step in range(int(plan.n_steps_B.max())):
        target_BL = plan.target(step)
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        z_MD = model.context(token, plan.step_BL, model.condition(label_B), target_BL)
        log_p = model.head.log_prob(z_MD, token[target_BL], "exact", noise.at("head").tokens(row_M, token_M))
        nats_B.index_add_(0, row_M, -log_p.nats_M.double())
    bits_B = nats_B / math.log(2) / model.tokenizer.dimensions
    return bits_B.mean().item(), (bits_B.std() / math.sqrt(len(x))).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--iterations", type=int, default=400, help="the recipe digits takes 2000")
    parser.add_argument("--images", type=int, default=100, help="test images to score")
    options = parser.parse_args()
    data = Digits.load(Digits.Options())
    model = build_model(data.spec)
    train(model, data.train, options.iterations)
    image = sample(model, "hilbert/cosine:16", torch.tensor([3]))[0, 0]
    print("\n".join("".join(" .:-=+*#%@"[min(9, int(v) * 10 // 17)] * 2 for v in row) for row in image))
    x, label_B = data.test.batch(torch.arange(options.images))
    assert label_B is not None
    for text in ("random/singles", "raster/singles", "random/cosine:16", "raster/cosine:16"):
        mean, error = score(model, text, x, label_B)
        print(f"{text:18s} {mean:.3f} ± {error:.3f} bits/dim")


if __name__ == "__main__":
    main()
