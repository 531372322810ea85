"""A codebook that follows the encoder: exponential moving averages of what falls to each entry (van den Oord et al.
2017, appendix A.1), with entries that nothing falls to put where there is data (Dhariwal et al. 2020, section 3.1).

N vectors of a batch · V entries · D channels

What a small autoencoder is trained on: reconstruction, and a KL or a commitment term. No adversary, no perceptual
network: reconstructions are those of the loss alone.

B batch · C, H, W channels, rows, columns of an image · N positions of a batch · D latent channels
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.processes import Processes
from mar.core.spec import DataSpec
from mar.tokenizers.autoencoder import divided

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


@dataclass(frozen=True)
class Architecture:
    """Of diffusers' ``AutoencoderKL`` or ``VQModel``."""

    kind: Literal["kl", "vq"] = "kl"
    channels: tuple[int, ...] = (32, 64, 64)  # of each level; each after the first halves rows and columns
    blocks: int = 1  # a level
    latent: int = 4  # channels of the latents
    codebook: int = 512  # entries (vq)

    def __post_init__(self) -> None:
        if self.kind not in ("kl", "vq"):
            raise UserError(f"--kind is kl or vq, not {self.kind!r}")
        if not self.channels or min(*self.channels, self.blocks, self.latent) < 1 or self.codebook < 2:
            raise UserError("channels, blocks and latent channels are at least 1, codebook entries at least 2")

    def check(self, spec: DataSpec) -> None:
        """Raises UserError: these are no images, or cannot be halved so often."""
        if spec.latents is not None or spec.modality != "image" or not 2 <= spec.levels <= 256:
            raise UserError(f"an autoencoder is trained on images, not on examples of shape {spec.shape}")
        divided(spec.shape[1:], 2 ** (len(self.channels) - 1))

    def build(self, spec: DataSpec) -> Any:
        """Untrained. Raises UserError as ``check``."""
        from mar.core import torchvision  # noqa: F401, I001 - before diffusers
        from diffusers import AutoencoderKL, VQModel

        self.check(spec)
        common: dict[str, Any] = {
            "in_channels": spec.shape[0],
            "out_channels": spec.shape[0],
            "down_block_types": ("DownEncoderBlock2D",) * len(self.channels),
            "up_block_types": ("UpDecoderBlock2D",) * len(self.channels),
            "block_out_channels": self.channels,
            "layers_per_block": self.blocks,
            "latent_channels": self.latent,
            "norm_num_groups": math.gcd(32, *self.channels),
            "sample_size": spec.shape[1],
        }
        if self.kind == "kl":
            return AutoencoderKL(**common, scaling_factor=1.0)
        return VQModel(**common, num_vq_embeddings=self.codebook, scaling_factor=1.0)


class AutoencoderObjective(nn.Module):
    """The loss: mean |x − x̂| or (x − x̂)² over the values of an image in [-1, 1], plus ``weight`` times

    - kl: KL(posterior ‖ N(0, 1)) in nats per value of the image (Rombach et al. 2022 use 1e-6);
    - vq: the commitment mean (z − e)², e the nearest entry, held still (van den Oord et al. 2017, eq. 3).
    """

    def __init__(self, model: nn.Module, kind: Literal["kl", "vq"], power: Literal[1, 2], weight: float) -> None:
        super().__init__()
        self.model: Any = model
        self.kind, self.power, self.weight = kind, power, weight

    def forward(self, y: torch.Tensor, noise: Noise) -> tuple[torch.Tensor, ...]:
        """y (B, C, H, W) in [-1, 1] -> loss, mean square error, second term; of vq also z_ND and index_N."""
        decoded, second, *assigned = self._kl(y, noise) if self.kind == "kl" else self._vq(y)
        error = (decoded.float() - y).abs()
        return (error**self.power).mean() + self.weight * second, error.detach().square().mean(), second, *assigned

    def _kl(self, y: torch.Tensor, noise: Noise) -> tuple[torch.Tensor, ...]:
        moments = self.model.encode(y).latent_dist
        mean, log_variance = moments.mean.float(), moments.logvar.float()
        z = mean + (0.5 * log_variance).exp() * noise.normal(mean[0].numel()).reshape(mean.shape)
        nats_B = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).flatten(1).sum(1)
        return self.model.decode(z).sample, nats_B.mean() / y[0].numel()

    def _vq(self, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = self.model.encode(y).latents.float()
        entries_VD = self.model.quantize.embedding.weight
        z_ND = z.movedim(1, -1).flatten(0, -2)
        index_N = torch.cdist(z_ND.detach(), entries_VD).argmin(1)
        entry = entries_VD[index_N].unflatten(0, (len(z), *z.shape[2:])).movedim(-1, 1)
        straight = z + (entry - z).detach()
        decoded = self.model.decoder(self.model.post_quant_conv(straight))
        return decoded, (z - entry).square().mean(), z_ND.detach(), index_N
