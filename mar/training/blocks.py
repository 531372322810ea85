"""Treatment per Transformer block: sharding, compiling, recomputing in the backward pass."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mar.core.errors import Unsupported
from mar.networks.attention import PackedBlock

_LARGE = 10_000_000  # parameters


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the Transformer blocks in order: our own, and timm's in a network of another package."""
    timm = sys.modules.get("timm.models.vision_transformer")  # such a network has imported it
    kinds = (PackedBlock, timm.Block) if timm else (PackedBlock,)
    return [module for module in model.modules() if isinstance(module, kinds)]


def compiles(model: nn.Module, device: torch.device) -> bool:
    """Decide ``train.compile=auto``: True for large Transformers (few shapes) on a GPU with a compiler.

    Elsewhere compiling (one or two minutes) costs short runs more than it saves, or recompiles for ever new shapes.
    """
    if sum(p.numel() for p in model.parameters()) < _LARGE:
        return False
    compiler = find_spec("triton") and any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    return device.type == "cuda" and bool(compiler) and bool(transformer_blocks(model))


def recompute_blocks(model: nn.Module) -> None:
    """Checkpoint activations in place: blocks keep only their inputs and are recomputed in the backward pass.

    Chen et al. 2016, arXiv 1604.06174. Gradients are identical: the random state of dropout is restored.

    Raises:
        Unsupported: the model has no Transformer blocks.
    """
    blocks = transformer_blocks(model)
    if not blocks:
        raise Unsupported("train.checkpoint_activations wants Transformer blocks, and this network has none: set false")
    for block in blocks:
        block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)  # type: ignore[return-value]
