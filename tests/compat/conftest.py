"""A small random model in the released layout, the run it becomes, an autoencoder of its latents."""

from __future__ import annotations

import argparse

import pytest
import torch

from mar import build, config
from mar.compat.published import restore
from mar.compat.released import import_run
from mar.compat.weights_file import read
from mar.core.spec import DataSpec
from mar.data.base import About
from mar.run import load

SIZE = {
    "encoder_width": 16, "encoder_depth": 2, "encoder_heads": 2, "decoder_width": 24, "decoder_depth": 1,
    "decoder_heads": 4, "buffer": 3,
}  # fmt: skip
PATCH, CHANNELS, CLASSES = 2, 3, 5


@pytest.fixture(scope="module")
def original():
    """A small random model of the published form: unequal widths, patches of 2, a buffer of 3."""
    recipe = config.parse(
        {
            "data": {"kind": "cache"},
            "tokenizer": {"kind": "latents", "patch": PATCH, "scale": 0.2325},
            "network": {"kind": "masked-transformer", **SIZE},
            "head": {"kind": "diffusion", "width": 20, "depth": 2},
        }
    )
    spec = DataSpec((CHANNELS, 3 * PATCH, 3 * PATCH), 0, CLASSES, modality="latent")
    return build.assemble(recipe, About("", spec, "")).model.eval()


def noisy(model, seed):
    """A state dict as released, no weight of which is left at its start."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return restore({name: p + 0.1 * torch.randn(p.shape, generator=generator) for name, p in weights.items()})


@pytest.fixture(scope="module")
def content(original):
    return {"model": noisy(original, 0), "model_ema": noisy(original, 1), "epoch": 3, "args": argparse.Namespace(lr=1)}


@pytest.fixture(scope="module")
def file(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "mar.pth"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def run(file):
    out = file.parent / "run"
    import_run(read(file), out, (2, 4), patch=PATCH)
    return load(out, device="cpu")


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    from mar.core import torchvision  # noqa: F401, I001 - before diffusers
    from diffusers import AutoencoderKL

    path = tmp_path_factory.mktemp("vae") / "kl"
    AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=8, latent_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).save_pretrained(path)  # fmt: skip
    return str(path)
