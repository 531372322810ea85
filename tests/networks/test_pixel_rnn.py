"""PixelRNN: what each place knows, by gradients, and what is refused.

B batch · L tokens · D width · I rows · J columns
"""

from __future__ import annotations

import pytest
import torch

from mar import build as registry
from mar import config
from mar.core.errors import Unsupported, UserError
from mar.networks.base import ABSENT, GIVEN
from mar.networks.pixel_rnn import (
    DiagonalBiLSTM,
    DiagonalScan,
    MaskedConv2d,
    PixelRNN,
    PixelRNNOptions,
    RowLayer,
    RowLSTM,
    lstm,
    skewed,
    unskewed,
)
from mar.verification.cases import cases
from mar.verification.networks import no_leak

KINDS = {"row-lstm": RowLSTM, "diagonal-bilstm": DiagonalBiLSTM}
I, J = 9, 5


def build(kind: str, shape: tuple[int, ...] = (I, J), depth: int = 1) -> PixelRNN:
    torch.manual_seed(0)
    return KINDS[kind](shape, PixelRNNOptions(width=4, depth=depth)).eval()


def felt(layer: torch.nn.Module, row: int, column: int) -> set[tuple[int, int]]:
    """Places whose features change a layer's output at one place."""
    x_BDIJ = torch.randn(1, 4, I, J, requires_grad=True)
    (grad_BDIJ,) = torch.autograd.grad(layer(x_BDIJ)[0, :, row, column].sum(), x_BDIJ)
    return {(i, j) for i, j in (grad_BDIJ[0] != 0).any(0).nonzero().tolist()}


def test_a_row_layer_knows_a_triangle_above_and_its_left_neighbour():
    row, column = 6, 2
    # a row's inputs have mask B: of three neighbours the left one and itself
    reach = {i: range(column - (row - i) - 1, column + (row - i) + 1) for i in range(row + 1)}
    assert felt(RowLayer(4), row, column) == {(i, j) for i in reach for j in range(J) if j in reach[i]}


def test_a_diagonal_layer_knows_everything_before_and_itself():
    layer = build("diagonal-bilstm").layers[0]
    for row, column in ((0, 0), (3, 4), (4, 0), (8, 2)):
        left = {(i, j) for i in range(row + 1) for j in range(column + 1)}
        above = {(i, j) for i in range(row) for j in range(J)}
        assert felt(layer, row, column) == left | above


def test_a_scan_reads_the_states_above_and_on_the_left():
    scan = DiagonalScan(4)
    x_BDIJ = torch.randn(2, 4, 3, 4)
    states: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
    zero = torch.zeros(2, 2)
    above, left = scan.from_state.weight.unbind(2)
    got_BFIJ = scan(x_BDIJ)
    gates_BGIJ = scan.from_input(x_BDIJ)
    # before the first column a scan runs over padding, whose inputs are zeros of the skewed map
    for diagonal in range(3 + 4 - 1):
        for i in range(3):
            h_up, h_left = (states.get((row, diagonal - 1), (zero, zero))[0] for row in (i - 1, i))
            j = diagonal - i
            gates = gates_BGIJ[:, :, i, j] if 0 <= j < 4 else torch.zeros(2, 8)
            gates = gates + h_up @ above.T + h_left @ left.T
            states[i, diagonal] = lstm(gates, states.get((i, diagonal - 1), (zero, zero))[1])
            if 0 <= j < 4:
                torch.testing.assert_close(got_BFIJ[:, :, i, j], states[i, diagonal][0])


def test_skewing_moves_each_row_one_further_and_back():
    x_BDIJ = torch.arange(1.0, 13).reshape(1, 1, 3, 4)
    want = torch.tensor([[1.0, 2, 3, 4, 0, 0], [0, 5, 6, 7, 8, 0], [0, 0, 9, 10, 11, 12]])
    assert torch.equal(skewed(x_BDIJ)[0, 0], want)
    assert torch.equal(unskewed(skewed(x_BDIJ)), x_BDIJ)


@pytest.mark.parametrize("itself", [True, False])
def test_masks_see_what_is_before_in_raster_order(itself):
    convolution = MaskedConv2d(4, 4, (3, 3), itself)
    before = {(3, 1), (3, 2), (3, 3), (4, 1)}
    assert felt(convolution, 4, 2) == before | ({(4, 2)} if itself else set())


@pytest.mark.parametrize("kind", KINDS)
def test_refused_when_the_recipe_is_read(kind):
    content = {"network": {"kind": kind}, "ordering": {"kind": "raster"}, "train": {"mask_ratio": {"kind": "plan"}}}
    data = registry.data(config.parse(content))
    registry.assemble(config.parse(content), data)
    for change, message in (
        ("ordering=spiral", "raster order, one token at a time"),
        ("partition=cosine", "raster order, one token at a time"),
        ("train.mask_ratio=uniform", "use train.objective=next_set"),
    ):
        with pytest.raises(Unsupported, match=message) as refusal:
            registry.assemble(config.parse(content, [change]), data)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", KINDS)
def test_given_tokens_that_are_no_prefix_are_refused(kind):
    network = build(kind, (2, 3))
    network.check(torch.tensor([[GIVEN, GIVEN, 0, 1, 2, 3], [0, 1, 2, 3, 4, ABSENT]]))
    for wrong in ([0, 1, 2, 3, 4, GIVEN], [0, 1, 1, 2, 3, 4], [0, 2, 1, 3, 4, 5], [ABSENT, 0, 1, 2, 3, 4]):
        with pytest.raises(Unsupported, match=kind):
            network.check(torch.tensor([wrong]))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_order_found_on_the_way_is_refused(kind):
    network = build(kind, (2, 3))
    token_BLD, none_BL = torch.randn(1, 6, 4), torch.zeros(1, 6, dtype=torch.bool)
    for known, new in (([], [1]), ([], [0, 1]), ([0], [2])):
        state = network.observe(network.begin(torch.zeros(1, 4), none_BL), token_BLD, none_BL)
        for l in known:
            state = network.observe(state, token_BLD, none_BL.index_fill(1, torch.tensor([l]), True))
        with pytest.raises(Unsupported, match="no adaptive order"):
            network.observe(state, token_BLD, none_BL.index_fill(1, torch.tensor(new), True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(6,), (2, 2, 3)])
def test_other_grids_are_refused(kind, shape):
    with pytest.raises(Unsupported, match="2-D"):
        build(kind, shape)


@pytest.mark.parametrize("wrong", [{"width": 5}, {"depth": 0}])
def test_impossible_numbers_are_refused_in_one_line(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        PixelRNNOptions(**wrong)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_rows_below_the_last_target_are_not_computed(kind):
    network, seen = build(kind), []
    network.first.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2]))
    step_BL = torch.arange(I * J)[None]
    network(torch.randn(1, I * J, 4), step_BL, torch.zeros(1, 4), step_BL == 2 * J)
    assert seen == [3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_leak_is_found(kind):
    network = build(kind, (3, 3))
    found = cases(network, 9)
    assert no_leak(kind, network, found).passed
    network.first.mask = MaskedConv2d(4, 4, (7, 7), itself=True).mask
    assert not no_leak(kind, network, found).passed
