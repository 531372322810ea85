"""From sort keys and visiting sequences to ranks.

B batch · L tokens
"""

from __future__ import annotations

import torch


def rank_by(*keys_L: torch.Tensor) -> torch.Tensor:
    """rank_L of the tokens sorted by the first key, ties by the next ones, then by token number."""
    order_L = torch.arange(len(keys_L[0]))
    for key_L in reversed(keys_L):  # stable sorts, least significant key first
        order_L = order_L[torch.argsort(key_L[order_L], stable=True)]
    return inverse(order_L)


def argsort_whole(key_BL: torch.Tensor) -> torch.Tensor:
    """The stable argsort of whole numbers 0..2³¹-1 along the last axis: the same on every device.

    Key and place are packed into one integer and sorted as values, which NumPy does some twenty times faster than torch
    finds sorting indices: this is what makes random plans cost milliseconds.
    """
    packed_BL = key_BL << 32 | torch.arange(key_BL.shape[-1], device=key_BL.device)
    if packed_BL.is_cuda:
        packed_BL = packed_BL.sort(dim=-1).values
    else:
        packed_BL.numpy().sort(axis=-1)
    return packed_BL & 0xFFFFFFFF


def shuffle(uniform_BL: torch.Tensor) -> torch.Tensor:
    """A uniformly random permutation (int64) for each row of float32 uniforms in [0, 1), which carry 24 bits each."""
    return argsort_whole((uniform_BL * 2.0**24).long())


def inverse(permutation_L: torch.Tensor) -> torch.Tensor:
    """The inverse permutation along the last axis: positions in visiting order to ranks, and back."""
    index_L = torch.arange(permutation_L.shape[-1], device=permutation_L.device).expand_as(permutation_L)
    return torch.empty_like(permutation_L).scatter_(-1, permutation_L, index_L)
