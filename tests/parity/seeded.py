"""Weights for parity tests from a seed, so that the recordings hold outputs alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return a state dict of these shapes: matrices keep the scale of their inputs, vectors lie around 1 or 0.

    NumPy's legacy generator draws the same numbers in every version.
    """
    random = np.random.RandomState(0)
    found = {}
    for name in sorted(shapes):
        x = random.standard_normal(tuple(shapes[name])).astype(np.float32)
        if x.ndim > 1:
            x = x * (1.5 if "embed" in name else 1.0) / np.float32(1 if "embed" in name else np.sqrt(x[0].size))
        else:
            x = x / 4 + (name.endswith("weight") and 1)
        found[name] = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    return found


def recording(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the state dict of a recording beside the tests, and what was recorded."""
    with np.load(Path(__file__).with_name(f"{name}.npz")) as file:
        shapes = json.loads(str(file["shapes"]))
        return weights(shapes), {key: torch.from_numpy(file[key]) for key in file.files if key != "shapes"}
