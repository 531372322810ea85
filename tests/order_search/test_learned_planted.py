"""A planted case in which the order matters: a network of too little capacity for most orders.

L tokens
"""

from __future__ import annotations

import math

import torch

from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.model.policy import OrderPolicy
from mar.networks.base import Network
from mar.order_search.learned import negative_bound, policy_of
from tests.order_search.test_learned import bound_of, with_policy


class SeesTheFirstOnly(Network):
    """A network of too little capacity: all it ever reads is the token at position 0."""

    def __init__(self, shape: tuple[int, ...], width: int = 8) -> None:
        super().__init__()
        self.token_width = self.condition_width = self.context_width = width
        self.position = torch.nn.Parameter(torch.randn(math.prod(shape), width))
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(2 * width, 32), torch.nn.SiLU(), torch.nn.Linear(32, width), torch.nn.LayerNorm(width)
        )

    def forward(self, token_BLD, step_BL, condition_BC, target_BL):
        now_B1 = torch.where(target_BL, step_BL, 2**30).amin(1, keepdim=True)
        seen_BD = torch.where(step_BL[:, :1] < now_B1, token_BLD[:, 0], 0.0)
        row, place = target_BL.nonzero(as_tuple=True)
        return self.mlp(torch.cat([self.position[place], seen_BD[row]], dim=1))


def test_where_the_order_matters_the_learned_one_finds_it_and_beats_random_orders():
    """Three copies of a fair bit at position 0. First, it costs log 2 in all; each copy before it costs another."""
    torch.manual_seed(0)
    n_tokens, rows = 4, 256
    model = with_policy(SeesTheFirstOnly((n_tokens,)), n_tokens, 2, scale=0.0).train()
    torch.nn.init.normal_(next(model.embedding.parameters()))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for iteration in range(250):
        noise = stream(0, "train", torch.arange(rows) + rows * iteration)
        x = (noise.uniform(1) < 0.5).long().expand(-1, n_tokens)
        known = (noise.at("k").uniform(1)[:, 0] * n_tokens).long()
        loss = negative_bound(model, x, model.null_condition(rows), known, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    images = torch.tensor([[0] * n_tokens, [1] * n_tokens]).repeat(64, 1)
    bound = bound_of(model, images).nats_per_image
    best = math.log(2.0)
    random_orders = best * (1 + (n_tokens - 1) / 2)  # at best: on average half of the copies come before the bit
    assert bound < best + 0.1
    assert bound < random_orders - 0.9
    unknown_BL = images >= 0
    z_MD = model.context(images, torch.zeros_like(images), model.null_condition(len(images)), unknown_BL)
    first = policy_of(model).next_logits(z_MD, unknown_BL).softmax(1).detach()
    assert float(first[:, 0].min()) > 0.95


def test_an_untrained_posterior_tells_positions_and_examples_apart():
    """Its logits are zero, but a step of training moves them by what reaches the last layer, which must not be flat."""
    torch.manual_seed(0)
    policy = OrderPolicy(64, Categories(17), context_width=64, width=64, condition_width=64)
    seen: list[torch.Tensor] = []
    policy.posterior.norm.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    token = torch.randint(17, (32, 64), generator=torch.Generator().manual_seed(0))
    logits = policy.order_logits(token, torch.zeros(32, 64))
    assert bool((logits == 0).all()), "uniform orders"
    assert float(seen[0].std(1).mean()) > 0.3
    assert float(seen[0].std(0).mean()) > 0.2
