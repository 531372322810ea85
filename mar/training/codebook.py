"""A codebook that follows the encoder: exponential moving averages of what falls to each entry (van den Oord et al.
2017, appendix A.1), with entries that nothing falls to put where there is data (Dhariwal et al. 2020, section 3.1).

N vectors of a batch · V entries · D channels
"""

from __future__ import annotations

import torch
from torch import nn

from mar.distributed import Processes
from mar.noise import Noise

_DECAY = 0.99
_DEAD = 0.05  # of an even share: an entry used less is put on a vector of the batch


class MovingCodebook(nn.Module):
    """Updates ``entries`` in place. In the first batch all entries are unused, and so start on data."""

    count_V: torch.Tensor
    total_VD: torch.Tensor

    def __init__(self, entries: nn.Parameter) -> None:
        super().__init__()
        self._entries = (entries.requires_grad_(False),)  # the model's: neither saved nor moved twice
        self.register_buffer("count_V", torch.zeros_like(entries[:, 0]))
        self.register_buffer("total_VD", torch.zeros_like(entries))

    @property
    def entries(self) -> torch.Tensor:
        return self._entries[0]

    @torch.no_grad()
    def update(self, z_ND: torch.Tensor, index_N: torch.Tensor, noise: Noise, processes: Processes) -> None:
        """One batch. ``noise`` (one stream, the same for every process) picks where unused entries go."""
        size = len(self.entries)
        pick_V = (noise.uniform(size)[0] * len(z_ND)).long()
        spare_VD = z_ND[pick_V] * float(processes.is_main)  # the first process's, once summed
        count_V1 = torch.zeros_like(self.count_V).index_add_(0, index_N, torch.ones_like(z_ND[:, 0]))[:, None]
        total_VD = torch.zeros_like(self.total_VD).index_add_(0, index_N, z_ND)
        summed = processes.sum_tensor(torch.cat([count_V1, total_VD, spare_VD], 1))
        count_V, total_VD, spare_VD = summed[:, 0], summed[:, 1 : 1 + z_ND.shape[1]], summed[:, 1 + z_ND.shape[1] :]
        share = float(count_V.sum()) / size
        self.count_V.lerp_(count_V, 1.0 - _DECAY)
        self.total_VD.lerp_(total_VD, 1.0 - _DECAY)
        dead_V = self.count_V < _DEAD * share
        self.count_V[dead_V] = share
        self.total_VD[dead_V] = spare_VD[dead_V] * share
        self.entries.copy_(self.total_VD / self.count_V[:, None])
