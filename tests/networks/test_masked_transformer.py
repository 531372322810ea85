"""What the masked Transformer promises beyond the contract that every network is tested for.

B batch · L tokens · D width · C condition width · M gathered tokens
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mar.core.errors import UserError
from mar.networks.base import ABSENT, GIVEN
from mar.networks.masked_transformer import MaskedTransformer, MaskedTransformerOptions

SHAPES = [(12,), (3, 4), (2, 2, 3)]
OPTIONS = {
    "even": MaskedTransformerOptions(
        encoder_width=16, encoder_depth=2, encoder_heads=2, decoder_width=16, decoder_depth=2, decoder_heads=2, buffer=2
    ),
    "uneven": MaskedTransformerOptions(
        encoder_width=24, encoder_depth=1, encoder_heads=3, decoder_width=8, decoder_depth=3, decoder_heads=1, buffer=5
    ),
    "shallow": MaskedTransformerOptions(
        encoder_width=8, encoder_depth=1, encoder_heads=1, decoder_width=16, decoder_depth=1, decoder_heads=4, buffer=1
    ),
}
OPTIONS["axes"] = replace(OPTIONS["uneven"], encoder_heads=2, rotary="axes")
OPTIONS["sequence"] = replace(OPTIONS["even"], rotary="sequence")
BATCH = 11


def build(shape: tuple[int, ...] = (3, 4), options: str = "even") -> MaskedTransformer:
    torch.manual_seed(0)
    network = MaskedTransformer(shape, OPTIONS[options])
    for parameter in network.parameters():  # biases and positions large enough that none can hide
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def inputs(network: MaskedTransformer, batch: int = BATCH, absent: bool = True, seed: int = 1):
    """Random plans, another number of known tokens in each row, targets of one step or of all later ones.

    The last row has no targets; with ``absent`` the first row has only one token.
    """
    torch.manual_seed(seed)
    n = network.n_tokens
    step_BL = torch.stack([torch.randperm(n) // 2 - 1 for _ in range(batch)])  # sets of two, the first GIVEN
    now_B1 = torch.randint(0, n // 2 - 1, (batch, 1))
    target_BL = torch.where((torch.arange(batch) % 2 == 0)[:, None], step_BL == now_B1, step_BL >= now_B1)
    if absent:
        absent_BL = torch.rand(batch, n) < torch.linspace(0, 0.5, batch)[:, None]
        absent_BL[0] = torch.arange(n) > 0
        step_BL[0] = 0
        target_BL[0] = True
        step_BL[absent_BL], target_BL[absent_BL] = ABSENT, False
    target_BL[-1] = False
    token_BLD = torch.randn(batch, n, network.token_width)
    return token_BLD, step_BL, torch.randn(batch, network.condition_width), target_BL


def visible(step_BL: torch.Tensor, target_BL: torch.Tensor) -> torch.Tensor:
    """(B, L) bool: the tokens that some context may depend on."""
    now_B1 = torch.where(target_BL, step_BL, ABSENT).amin(1, keepdim=True)
    return (step_BL < now_B1) & target_BL.any(1, keepdim=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unknown_tokens_never_change_the_context_by_a_bit(shape, options, dtype):
    network = build(shape, options)
    token_BLD, step_BL, condition_BC, target_BL = inputs(network)
    hidden_BL = ~visible(step_BL, target_BL)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
        for garbage in (torch.nan, torch.inf, 1e4):
            garbled_BLD = torch.where(hidden_BL[..., None], garbage, token_BLD)
            assert torch.equal(network(garbled_BLD, step_BL, condition_BC, target_BL), z_MD)
    assert z_MD.isfinite().all()
    assert z_MD.shape == (int(target_BL.sum()), network.context_width)


def test_every_known_token_and_the_condition_change_every_context_of_their_row():
    network = build()
    token_BLD, step_BL, condition_BC, target_BL = inputs(network)
    known_BL = visible(step_BL, target_BL)
    row_M = target_BL.nonzero()[:, 0]
    z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    for l in range(network.n_tokens):
        changed_BLD = token_BLD.clone()
        changed_BLD[:, l] += torch.randn(network.token_width)  # a constant would vanish in the LayerNorm
        moved_M = (network(changed_BLD, step_BL, condition_BC, target_BL) - z_MD).abs().amax(1) > 1e-6
        assert torch.equal(moved_M, known_BL[row_M, l])
    other_BC = torch.randn_like(condition_BC)
    assert ((network(token_BLD, step_BL, other_BC, target_BL) - z_MD).abs().amax(1) > 1e-6).all()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("buckets", [0, 4])
def test_a_row_in_a_batch_gets_what_it_gets_alone(options, buckets):
    network = build(options=options)
    token_BLD, step_BL, condition_BC, target_BL = inputs(network)
    alone = [
        network(token_BLD[b : b + 1], step_BL[b : b + 1], condition_BC[b : b + 1], target_BL[b : b + 1])
        for b in range(BATCH)
    ]
    network.buckets = buckets
    together_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    torch.testing.assert_close(together_MD, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_a_row_padded_with_absent_tokens_gets_what_the_short_row_gets():
    network = build((12,))
    token_BLD, step_BL, condition_BC, _ = inputs(network, absent=False)
    n = 7
    step_BL = torch.where(torch.arange(12) < n, step_BL, ABSENT)
    target_BL = (step_BL >= 2) & (step_BL < ABSENT)
    short = build((n,))
    state = network.state_dict()
    buffer = network.sizes.buffer
    for name in ("encoder_position", "decoder_position"):
        state[name] = state[name][: buffer + n]
    state["target_position"] = state["target_position"][:n]
    short.load_state_dict(state)
    want_MD = short(token_BLD[:, :n], step_BL[:, :n], condition_BC, target_BL[:, :n])
    torch.testing.assert_close(network(token_BLD, step_BL, condition_BC, target_BL), want_MD, atol=1e-5, rtol=1e-5)


def test_permuted_rows_give_permuted_contexts():
    network = build()
    token_BLD, step_BL, condition_BC, target_BL = inputs(network)
    order_B = torch.randperm(BATCH)
    z_BLD = torch.zeros(*target_BL.shape, network.context_width)
    permuted_BLD = z_BLD.clone()
    z_BLD[target_BL] = network(token_BLD, step_BL, condition_BC, target_BL)
    permuted_BLD[target_BL[order_B]] = network(
        token_BLD[order_B], step_BL[order_B], condition_BC[order_B], target_BL[order_B]
    )
    torch.testing.assert_close(permuted_BLD, z_BLD[order_B], atol=1e-5, rtol=1e-5)


def test_the_context_depends_on_the_known_set_and_not_on_its_order():
    network = build()
    token_BLD, step_BL, condition_BC, target_BL = inputs(network)
    now_B1 = torch.where(target_BL, step_BL, ABSENT).amin(1, keepdim=True)
    flat_BL = torch.where(step_BL < now_B1, GIVEN, torch.where(step_BL < ABSENT, 0, ABSENT))
    z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    assert torch.equal(network(token_BLD, flat_BL, condition_BC, target_BL), z_MD)


def test_a_batch_without_targets_gives_no_contexts():
    network = build()
    token_BLD, step_BL, condition_BC, target_BL = inputs(network)
    assert network(token_BLD, step_BL, condition_BC, target_BL & False).shape == (0, network.context_width)


def test_contexts_asked_for_one_at_a_time_are_those_asked_for_together():
    network = build()
    token_BLD, step_BL, condition_BC, _ = inputs(network, absent=False)
    step_BL = torch.where(step_BL < 3, GIVEN, 0)
    target_BL = step_BL == 0
    z_BLD = torch.zeros(*target_BL.shape, network.context_width)
    z_BLD[target_BL] = network(token_BLD, step_BL, condition_BC, target_BL)
    for l in range(network.n_tokens):
        one_BL = target_BL & (torch.arange(network.n_tokens) == l)
        if one_BL.any():
            got_MD = network(token_BLD, step_BL, condition_BC, one_BL)
            torch.testing.assert_close(got_MD, z_BLD[one_BL], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_reaches_every_parameter_and_only_known_tokens(dtype):
    network = build().train()
    token_BLD, step_BL, condition_BC, target_BL = inputs(network, batch=60)
    token_BLD.requires_grad_()
    condition_BC.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    z_MD.float().square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[None]
        assert bool((rows != 0).any(1).all()), name  # every position, too
    assert token_BLD.grad is not None and condition_BC.grad is not None
    assert torch.equal((token_BLD.grad != 0).any(-1), visible(step_BL, target_BL))
    assert torch.equal((condition_BC.grad != 0).any(-1), target_BL.any(1))


@pytest.mark.parametrize("knob", ["attention_dropout", "projection_dropout"])
def test_dropout_acts_in_training_alone(knob):
    torch.manual_seed(0)
    network = MaskedTransformer((3, 4), replace(MaskedTransformerOptions(), **{knob: 0.5}))
    arguments = inputs(network)
    first, second = network(*arguments), network(*arguments)
    assert not torch.equal(first, second)
    network.eval()
    assert torch.equal(network(*arguments), network(*arguments))


def test_bfloat16_stays_close_to_float32():
    network = build()
    arguments = inputs(network)
    z_MD = network(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        assert (network(*arguments) - z_MD).abs().mean() < 0.03 * z_MD.abs().mean()


@pytest.mark.parametrize(
    ("size", "low", "high"), [("tiny", 0.2e6, 0.35e6), ("small", 1e6, 2e6), ("base", 170e6, 175e6)]
)
def test_the_sizes_have_their_parameters(size, low, high):
    with torch.device("meta"):
        network = MaskedTransformer((16, 16), MaskedTransformerOptions(size))
    assert low < sum(p.numel() for p in network.parameters()) < high


def test_given_numbers_replace_those_of_the_size():
    options = MaskedTransformerOptions("base", decoder_width=384, decoder_heads=6)
    assert (options.sizes.encoder_width, options.sizes.decoder_width, options.sizes.decoder_heads) == (768, 384, 6)
    assert (options.sizes.decoder_depth, options.sizes.buffer) == (12, 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoder_width": 30},
        {"decoder_heads": 5},
        {"buffer": 0},
        {"decoder_depth": 0},
        {"projection_dropout": 1.0},
        {"mlp_ratio": 0.0},
    ],
)
def test_impossible_numbers_are_refused_in_one_line(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))) as error:
        replace(MaskedTransformerOptions(), **wrong)
    assert "\n" not in str(error.value)
