"""The palette: the colours that are there, and the nearest of few."""

from __future__ import annotations

import pytest
import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.tokenizers.palette import Palette, PaletteOptions

RGB = DataSpec((3, 6, 5), 256)


def blobs(n: int, seed: int = 0) -> torch.Tensor:
    """(N, 3, 6, 5): pixels around four colours, never further than 8 levels."""
    u = stream(seed, "test/palette", n).uniform(4 * 30).reshape(n, 4, 30)
    centre = torch.tensor([[20, 30, 200], [200, 40, 30], [90, 220, 90], [240, 240, 230]])
    which = (u[:, 0] * 4).long()
    return (centre[which] + (u[:, 1:].transpose(1, 2) * 16 - 8)).to(torch.uint8).transpose(1, 2).reshape(n, 3, 6, 5)


def test_k_means_finds_the_clusters_and_keeps_each_pixel_within_its_own():
    palette = Palette(RGB, PaletteOptions(colours=4))
    palette.fit(blobs(40).split(7))
    x = blobs(10, seed=1)
    assert int((palette.decode(palette.encode(x)).int() - x.int()).abs().max()) < 16
    assert torch.equal(palette.colour_VC.sum(1), palette.colour_VC.sum(1).sort().values)


def test_tokens_are_the_same_where_a_network_computes_in_bfloat16():
    x = (stream(0, "test/any", 20).uniform(90) * 256).to(torch.uint8).reshape(20, 3, 6, 5)
    palette = Palette(RGB, PaletteOptions(colours=64))
    palette.fit([x])
    with torch.autocast("cpu", torch.bfloat16):
        token = palette.encode(x)
    assert torch.equal(token, palette.encode(x))


def test_few_colours_are_all_kept_and_the_tokens_lose_nothing():
    colours = torch.tensor([[0, 0, 0], [0, 0, 255], [255, 255, 255]], dtype=torch.uint8)
    which = (stream(0, "test/few", 12).uniform(30) * 3).long()
    x = colours[which].transpose(1, 2).reshape(12, 3, 6, 5)
    palette = Palette(RGB, PaletteOptions(colours=8))
    palette.fit([x])
    assert torch.equal(palette.decode(palette.encode(x)), x)
    assert int(palette.encode(x).max()) == 2 and palette.token.vocabulary == 8  # the others have no pixel


def test_there_are_never_more_categories_than_colours():
    assert Palette(DataSpec((1, 8, 8), 17), PaletteOptions()).token.vocabulary == 17
    assert Palette(RGB, PaletteOptions()).token.vocabulary == 512


def test_the_palette_is_a_function_of_the_pixels_never_of_the_batches():
    one, other = (Palette(RGB, PaletteOptions(colours=16)) for _ in range(2))
    one.fit([blobs(40)])
    other.fit(blobs(40).flip(0).split(3))
    assert torch.equal(one.colour_VC, other.colour_VC)


def test_a_patch_of_pixels_shares_a_colour():
    corners = torch.tensor([[0, 16, 3, 9], [1, 2, 16, 16], [5, 5, 0, 0]], dtype=torch.uint8)  # rows of a 2x2 patch
    which = (stream(0, "test/patches", 9).uniform(12) * 3).long()
    x = corners[which].reshape(9, 4, 3, 2, 2).permute(0, 1, 3, 2, 4).reshape(9, 1, 8, 6)
    palette = Palette(DataSpec((1, 8, 6), 17), PaletteOptions(colours=8, patch=2))
    palette.fit([x])
    token = palette.encode(x)
    assert palette.shape == (4, 3) and palette.colour_VC.shape == (8, 4)
    assert torch.equal(token, torch.tensor([1, 2, 0])[which])  # sorted from dark (10) over 28 to bright (35)
    assert torch.equal(palette.decode(token), x)


def test_a_patch_of_too_many_values_is_refused():
    with pytest.raises(UserError, match=r"tokenizer\.patch=2 of palette makes colours of 12 values, at most 7"):
        Palette(DataSpec((3, 8, 6), 256), PaletteOptions(patch=2))
    with pytest.raises(UserError, match=r"use tokenizer\.patch=1 or 2"):
        Palette(DataSpec((1, 8, 6), 17), PaletteOptions(patch=3))


def test_tokens_have_no_bits_per_dimension_of_the_image():
    with pytest.raises(Unsupported, match="no bits/dim"):
        Palette(RGB, PaletteOptions()).bits_per_dim(1.0)


def test_what_is_no_picture_is_refused():
    with pytest.raises(UserError, match=r"tokenizer palette needs images .* use tokenizer\.kind=sequence"):
        Palette(DataSpec((1, 1, 12), 65, modality="text"), PaletteOptions())
    with pytest.raises(UserError, match="no training images"):
        Palette(RGB, PaletteOptions()).fit([])
    with pytest.raises(UserError, match=r"tokenizer\.colours"):
        PaletteOptions(colours=1)
