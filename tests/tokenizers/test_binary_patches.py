from __future__ import annotations

import pytest
import torch

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.tokenizers.patches import BinaryPatches, BinaryPatchesOptions


def test_the_first_pixel_of_a_patch_is_the_lowest_bit():
    x = torch.tensor([[[[1, 0, 0, 1], [1, 0, 1, 1]]]], dtype=torch.uint8)
    tokenizer = BinaryPatches(DataSpec((1, 2, 4), 2), BinaryPatchesOptions(2))
    assert tokenizer.encode(x).tolist() == [[0b0101, 0b1110]]


def test_mnist_has_196_tokens_of_16_categories():
    tokenizer = BinaryPatches(DataSpec((1, 28, 28), 2), BinaryPatchesOptions())
    assert tokenizer.shape == (14, 14) and tokenizer.token.vocabulary == 16


@pytest.mark.parametrize(
    ("spec", "patch", "why"),
    [
        (DataSpec((1, 28, 28), 256), 2, r"256 levels: use data\.kind=binarized-mnist, or tokenizer\.kind=pixels"),
        (DataSpec((3, 28, 28), 2), 2, "one channel"),
        (DataSpec((1, 28, 28), 2), 3, r"patches of 3: use tokenizer\.patch=1 or 2, or images of 27x27 or 30x30"),
        (DataSpec((1, 5, 7), 2), 2, r"patch=1, or images of 4x6 or 6x8"),
        (DataSpec((1, 28, 28), 2), 4, r"in 1\.\.3"),
        (DataSpec((1, 28, 28), 2), 0, r"in 1\.\.3"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_works(spec, patch, why):
    with pytest.raises(UserError, match=why) as error:
        BinaryPatches(spec, BinaryPatchesOptions(patch))
    assert "\n" not in str(error.value)
