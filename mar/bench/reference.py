"""The published MAR (Li et al. 2024), imported from a checkout, unchanged, and measured at equal work.

B batch · L tokens · E token channels

Equal work: the same sizes and parameters, batches, masks (its own draw of the mask is overridden on the instance),
repeats of each token in the loss, optimiser, number of AR steps and of head steps, guidance and temperature.
As published: the same, but with its own precision (float32 on a CPU) and 100 ancestral steps of the head, beside ours.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from mar.bench.contenders import Contender, Inputs, Setting, Work
from mar.config import Recipe
from mar.core.errors import Unsupported, UserError
from mar.core.tokens import Vectors
from mar.heads.diffusion import DiffusionHead, DiffusionSampling
from mar.model.model import Model
from mar.networks.masked_transformer import MaskedTransformer

PUBLISHED_STEPS = 100  # of the head's ancestral sampling, for every published FID
_PACKAGES = ("models", "diffusion", "util")  # top-level names of the checkout, given back after the measurement


@contextmanager
def published(path: Path, device: torch.device) -> Iterator[ModuleType]:
    """The module ``models.mar`` of a checkout; ``.cuda()`` does nothing while we are on a CPU.

    Raises:
        UserError: there is no such file.
    """
    if not (path / "models" / "mar.py").is_file():
        raise UserError(f"no models/mar.py in {path}: --reference wants a checkout of the published MAR")
    from mar.core import torchvision  # noqa: F401 - before timm, which it imports

    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in _PACKAGES}
    cuda = torch.Tensor.cuda, nn.Module.cuda
    numpy_state, python_state = np.random.get_state(), random.getstate()
    sys.path.insert(0, str(path))
    try:
        if device.type == "cpu":
            torch.Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
        with torch.random.fork_rng():
            yield importlib.import_module("models.mar")
    finally:
        torch.Tensor.cuda, nn.Module.cuda = cuda  # type: ignore[method-assign]
        sys.path.remove(str(path))
        for name in [name for name in sys.modules if name.split(".")[0] in _PACKAGES]:
            del sys.modules[name]
        sys.modules.update(hidden)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


class Reference(Contender):
    """The published model at the sizes of ``ours``.

    Args:
        own_settings: use its published precision, solver and head steps ("as published" above).
    """

    name = "reference"

    def __init__(
        self, module: ModuleType, recipe: Recipe, ours: Model, setting: Setting, own_settings: bool = False
    ) -> None:
        if own_settings:
            setting = replace(setting, precision="fp32" if setting.device.type == "cpu" else "bf16")
        arguments = _arguments(recipe, ours, PUBLISHED_STEPS if own_settings else None)
        super().__init__(module.MAR(**arguments).to(setting.device), recipe.train, setting)
        self.recipe, self.side, self.head_steps = recipe, ours.tokenizer.shape[0], int(arguments["num_sampling_steps"])
        network = [(self.model, "forward_mae_encoder"), (self.model, "forward_mae_decoder")]
        self.parts = {"network": network, "head": [(self.model.diffloss, "sample")]}

    def loss(self, inputs: Inputs, index: int) -> torch.Tensor:
        """Return its loss on the same tokens with the same masks as ours."""
        example = inputs.example(index)
        self.model.random_masking = lambda x, orders: example.task.target_BL.to(x.dtype)
        image = example.token.transpose(1, 2).reshape(len(example.token), -1, self.side, self.side)
        return self.model(image, example.label_B)

    def train(self, inputs: Inputs) -> Work:
        for example in inputs.examples:
            unknown_BL = example.task.step_BL >= 0
            if bool((unknown_BL != example.task.target_BL).any()) or len(unknown_BL.sum(1).unique()) > 1:
                raise Unsupported(
                    "the published code masks as many tokens in every row and scores them all: "
                    "use train.objective=mar_masking"
                )
        return super().train(inputs)

    def sample(self, inputs: Inputs) -> Work:
        """Its own generation, with the same number of AR steps; its orders are its own random ones."""
        if self.recipe.partition.kind != "cosine":
            raise Unsupported("the published code generates along a cosine schedule: use partition=cosine")
        ar_steps, setting = int(inputs.plan(0).n_steps_B[0]), self.setting

        def work(index: int) -> None:
            self.model.eval()
            with torch.no_grad(), setting.autocast():
                self.model.sample_tokens(
                    bsz=inputs.batch, num_iter=ar_steps, cfg=setting.guidance, cfg_schedule="linear",
                    labels=inputs.labels(index), temperature=setting.temperature,
                )  # fmt: skip

        return work


def _arguments(recipe: Recipe, ours: Model, steps: int | None) -> dict[str, Any]:
    """Its constructor's arguments for the sizes of our model, with ``steps`` of the head's sampling; None: ours."""
    network, head, token, shape = ours.network, ours.head, ours.tokenizer.token, ours.tokenizer.shape
    if not (isinstance(network, MaskedTransformer) and isinstance(head, DiffusionHead) and isinstance(token, Vectors)):
        raise Unsupported(
            "the published code is a masked-transformer with a diffusion head: bench mar-base, mar-large or mar-huge"
        )
    if len(shape) != 2 or shape[0] != shape[1] or not ours.n_classes:
        raise Unsupported(f"the published code wants a square grid and classes, not {shape} and {ours.n_classes}")
    sampling = head.sampling
    assert isinstance(sampling, DiffusionSampling)
    if (head.options.schedule, head.options.timesteps) != ("cosine", 1000):
        raise Unsupported("the published head has 1000 timesteps and a cosine schedule")
    plain = (
        sampling.solver == "ancestral" and not (sampling.final_steps or sampling.respacing) and network.sampling.exact
    )
    if steps is None and not plain:
        raise Unsupported(
            "the published head samples by as many ancestral steps for every token: for another solver beside it as "
            "published, add --reference-as-published"
        )
    sizes = network.sizes
    return {
        "img_size": shape[0],
        "vae_stride": 1,
        "patch_size": 1,
        "vae_embed_dim": token.width,
        "encoder_embed_dim": sizes.encoder_width,
        "encoder_depth": sizes.encoder_depth,
        "encoder_num_heads": sizes.encoder_heads,
        "decoder_embed_dim": sizes.decoder_width,
        "decoder_depth": sizes.decoder_depth,
        "decoder_num_heads": sizes.decoder_heads,
        "mlp_ratio": network.options.mlp_ratio,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        "label_drop_prob": recipe.train.label_drop,
        "class_num": ours.n_classes,
        "attn_dropout": network.options.attention_dropout,
        "proj_dropout": network.options.projection_dropout,
        "buffer_size": sizes.buffer,
        "diffloss_d": head.options.depth,
        "diffloss_w": head.options.width,
        "num_sampling_steps": str(steps or sampling.steps),
        "diffusion_batch_mul": head.options.repeats,
    }
