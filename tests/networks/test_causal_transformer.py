"""What the causal Transformer promises beyond the contract that every network is tested for.

B batch · L tokens · D width · C condition width · M gathered tokens
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.networks.attention import rotary_angles, rotate
from mar.networks.base import ABSENT, GIVEN
from mar.networks.causal_transformer import CausalTransformer, CausalTransformerOptions

SHAPES = [(12,), (3, 4), (2, 2, 3)]
PLAIN = CausalTransformerOptions(width=24, depth=3, heads=3)
OPTIONS = {
    "plain": PLAIN,
    "shallow": CausalTransformerOptions(width=16, depth=1, heads=1, mlp_ratio=2.0),
    "axes": replace(PLAIN, position="axes", rotary="axes"),
    "sequence": replace(PLAIN, rotary="sequence"),
}
BATCH = 6


def build(shape: tuple[int, ...] = (3, 4), options: str = "plain") -> CausalTransformer:
    torch.manual_seed(0)
    network = CausalTransformer(shape, OPTIONS[options])
    for parameter in network.parameters():  # biases and positions large enough that none can hide
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def inputs(network: CausalTransformer, batch: int = BATCH):
    """Random plans, in each row sets of other sizes; the third row has one absent token in three, the last no given."""
    torch.manual_seed(1)
    n = network.n_tokens
    step_BL = torch.stack([torch.randperm(n) // (1 + b % 4) for b in range(batch)]) - 1
    step_BL[-1] += 1
    step_BL[2, torch.randperm(n)[: n // 3]] = ABSENT
    token_BLD = torch.randn(batch, n, network.token_width)
    return token_BLD, step_BL, torch.randn(batch, network.condition_width)


def scored(step_BL: torch.Tensor) -> torch.Tensor:
    return (step_BL > GIVEN) & (step_BL < ABSENT)


def by_hand(network: CausalTransformer, token_LD: torch.Tensor, condition_C: torch.Tensor) -> torch.Tensor:
    """A GPT over start, x_0, ..., x_{L-2}, and queries that see just what the GPT sees there."""
    L, D = token_LD.shape
    heads = network.sizes.heads
    earlier_LD = (token_LD + network.content_position())[:-1]
    content = torch.cat([(condition_C + network.start)[None], earlier_LD])
    query = network.query_position() + condition_C
    later = torch.ones(L, L).triu(1).bool()
    for block in network.blocks:
        q, k, v = block.attn.qkv(block.norm1(content)).view(L, 3, heads, D // heads).permute(1, 2, 0, 3)
        asked = block.attn.qkv(block.norm1(query)).view(L, 3, heads, D // heads).permute(1, 2, 0, 3)[0]
        after = []
        for x, wanted in ((content, q), (query, asked)):
            score = (wanted @ k.mT / (D // heads) ** 0.5).masked_fill(later, -torch.inf)
            x = x + block.attn.proj((score.softmax(-1) @ v).transpose(0, 1).reshape(L, D))
            after.append(x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x)))))
        content, query = after
    return network.norm(query)


@pytest.mark.parametrize("options", ["plain", "shallow"])
def test_one_token_at_a_time_in_raster_order_it_is_a_gpt_shifted_by_one(options):
    network = build(options=options)
    L = network.n_tokens
    token_BLD, condition_BC = torch.randn(2, L, network.token_width), torch.randn(2, network.condition_width)
    step_BL = torch.arange(L).expand(2, L)
    z_MD = network(token_BLD, step_BL, condition_BC, step_BL >= 0)
    want_MD = torch.cat([by_hand(network, token_BLD[b], condition_BC[b]) for b in range(2)])
    torch.testing.assert_close(z_MD, want_MD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("garbage", [torch.nan, 1e4])
def test_one_pass_gives_what_one_pass_a_step_gives_without_seeing_the_future(shape, options, garbage):
    network = build(shape, options)
    token_BLD, step_BL, condition_BC = inputs(network)
    all_BL = scored(step_BL)
    z_MD = network(token_BLD, step_BL, condition_BC, all_BL)
    for step in range(int(step_BL[all_BL].max()) + 1):
        now_BL = step_BL == step
        past_BLD = torch.where((step_BL < step)[..., None], token_BLD, garbage)
        got_MD = network(past_BLD, step_BL, condition_BC, now_BL)
        torch.testing.assert_close(got_MD, z_MD[now_BL[all_BL]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_last_step_is_never_read(dtype):
    network = build()
    token_BLD, step_BL, condition_BC = inputs(network)
    last_B1 = torch.where(scored(step_BL), step_BL, GIVEN).amax(1, keepdim=True)
    garbled_BLD = torch.where((step_BL >= last_B1)[..., None], torch.nan, token_BLD)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        z_MD = network(token_BLD, step_BL, condition_BC, scored(step_BL))
        assert torch.equal(network(garbled_BLD, step_BL, condition_BC, scored(step_BL)), z_MD)
    assert z_MD.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("asks", ["every step", "every other step", "everything, twice"])
@torch.no_grad()
def test_the_cache_changes_nothing_for_rows_of_other_set_sizes(shape, options, asks):
    network = build(shape, options)
    token_BLD, step_BL, condition_BC = inputs(network)
    state = network.begin(condition_BC, step_BL == ABSENT)
    for step in range(GIVEN, int(step_BL[scored(step_BL)].max()) + 1):
        now_BL = step_BL == step
        if step > GIVEN and (asks != "every other step" or step % 2):
            asked_BL = now_BL if asks == "every step" else scored(step_BL) & (step_BL >= step)
            want_MD = network(token_BLD, step_BL, condition_BC, now_BL)
            for _ in range(2):
                got_MD = network.query(state, asked_BL)[now_BL[asked_BL]]
                torch.testing.assert_close(got_MD, want_MD, atol=1e-5, rtol=1e-5)
        state = network.observe(state, torch.where((step_BL <= step)[..., None], token_BLD, torch.nan), now_BL)


def test_tokens_of_one_step_do_not_see_each_other():
    network = build()
    token_BLD, step_BL, condition_BC = inputs(network)
    token_BLD.requires_grad_()
    contents = {}
    network.blocks[1].register_forward_pre_hook(lambda _, args: contents.update(x=args[0], slots=args[1]))
    network(token_BLD, step_BL, condition_BC, scored(step_BL))
    row, slot = 0, 3
    (grad_BLD,) = torch.autograd.grad(contents["x"][row, slot].sum(), token_BLD)
    read_L = (grad_BLD[row] != 0).any(-1)
    kept_L = (step_BL[row] < step_BL[row].max()).nonzero()[:, 0]
    own = int(kept_L[slot - 1])
    want_L = (step_BL[row] < step_BL[row, own]) | (torch.arange(network.n_tokens) == own)
    assert torch.equal(read_L, want_L)


def test_only_contents_that_are_read_and_targets_are_computed():
    network = build()
    token_BLD, _, condition_BC = inputs(network)
    step_BL = (torch.arange(network.n_tokens) // 3).expand(BATCH, -1)  # steps 0..3 of three tokens
    target_BL = (step_BL == 1) | (step_BL == 2)
    seen = []
    for block in network.blocks:
        block.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    network(token_BLD, step_BL, condition_BC, target_BL)
    assert seen == [1 + 6 + 6, 1 + 6 + 6, 6]  # the start, steps 0 and 1, the targets; at last the targets alone


def test_rounding_the_numbers_of_slots_up_changes_nothing():
    network = build()
    token_BLD, step_BL, condition_BC = inputs(network)
    target_BL = scored(step_BL) & (step_BL < 2)
    z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    network.multiple = 5
    torch.testing.assert_close(network(token_BLD, step_BL, condition_BC, target_BL), z_MD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_reaches_every_parameter_and_only_tokens_that_are_read(options, dtype):
    network = build(options=options).train()
    token_BLD, step_BL, condition_BC = inputs(network, batch=40)
    token_BLD.requires_grad_()
    target_BL = scored(step_BL)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    z_MD.float().square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[None]
        assert bool((rows != 0).any(1).all()), name  # every position, too
    last_B1 = torch.where(target_BL, step_BL, GIVEN).amax(1, keepdim=True)
    assert token_BLD.grad is not None
    assert torch.equal((token_BLD.grad != 0).any(-1), step_BL < last_B1)


def test_a_batch_without_targets_gives_no_contexts():
    network = build()
    token_BLD, step_BL, condition_BC = inputs(network)
    assert network(token_BLD, step_BL, condition_BC, step_BL == -5).shape == (0, network.context_width)


@pytest.mark.parametrize("shape", SHAPES)
def test_rotary_products_depend_on_differences_of_coordinates_alone(shape):
    angle_PF = rotary_angles(shape, 12).double()
    coordinate_LA = torch.tensor(list(torch.cartesian_prod(*map(torch.arange, shape)).view(-1, len(shape)).tolist()))
    q, k = torch.randn(2, 1, 1, 1, 12)
    products = {}
    for a, from_A in enumerate(coordinate_LA):
        for b, to_A in enumerate(coordinate_LA):
            turned = rotate(q, angle_PF[None, None, 1 + a]) * rotate(k, angle_PF[None, None, 1 + b])
            products.setdefault(tuple((to_A - from_A).tolist()), []).append(float(turned.sum()))
    means = [sum(values) / len(values) for values in products.values()]
    for mean, values in zip(means, products.values(), strict=True):
        assert max(abs(value - mean) for value in values) < 1e-5
    assert len({round(mean, 4) for mean in means}) > len(means) // 2
    assert torch.equal(rotate(q, angle_PF[None, None, 0]), q)


@pytest.mark.parametrize("knob", ["attention_dropout", "projection_dropout"])
def test_dropout_acts_in_training_alone(knob):
    torch.manual_seed(0)
    network = CausalTransformer((3, 4), replace(PLAIN, **{knob: 0.5}))
    token_BLD, step_BL, condition_BC = inputs(network)
    arguments = token_BLD, step_BL, condition_BC, scored(step_BL)
    assert not torch.equal(network(*arguments), network(*arguments))
    network.eval()
    assert torch.equal(network(*arguments), network(*arguments))


@pytest.mark.parametrize(("size", "low", "high"), [("tiny", 0.2e6, 0.3e6), ("small", 0.8e6, 1e6), ("base", 85e6, 86e6)])
def test_the_sizes_have_their_parameters(size, low, high):
    with torch.device("meta"):
        network = CausalTransformer((16, 16), CausalTransformerOptions(size))
    assert low < sum(p.numel() for p in network.parameters()) < high


@pytest.mark.parametrize(
    "wrong", [{"width": 30}, {"heads": 5}, {"depth": 0}, {"projection_dropout": 1.0}, {"mlp_ratio": 0.0}]
)
def test_impossible_numbers_are_refused_in_one_line(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))) as error:
        replace(CausalTransformerOptions(), **wrong)
    assert "\n" not in str(error.value)


def test_rotary_wants_enough_channels_a_head():
    with pytest.raises(UserError, match="at least 6, not 4"):
        CausalTransformer((2, 2, 3), CausalTransformerOptions(width=8, heads=2, rotary="axes"))
