"""What locally masked convolutions promise beyond the contract that every network is tested for.

B batch · L tokens · K offsets · D width · C condition width · M gathered tokens
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.networks.base import ABSENT, GIVEN
from mar.networks.masked_convolution import LocalConvolution, MaskedConvolution, MaskedConvolutionOptions, Queries

PLAIN = MaskedConvolutionOptions(width=6, depth=2, first_kernel=3, token_width=2, condition_width=4)
OPTIONS = {
    "plain": PLAIN,
    "wide": replace(PLAIN, first_kernel=5, depth=3, dilations=(1, 2)),
    "renormalised": replace(PLAIN, renormalise=True),
}
SHAPES = [(12,), (5, 6), (2, 3, 3)]
BATCH = 4


def build(shape: tuple[int, ...] = (5, 6), options: str = "plain") -> MaskedConvolution:
    torch.manual_seed(0)
    network = MaskedConvolution(shape, OPTIONS[options])
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network.eval()


def inputs(network: MaskedConvolution, n_tokens: int):
    torch.manual_seed(1)
    step_BL = torch.stack([torch.randperm(n_tokens) // (1 + b % 3) for b in range(BATCH)]) - 2
    step_BL = step_BL.clamp(min=GIVEN)
    step_BL[2, torch.randperm(n_tokens)[: n_tokens // 4]] = ABSENT
    return torch.randn(BATCH, n_tokens, network.token_width), step_BL, torch.randn(BATCH, network.condition_width)


def scored(step_BL: torch.Tensor) -> torch.Tensor:
    return (step_BL > GIVEN) & (step_BL < ABSENT)


def masked_conv2d(layer: LocalConvolution, x_BIHW: torch.Tensor, kernel: int, centre: bool) -> torch.Tensor:
    """PixelCNN's: one raster-masked kernel for all locations; what is outside the grid adds no bias of its offset."""
    K, before = kernel**2, kernel**2 // 2 + centre
    weight = layer.kernels.weight.unflatten(1, (K, -1)).clone()  # O, K, I
    weight[:, before:] = 0
    seen = layer.seen.weight.clone()
    seen[:, before:] = 0
    weight, seen = weight.mT.unflatten(2, (kernel, kernel)), seen[:, None].unflatten(2, (kernel, kernel))
    ones = torch.ones_like(x_BIHW[:, :1])
    y = F.conv2d(x_BIHW, weight, layer.kernels.bias, padding=kernel // 2)
    return y + F.conv2d(ones, seen, padding=kernel // 2)


@torch.no_grad()
def test_one_token_at_a_time_in_raster_order_it_is_a_gated_pixel_cnn():
    network, H, W = build((5, 6)), 5, 6
    token_BLD, _, condition_BC = inputs(network, H * W)
    step_BL = torch.arange(H * W).expand(BATCH, -1)
    z_MD = network(token_BLD, step_BL, condition_BC, step_BL >= 0)
    h = masked_conv2d(network.first, token_BLD.mT.unflatten(2, (H, W)), 3, centre=False)
    h = h.flatten(2).mT + network.position()
    for block in network.blocks:
        y = masked_conv2d(block.convolution, block.norm(h).mT.unflatten(2, (H, W)), 3, centre=True).flatten(2).mT
        f, g = (y + block.condition(condition_BC)[:, None]).chunk(2, dim=-1)
        h = h + block.mix(f.tanh() * g.sigmoid())
    torch.testing.assert_close(z_MD, network.norm(h).flatten(0, 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
@torch.no_grad()
def test_the_cache_changes_nothing_and_nothing_unknown_is_touched(shape, options):
    network = build(shape, options)
    token_BLD, step_BL, condition_BC = inputs(network, network.position().shape[0])
    all_BL = scored(step_BL)
    z_MD = network(token_BLD, step_BL, condition_BC, all_BL)
    state = network.begin(condition_BC, step_BL == ABSENT)
    for step in range(GIVEN, int(step_BL[all_BL].max()) + 1):
        now_BL, past_BLD = step_BL == step, torch.where((step_BL < step)[..., None], token_BLD, torch.nan)
        if step > GIVEN:
            got_MD = network(past_BLD, step_BL, condition_BC, now_BL)
            torch.testing.assert_close(got_MD, z_MD[now_BL[all_BL]], atol=1e-4, rtol=1e-4)
            unknown_BL = all_BL & (step_BL >= step)
            for asked_BL in (unknown_BL, now_BL):
                got_MD = network.query(state, asked_BL)[now_BL[asked_BL]]
                torch.testing.assert_close(got_MD, z_MD[now_BL[all_BL]], atol=1e-4, rtol=1e-4)
        state = network.observe(state, torch.where(now_BL[..., None], token_BLD, torch.nan), now_BL)


@torch.no_grad()
def test_generation_computes_each_location_twice_at_most():
    network = build()
    token_BLD, _, condition_BC = inputs(network, 30)
    step_BL = torch.arange(30).expand(BATCH, -1)
    computed = []
    network.blocks[0].mix.register_forward_hook(lambda _, args, out: computed.append(len(args[0])))
    state = network.begin(condition_BC, step_BL == ABSENT)
    state = network.observe(state, token_BLD, step_BL < 0)
    for step in range(30):
        network.query(state, step_BL == step)  # to draw
        state = network.observe(state, token_BLD, step_BL == step)  # to keep
    assert sum(computed) == 2 * BATCH * 30


def reads(network: MaskedConvolution, step_L: torch.Tensor, target: int) -> torch.Tensor:
    """(L,) bool: the tokens that a context depends on."""
    token_BLD = torch.randn(1, len(step_L), network.token_width, requires_grad=True)
    target_BL = torch.arange(len(step_L))[None] == target
    z_MD = network(token_BLD, step_L[None], torch.randn(1, network.condition_width), target_BL)
    (grad_BLD,) = torch.autograd.grad(z_MD.square().sum(), token_BLD)
    return (grad_BLD[0] != 0).any(-1)


def test_the_receptive_field_is_local_and_given_tokens_see_each_other():
    network = build((12,))  # first kernel 3, two blocks of kernel 3: three tokens to the left
    assert reads(network, torch.arange(12), 8).nonzero()[:, 0].tolist() == [5, 6, 7]
    step_L = torch.where(torch.arange(12) < 8, GIVEN, torch.arange(12) - 8)
    assert reads(network, step_L, 8).nonzero()[:, 0].tolist() == [5, 6, 7]
    backwards_L = torch.where(torch.arange(12) > 3, GIVEN, 3 - torch.arange(12))
    assert reads(network, backwards_L, 3).nonzero()[:, 0].tolist() == [4, 5, 6]
    wide = build((12,), "wide")  # 2 + 1 + 2 + 1
    assert reads(wide, torch.arange(12), 8).nonzero()[:, 0].tolist() == [2, 3, 4, 5, 6, 7]


def test_tokens_of_one_step_are_no_relay():
    network = build((12,))
    # token 5 asks; 4 is of the same step, so that 3 is seen through nobody
    step_L = torch.tensor([0, 1, 2, 3, 9, 9, *[20] * 6])
    assert not reads(network, step_L, 5).any()
    step_L[4] = 8
    assert reads(network, step_L, 5).nonzero()[:, 0].tolist() == [2, 3, 4]


@torch.no_grad()
def test_renormalised_sums_are_means_over_what_is_seen():
    layer = LocalConvolution((6, 6), 3, 4, kernel=3, dilation=1, own=True, renormalise=True)
    torch.nn.init.constant_(layer.kernels.weight, 0.5)
    torch.nn.init.zeros_(layer.kernels.bias)
    torch.nn.init.zeros_(layer.seen.weight)
    network = build(options="renormalised")
    assert network.first.renormalise and all(block.convolution.renormalise for block in network.blocks)
    step_BL = torch.stack([torch.randperm(36), torch.arange(36)])
    row_M, token_M = torch.ones(2, 36).nonzero(as_tuple=True)
    y_MO = layer(torch.ones(2, 36, 3), Queries(step_BL, row_M, token_M, step_BL.flatten()))
    torch.testing.assert_close(y_MO, torch.full_like(y_MO, 9 * 3 * 0.5))


def test_gradients_reach_every_parameter():
    network = build().train()
    token_BLD, step_BL, condition_BC = inputs(network, 30)
    network(token_BLD, step_BL, condition_BC, scored(step_BL)).pow(3).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    "wrong", [{"kernel": 4}, {"first_kernel": 0}, {"dilations": ()}, {"dropout": 1.0}, {"width": 0}]
)
def test_impossible_numbers_are_refused_in_one_line(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))) as error:
        replace(MaskedConvolutionOptions(), **wrong)
    assert "\n" not in str(error.value)
