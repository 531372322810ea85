"""Checkpoints of other projects, read without executing code from the file."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mar.core.errors import UserError
from mar.core.readers import read_tensors, reading

# before or between the parts of a name: torch.compile's, and those of sharded and recomputed blocks
_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def read(path: Path) -> Mapping[str, Any]:
    """Read a ``.pth``, ``.ckpt`` or ``.safetensors`` file. Raise UserError for other formats, and files with code.

    Pickles may hold tensors, plain containers, numbers and the command line of the training (``argparse.Namespace``).
    """
    what = "weights of torch or safetensors"
    if path.suffix == ".safetensors":
        return read_tensors(path, what)
    with reading(path, what):
        try:
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            refused = re.search(r"GLOBAL (\S+)", str(error))
            if refused is None:
                raise
            raise UserError(f"{path} wants {refused[1]}, and nothing in a file is executed") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def unwrapped(state: Any, name: str = "the file") -> dict[str, torch.Tensor]:
    """Return the tensors of a state dict under the names of the bare model.

    Wrappers put prefixes before names, in any nesting: ``module.`` of DistributedDataParallel stands before all,
    ``_orig_mod.`` of torch.compile before some or all. Raise UserError if ``name`` is not a state dict.
    """
    if not isinstance(state, Mapping):
        raise UserError(f"{name} holds a {type(state).__name__}, not a state dict")
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    for key, value in tensors.items():  # a view of few numbers may claim any shape
        if value.layout != torch.strided or value.untyped_storage().nbytes() < value.nbytes:
            raise UserError(f"{key} of {name} is no plain tensor of shape {tuple(value.shape)}")
    found = {_WRAPPER.sub("", key): value for key, value in tensors.items()}
    while found and all(key.startswith("module.") for key in found):
        found = {_WRAPPER.sub("", key.removeprefix("module.")): value for key, value in found.items()}
    if len(found) < len(tensors):
        raise UserError(f"{name} has two weights of one name, bare and under torch.compile's _orig_mod.: give one")
    return found


def numbers(state: Mapping[str, torch.Tensor], name: str = "the file") -> dict[str, torch.Tensor]:
    """Return the weights in float32. Raise UserError if a weight of ``name`` is not finite."""
    found = {key: value.float() for key, value in state.items()}
    if bad := [key for key, value in found.items() if not value.isfinite().all()]:
        raise UserError(f"{len(bad)} weights of {name} are NaN or infinite, first {bad[0]!r}: give a whole checkpoint")
    return found
