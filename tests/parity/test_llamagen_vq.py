"""LlamaGen's VQ autoencoder, imported, encodes and decodes as the published class, at weights from a seed."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from mar.cli.main import app
from mar.compat.latent_diffusion import convert
from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.tokenizers.autoencoder import AutoencoderOptions
from mar.tokenizers.vq import VQ
from tests.parity.seeded import recording


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A file as released, and what was recorded."""
    state, recorded = recording("llamagen_vq")
    file = tmp_path_factory.mktemp("vq") / "vq_ds16_c2i.pt"
    torch.save({"model": state, "steps": 1}, file)
    return file, recorded


def test_images_become_the_published_codes_and_codes_the_published_images(released):
    file, recorded = released
    done = CliRunner().invoke(app, ["import", str(file), "--out", str(file.parent / "vq16")])
    assert done.exit_code == 0 and "a VQ autoencoder of 64 codes, widths 32-64-64" in done.output, done.output
    tokenizer = VQ(DataSpec((3, 16, 16), 256, 2), AutoencoderOptions(path=str(file.parent / "vq16")))
    x = recorded["images"].byte()
    with torch.no_grad():
        latents = tokenizer.load().encode(tokenizer.to_unit(x)).latents
        pixels = tokenizer._pixels(recorded["index"].long())
    torch.testing.assert_close(latents, recorded["latents"], atol=1e-4, rtol=0.0)
    assert torch.equal(tokenizer.encode(x), recorded["index"].long()) and len(recorded["index"].unique()) > 16
    torch.testing.assert_close(pixels, recorded["pixels"], atol=1e-4, rtol=0.0)


def test_other_weights_are_refused_in_one_line():
    state, _ = recording("llamagen_vq")
    for wrong, said in (
        ({**state, "encoder.more.weight": torch.zeros(1)}, "first 'encoder.more.weight'"),
        ({name: x for name, x in state.items() if name != "post_quant_conv.weight"}, "no 'post_quant_conv.weight'"),
        ({**state, "quant_conv.weight": torch.zeros(8, 16, 1, 1)}, "first 'quant_conv.weight'"),
    ):
        with pytest.raises(UserError, match=said) as error:
            convert(wrong)
        assert "\n" not in str(error.value)


def test_options_of_networks_and_a_scale_are_not_for_it(released, tmp_path):
    for options, said in (
        (("--heads", "2", "--data", "x"), "is an autoencoder: leave out --heads and --data"),
        (("--scale", "2"), "--scale multiplies the latents of a KL autoencoder"),
    ):
        done = CliRunner().invoke(app, ["import", str(released[0]), "--out", str(tmp_path / "vq"), *options])
        assert isinstance(done.exception, UserError) and said in str(done.exception)
    assert not (tmp_path / "vq").exists()
