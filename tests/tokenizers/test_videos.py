"""Tokens of a video are those of its frames, one frame after the other, on a grid that knows its time axis."""

from __future__ import annotations

import pytest
import torch

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.tokenizers import TOKENIZERS


@pytest.mark.parametrize(
    ("kind", "channels", "levels", "options"),
    [
        ("pixels", 1, 17, {}),
        ("binary-patches", 1, 2, {"patch": 2}),
        ("patches", 3, 256, {"patch": 2}),
        ("patches", 1, 17, {"patch": 2, "scale": "channel"}),
    ],
)
def test_a_video_is_the_sequence_of_its_frames(kind, channels, levels, options):
    cls, picture = TOKENIZERS[kind], (channels, 6, 4)
    x = (stream(0, "video", 5).uniform(3 * channels * 24).reshape(5, 3, *picture) * levels).to(torch.uint8)
    video = cls(DataSpec((3, *picture), levels, modality="video"), cls.Options(**options))
    image = cls(DataSpec(picture, levels), cls.Options(**options))
    video.fit([x])
    image.fit([x.flatten(0, 1)])
    assert str(video.lattice) == f"t3x{image.lattice}" and not image.lattice.time
    token = video.encode(x)
    assert torch.equal(token, image.encode(x.flatten(0, 1)).unflatten(0, (5, 3)).flatten(1, 2))
    assert torch.equal(video.decode(token), x)
    assert video.dimensions == 3 * image.dimensions and video.log_jacobian == pytest.approx(3 * image.log_jacobian)


def test_tokenizers_of_pictures_refuse_videos_and_name_those_that_fit():
    spec = DataSpec((3, 3, 4, 4), 256, modality="video")
    for kind in ("channels", "palette", "pixels", "sequence"):
        with pytest.raises(UserError, match=r"tokenizer\.kind=.*patches"):
            TOKENIZERS[kind](spec, TOKENIZERS[kind].Options())
