"""Packing wastes at most its documented share, and attention over packed rows is attention in each row alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mar.networks.attention import PackedBlock, Packing, pack


def random_keep(rows: int, places: int, seed: int) -> torch.Tensor:
    """keep_RP with lengths from all over 1..P; place 0 is always kept."""
    draw = torch.Generator().manual_seed(seed)
    share_R1 = torch.rand(rows, 1, generator=draw)
    keep_RP = torch.rand(rows, places, generator=draw) < share_R1
    keep_RP[:, 0] = True
    return keep_RP


def padding(packing: Packing, keep_RP: torch.Tensor) -> int:
    return len(packing) - int(keep_RP.sum())


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 9), st.integers(0, 10**6))
def test_padding_is_at_most_places_over_groups_for_each_row(rows: int, places: int, groups: int, seed: int):
    keep_RP = random_keep(rows, places, seed)
    packing = pack(keep_RP, groups)
    length_R = keep_RP.sum(1)
    assert padding(packing, keep_RP) * groups <= rows * int(length_R.max() - length_R.min())
    assert len(packing.spans) <= groups
    assert sum(span.rows * span.length for span in packing.spans) == len(packing)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 9), st.integers(1, 7), st.integers(0, 10**6))
def test_every_kept_place_has_one_slot_and_nothing_else_has(
    rows: int, places: int, groups: int, multiple: int, seed: int
):
    keep_RP = random_keep(rows, places, seed)
    packing = pack(keep_RP, groups, multiple)
    kept = keep_RP.nonzero()
    slots = packing.slot_RP[keep_RP]
    assert torch.equal(torch.stack([packing.row_N[slots], packing.place_N[slots]], 1), kept)
    assert bool((packing.slot_RP[~keep_RP] == len(packing)).all())
    assert bool(keep_RP[packing.row_N, packing.place_N].all())  # padding, too, holds nothing that is not kept


def test_rows_of_one_length_make_one_group_without_a_mask():
    keep_RP = torch.stack([torch.randperm(20) < 7 for _ in range(16)])
    (span,) = pack(_rotate(keep_RP)).spans
    assert (span.rows, span.length, span.mask) == (16, 7, None)


def _rotate(keep_RP: torch.Tensor) -> torch.Tensor:
    """Each row turned until its place 0 is kept."""
    return torch.stack([row.roll(-int(row.nonzero()[0])) for row in keep_RP])


def test_rounded_lengths_come_from_few_values():
    lengths = {span.length for seed in range(30) for span in pack(random_keep(9, 40, seed), groups=1, multiple=5).spans}
    assert lengths <= set(range(5, 41, 5))


@pytest.mark.parametrize("wanted", [False, True])
def test_a_packed_block_computes_what_timm_computes_on_each_row_alone(wanted: bool):
    torch.manual_seed(0)
    block = PackedBlock(12, 3).eval()
    keep_RP = random_keep(11, 9, seed=1)
    x_RPD = torch.randn(11, 9, 12)
    packing = pack(keep_RP, groups=3)
    x_ND = x_RPD[packing.row_N, packing.place_N]
    chosen_RP = keep_RP & (torch.rand(11, 9) < 0.5) if wanted else keep_RP
    slots_M = packing.slot_RP[chosen_RP]
    got_MD = block(x_ND, packing.spans, wanted_M=slots_M) if wanted else block(x_ND, packing.spans)[slots_M]
    from mar.core import torchvision  # noqa: F401, I001 - before timm
    from timm.models.vision_transformer import Block

    timms = Block(12, 3, qkv_bias=True).eval()
    timms.load_state_dict(block.state_dict())
    alone = [timms(x_RPD[r : r + 1, keep_RP[r]])[0] for r in range(11)]
    want_MD = torch.cat([row[chosen_RP[r, keep_RP[r]]] for r, row in enumerate(alone)])
    torch.testing.assert_close(got_MD, want_MD, atol=1e-5, rtol=1e-5)
