from __future__ import annotations

import pytest
import torch

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.tokenizers.levels import Pixels


def test_tokens_are_the_levels_row_by_row():
    x = torch.tensor([[[[3, 1, 4], [1, 5, 9]]]], dtype=torch.uint8)
    assert Pixels(DataSpec((1, 2, 3), 17), Pixels.Options()).encode(x).tolist() == [[3, 1, 4, 1, 5, 9]]


@pytest.mark.parametrize("spec", [DataSpec((3, 8, 8), 256), DataSpec((100,), 256), DataSpec((1, 8, 8), 0)])
def test_data_that_are_no_grey_images_are_refused_with_what_works(spec):
    with pytest.raises(UserError, match=r"data\.colour=grey.*tokenizer\.kind=patches") as error:
        Pixels(spec, Pixels.Options())
    assert "\n" not in str(error.value)
