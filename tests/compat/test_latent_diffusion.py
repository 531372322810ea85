"""KL autoencoders in latent-diffusion's layout as diffusers' models (their numbers: tests/parity)."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from mar.cli.main import app
from mar.compat.latent_diffusion import KL16, convert, sizes, state_dict
from mar.core.errors import UserError


def convolution(name, inputs, outputs, kernel=3):
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block(name, inputs, outputs):
    shapes = norm(f"{name}.norm1", inputs) | convolution(f"{name}.conv1", inputs, outputs)
    shapes |= norm(f"{name}.norm2", outputs) | convolution(f"{name}.conv2", outputs, outputs)
    return shapes | (convolution(f"{name}.nin_shortcut", inputs, outputs, 1) if inputs != outputs else {})


def attention(name, width):
    parts = (convolution(f"{name}.{part}", width, width, 1) for part in ("q", "k", "v", "proj_out"))
    return norm(f"{name}.norm", width) | {key: shape for part in parts for key, shape in part.items()}


def middle(part, width):
    name = f"{part}.mid"
    return (
        block(f"{name}.block_1", width, width)
        | attention(f"{name}.attn_1", width)
        | block(f"{name}.block_2", width, width)
    )


def layout(widths, blocks, latent):
    """Names and shapes of latent-diffusion's autoencoder, attention at the encoder's lowest level."""
    low, last = widths[-1], len(widths) - 1
    shapes = convolution("encoder.conv_in", 3, widths[0]) | convolution("decoder.conv_in", latent, low)
    before = widths[0]
    for i, width in enumerate(widths):
        for j in range(blocks):
            shapes |= block(f"encoder.down.{i}.block.{j}", before if j == 0 else width, width)
            shapes |= attention(f"encoder.down.{i}.attn.{j}", width) if i == last else {}
        shapes |= convolution(f"encoder.down.{i}.downsample.conv", width, width) if i < last else {}
        before = width
    before = low
    for i, width in reversed(list(enumerate(widths))):
        for j in range(blocks + 1):
            shapes |= block(f"decoder.up.{i}.block.{j}", before if j == 0 else width, width)
        shapes |= convolution(f"decoder.up.{i}.upsample.conv", width, width) if i > 0 else {}
        before = width
    shapes |= middle("encoder", low) | middle("decoder", low)
    shapes |= norm("encoder.norm_out", low) | convolution("encoder.conv_out", low, 2 * latent)
    shapes |= norm("decoder.norm_out", widths[0]) | convolution("decoder.conv_out", widths[0], 3)
    return (
        shapes
        | convolution("quant_conv", 2 * latent, 2 * latent, 1)
        | convolution("post_quant_conv", latent, latent, 1)
    )


def weights(shapes):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def state():
    return weights(layout((32, 64, 64), 2, 4))


def test_every_weight_lands_once_and_unchanged(state):
    model = convert(state)
    ours = sorted(float(weight.double().sum()) for weight in model.state_dict().values())
    assert ours == sorted(float(weight.double().sum()) for weight in state.values())
    up = model.decoder.up_blocks
    assert torch.equal(up[0].upsamplers[0].conv.weight, state["decoder.up.2.upsample.conv.weight"])
    assert torch.equal(up[2].resnets[1].conv1.weight, state["decoder.up.0.block.1.conv1.weight"])
    attends = model.encoder.down_blocks[2].attentions[1]
    assert torch.equal(attends.to_k.weight, state["encoder.down.2.attn.1.k.weight"][:, :, 0, 0])


def test_the_released_kl16_is_known_by_its_shapes():
    shapes = layout((128, 128, 256, 256, 512), 2, 16)
    found = sizes({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    assert {key: found[key] for key in KL16} == KL16
    assert found["sample_size"] == 256 and found["down_block_types"][-1] == "AttnDownEncoderBlock2D"


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s, "epoch": 1}])
def test_weights_are_found_bare_or_under_a_key_without_the_discriminator(state, wrap):
    found = state_dict(wrap({**state, "loss.discriminator.main.0.weight": torch.zeros(1)}))
    assert found is not None and found.keys() == state.keys()
    assert state_dict({"model": {"z_proj.weight": torch.zeros(1)}}) is None


def test_names_of_a_data_parallel_training_are_known(state):
    found = state_dict({"state_dict": {f"module.{name}": weight for name, weight in state.items()}})
    assert found is not None and found.keys() == state.keys()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_positive_and_finite(state, scale):
    with pytest.raises(UserError, match="--scale is a positive number"):
        convert(state, scale)


def test_weights_that_are_no_numbers_are_refused_by_name(state):
    with pytest.raises(UserError, match=r"NaN or infinite, first 'decoder\.conv_in\.bias'"):
        state_dict({**state, "decoder.conv_in.bias": torch.full((64,), torch.nan)})


def test_other_autoencoders_are_refused_by_name(state):
    with pytest.raises(UserError, match="post_quant_conv"):
        convert({name: weight for name, weight in state.items() if not name.startswith("post_quant")})
    with pytest.raises(UserError, match=r"first 'encoder\.extra'"):
        convert({**state, "encoder.extra": torch.zeros(1)})
    with pytest.raises(UserError, match="multiples of 32"):
        convert(weights(layout((24, 48), 1, 4)))


def test_weights_of_fewer_dimensions_are_refused_in_one_line(state):
    with pytest.raises(UserError, match="other dimensions"):
        convert(state | {"post_quant_conv.weight": torch.zeros(3)})


def test_the_command_writes_what_the_tokenizer_reads(state, tmp_path):
    from mar.core.spec import DataSpec
    from mar.tokenizers.kl import KL, KLOptions

    torch.save({"model": {name: 0.05 * weight.half() for name, weight in state.items()}}, tmp_path / "kl.ckpt")
    arguments = ["import", str(tmp_path / "kl.ckpt"), "--out", str(tmp_path / "kl"), "--scale", "0.5"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "4 channels" in done.output, done.output
    tokenizer = KL(DataSpec((3, 16, 16), 256), KLOptions(path=str(tmp_path / "kl")))
    assert tokenizer.shape == (4, 4) and tokenizer.config["scaling_factor"] == 0.5
    assert tokenizer.decode(torch.zeros(1, 16, 4)).shape == (1, 3, 16, 16)
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, UserError)
