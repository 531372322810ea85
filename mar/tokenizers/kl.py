"""Latents of a KL autoencoder as continuous vectors, with a measured or a given scale.

B batch · L tokens · C latent channels · h, w rows, columns of latents · E token channels (C p p, in the order (c p q))
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import torch

from mar.core.devices import double
from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.options import POSITIVE
from mar.core.spec import DataSpec
from mar.core.tokens import Vectors
from mar.tokenizers.autoencoder import AutoencoderOptions, AutoencoderTokenizer
from mar.tokenizers.base import moments
from mar.tokenizers.patches import patch_grid, patchify, unpatchify

_BATCHES = 4  # of 500 images: a standard deviation to within a percent
_MISMATCH = 1.25  # ratio of the given to the measured scale; beyond it, a warning


@dataclass(frozen=True)
class KLOptions(AutoencoderOptions):
    patch: int = 1  # side of a token in latents
    scale: float | None = None  # token = latent · scale, as published; None: measured, per channel
    bounds: ClassVar = {"scale": POSITIVE}


class KL(AutoencoderTokenizer):
    """token = (z − shift) / deviation; z is a draw of the posterior N(mean, std²) with ``noise``, its mean without."""

    Options = KLOptions
    kind = "kl"
    token: Vectors
    shift: torch.Tensor  # (C,)
    deviation: torch.Tensor  # (C,)

    def __init__(self, spec: DataSpec, options: KLOptions) -> None:
        super().__init__(spec, options)
        channels, self.patch, self.given = self.config["latent_channels"], options.patch, options.scale
        self.shape = patch_grid((channels, *self.latent_shape), options.patch)
        self.token = Vectors(channels * options.patch**2)
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("deviation", torch.full((channels,), 1.0 / (options.scale or 1.0)))

    def fit(self, batches: Iterable[torch.Tensor]) -> None:
        """Measure or read from the cache each channel's mean and total deviation; a given scale is only compared."""
        if (cached := self.spec.latents) is not None:
            mean_C, std_C = torch.tensor(cached.mean), torch.tensor(cached.std)
        else:
            mean_C, square_C = moments(self._spread(x) for x in islice(batches, _BATCHES))
            std_C = (square_C - mean_C.square()).sqrt()
        if self.given is None:
            self.shift.copy_(mean_C)
            self.deviation.copy_(std_C)
            return
        self.deviation.fill_(1.0 / self.given)
        measured = 1.0 / float((std_C.square() + mean_C.square()).mean().sqrt())
        if not 1 / _MISMATCH < self.given / measured < _MISMATCH:
            self.notes = (
                f"tokenizer.scale={self.given:g}, but these latents measure {measured:.4g}: tokens have a standard "
                f"deviation of {self.given / measured:.3g} in place of 1",
            )

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, C, H, W) uint8 images, or (B, 2 C, h, w) of a cache, -> (B, L, E) float32."""
        mean, std = self.posterior(x)
        z = mean if noise is None else mean + std * noise.normal(mean[0].numel()).reshape(mean.shape)
        return patchify((z - self.shift[:, None, None]) / self.deviation[:, None, None], self.patch)

    @torch.no_grad()
    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L, E) -> (B, C, H, W) uint8."""
        z = unpatchify(token.float(), self.shape, self.patch)
        z = z * self.deviation[:, None, None] + self.shift[:, None, None]
        with torch.autocast(z.device.type, enabled=False):
            return torch.cat([self.to_levels(self.load().decode(part).sample) for part in self.parts(z)])

    @torch.no_grad()
    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean and standard deviation of the posterior, (B, C, h, w) float32 each."""
        if x.is_floating_point():
            mean, std = x.float().chunk(2, dim=1)
            if mean.shape[1:] != (wanted := (self.config["latent_channels"], *self.latent_shape)):
                held, wanted = ("x".join(map(str, shape)) for shape in (mean.shape[1:], wanted))
                raise UserError(f"the data have latents of {held}, {self.folder.path} makes {wanted} (data.size)")
            return mean, std
        with torch.autocast(x.device.type, enabled=False):
            found = [self.load().encode(self.to_unit(part)).latent_dist for part in self.parts(x)]
        return torch.cat([p.mean for p in found]), torch.cat([p.std for p in found])

    @property
    def log_jacobian(self) -> float:
        """−h w Σ_C log deviation: likelihoods are those of z, whatever its scale."""
        return -self.latent_shape[0] * self.latent_shape[1] * float(double(self.deviation).log().sum())

    def _spread(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows (N, C) with the mean and mean square of posterior samples: mean ± std."""
        mean, std = self.posterior(x.to(self.shift.device))
        return torch.cat([mean + std, mean - std]).movedim(1, -1).flatten(0, -2).cpu()
