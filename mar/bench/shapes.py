"""What to measure: a recipe, or one of a few shapes that need no data files.

Speed depends on shapes alone, so a shape is a recipe whose data set is a description without examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mar import build, config
from mar.config import Recipe
from mar.data.base import Data, DataSpec, TensorSplit
from mar.errors import unknown


def _published(size: str, head_width: int, head_depth: int) -> dict[str, Any]:
    """MAR on 256 tokens of 16 channels (Li et al. 2024, table 4), 64 AR steps."""
    return {
        "name": f"mar-{size}",
        "data": {"kind": "none"},
        "tokenizer": {"kind": "patches", "patch": 1},
        "ordering": {"kind": "random"},
        "partition": {"kind": "cosine", "k": 64},
        "network": {
            "kind": "masked-transformer",
            "size": size,
            "attention_dropout": 0.1,
            "projection_dropout": 0.1,
        },
        "head": {"kind": "diffusion", "width": head_width, "depth": head_depth},
        "train": {"mask_ratio": {"kind": "truncated-normal"}, "learning_rate": 1e-4, "batch_size": 2048},
    }


_LATENTS = DataSpec((16, 16, 16), 256, 1000)
SHAPES = {
    "mar-base": _published("base", 1024, 6),
    "mar-large": _published("large", 1280, 8),
    "mar-huge": _published("huge", 1536, 12),
    "pixels-1024": {  # 32 x 32 grey levels one at a time: what a long exact chain costs
        "name": "pixels-1024",
        "data": {"kind": "none"},
        "network": {"kind": "masked-transformer", "size": "tiny"},
        "class_conditional": False,
    },
    "text-256": {  # characters from left to right by the small Transformer of the recipe shakespeare
        "name": "text-256",
        "data": {"kind": "none"},
        "tokenizer": {"kind": "sequence"},
        "ordering": {"kind": "raster"},
        "network": {"kind": "causal-transformer", "size": "small"},
        "class_conditional": False,
        "train": {"mask_ratio": {"kind": "plan"}},
    },
    "sound-4000": {  # half a second at 8 kHz by the network of the recipe spoken-digits
        "name": "sound-4000",
        "data": {"kind": "none"},
        "tokenizer": {"kind": "sequence"},
        "ordering": {"kind": "raster"},
        "network": {"kind": "wavenet", "width": 64, "layers": 8, "blocks": 3, "position": "none"},
        "class_conditional": False,
        "train": {"mask_ratio": {"kind": "plan"}},
    },
}
_SPECS = {  # the others are of latents
    "pixels-1024": DataSpec((1, 32, 32), 256, 0),
    "text-256": DataSpec((1, 1, 256), 65, 0),
    "sound-4000": DataSpec((1, 1, 4000), 256, 0),
}


def read(name: str, overrides: Sequence[str]) -> tuple[Recipe, Data]:
    """The recipe and the data that one of ``SHAPES``, a shipped recipe or a recipe file describes.

    Raises:
        UserError: no such name, a wrong key or value, or a recipe whose data files are missing.
    """
    if name not in SHAPES:
        if not name.endswith((".yaml", ".yml")) and name not in (known := config.recipe_names()):
            raise unknown("recipe", name, [*SHAPES, *known])
        recipe = config.read(name, overrides)
        return recipe, build.data(recipe)
    spec = _SPECS.get(name, _LATENTS)
    empty = TensorSplit(torch.zeros(0, *spec.shape, dtype=torch.uint8))
    return config.parse(SHAPES[name], overrides), Data(name, spec, empty, empty, empty, fingerprint="none")
