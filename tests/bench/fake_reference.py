"""A stand-in for a checkout of the published MAR: its constructor and calls, a few parameters, no meaning."""

from __future__ import annotations

from pathlib import Path

SOURCE = """
import torch
from torch import nn

from diffusion import NOISE_SCALE


class DiffLoss(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.net = nn.Linear(channels, channels)

    def sample(self, z, temperature=1.0, cfg=1.0):
        return self.net(torch.randn_like(z).cuda()) * NOISE_SCALE


class MAR(nn.Module):
    masks = []  # every mask that a forward pass was given

    def __init__(self, **arguments):
        super().__init__()
        self.arguments = arguments
        self.seq_len = (arguments["img_size"] // arguments["vae_stride"]) ** 2
        self.channels = arguments["vae_embed_dim"]
        self.diffloss = DiffLoss(self.channels)

    def random_masking(self, x, orders):
        raise AssertionError("its own draw of the mask must be overridden")

    def forward_mae_encoder(self, x, mask, class_embedding):
        return x

    def forward_mae_decoder(self, x, mask):
        return x

    def forward(self, imgs, labels):
        x = imgs.cuda().flatten(2).transpose(1, 2)
        mask = self.random_masking(x, None)
        MAR.masks.append(mask)
        z = self.forward_mae_decoder(self.forward_mae_encoder(x, mask, labels), mask)
        return ((self.diffloss.net(z) - x).square().mean(-1) * mask).sum() / mask.sum()

    def sample_tokens(self, bsz, num_iter, cfg, cfg_schedule, labels, temperature):
        tokens = torch.zeros(bsz, self.seq_len, self.channels).cuda()
        for _ in range(num_iter):
            z = self.forward_mae_decoder(self.forward_mae_encoder(tokens, None, labels), None)
            tokens = self.diffloss.sample(z, temperature, cfg)
        return tokens
"""


def write_checkout(folder: Path) -> Path:
    for name, text in {"models/mar.py": SOURCE, "diffusion/__init__.py": "NOISE_SCALE = 1.0\n"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
