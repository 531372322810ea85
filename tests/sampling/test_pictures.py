"""Pictures that a command reads: --image and --mask of mar sample, as viewers show them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.sampling.output import load_mask
from mar.tokenizers.levels import Pixels

TOKENIZER = Pixels(DataSpec((1, 8, 8), 17), Pixels.Options())


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_in_a_mask_is_not_generated(tmp_path, mode):
    brush = np.full((8, 8, len(mode)), 255, np.uint8)
    brush[:, 4:, -1] = 0  # a white brush on the left of a transparent canvas
    Image.fromarray(brush, mode).save(tmp_path / "x.png")
    assert torch.equal(load_mask(tmp_path / "x.png", TOKENIZER).reshape(8, 8), torch.arange(8).expand(8, 8) < 4)


def test_a_mask_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG cut")
    for name in ("x.png", "missing.png"):
        with pytest.raises(UserError, match=f"{name} is no readable image"):
            load_mask(tmp_path / name, TOKENIZER)
