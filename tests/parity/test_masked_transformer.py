"""The masked Transformer computes what the recorded reference computed, from the same weights."""

from __future__ import annotations

import pytest
import torch

from mar.compat.published import infer, rename
from mar.core.errors import UserError
from mar.networks.attention import pack_each
from mar.networks.base import GIVEN
from mar.tokenizers.patches import patchify, unpatchify

TOLERANCE = 1e-4


def test_sizes_are_read_off_the_shapes(published, config):
    found = infer(published, config["encoder_num_heads"], config["decoder_num_heads"])
    sizes = found.network.sizes
    assert found.n_tokens == (config["img_size"] // config["vae_stride"] // config["patch_size"]) ** 2
    assert found.token_width == config["vae_embed_dim"] * config["patch_size"] ** 2
    assert found.n_classes == config["class_num"]
    assert (found.head_width, found.head_depth) == (config["diffloss_w"], config["diffloss_d"])
    assert (sizes.encoder_width, sizes.encoder_depth) == (config["encoder_embed_dim"], config["encoder_depth"])
    assert (sizes.decoder_width, sizes.decoder_depth) == (config["decoder_embed_dim"], config["decoder_depth"])
    assert sizes.buffer == config["buffer_size"]
    assert found.network.mlp_ratio == 4.0


def test_patches_are_cut_in_the_published_order(recorded, config):
    p = config["patch_size"]
    tokens = patchify(recorded["in.latents"], p)
    assert torch.equal(tokens, recorded["out.tokens"])
    assert torch.equal(unpatchify(tokens, (4, 4), p), recorded["in.latents"])


def test_the_encoder_sees_the_class_tokens_and_the_known_tokens(model, recorded):
    unknown_BL = recorded["in.mask"].bool()
    network = model.network
    known = pack_each([~unknown_BL], network.sizes.buffer, network.buckets)[0]
    encoded_ND = network.encode(
        model.embedding(recorded["out.tokens"]),
        model.condition(recorded["in.labels"]),
        torch.arange(len(unknown_BL)),
        known,
    )
    kept_RP = known.slot_RP < len(known)
    torch.testing.assert_close(
        encoded_ND[known.slot_RP[kept_RP]], recorded["out.encoder"].flatten(0, 1), atol=TOLERANCE, rtol=0.0
    )


@pytest.mark.parametrize("name", ["z", "z_unconditional"])
def test_the_context_of_unknown_tokens_agrees(model, recorded, name):
    unknown_BL = recorded["in.mask"].bool()
    label_B = recorded["in.labels"] if name == "z" else torch.full_like(recorded["in.labels"], -1)
    step_BL = torch.where(unknown_BL, 0, GIVEN)
    z_MD = model.context(recorded["out.tokens"], step_BL, model.condition(label_B), unknown_BL)
    torch.testing.assert_close(z_MD, recorded[f"out.{name}"][unknown_BL], atol=TOLERANCE, rtol=0.0)


def test_weights_of_another_model_are_refused(published):
    with pytest.raises(UserError, match=r"blocks\.0\.ls1"):
        rename({**published, "blocks.0.ls1": torch.zeros(1)})
    with pytest.raises(UserError, match="z_proj"):
        infer({name: value for name, value in published.items() if not name.startswith("z_proj")})
