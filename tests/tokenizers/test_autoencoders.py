"""Autoencoders of diffusers as tokenizers.

B batch · L tokens · C latent channels · h, w rows, columns of latents
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.spec import DataSpec, Latents
from mar.core.tokens import Categories, Vectors
from mar.model.model import Model
from mar.tokenizers.autoencoder import AutoencoderFolder
from mar.tokenizers.kl import KL, KLOptions
from mar.tokenizers.vq import VQ, AutoencoderOptions
from tests.autoencoders import SPEC, images, save


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("autoencoders")
    return {kind: save(kind, root / kind) for kind in ("kl", "vq")}


def kl(folders, spec=SPEC, **options):
    return KL(spec, KLOptions(path=str(folders["kl"]), **options))


def vq(folders, spec=SPEC):
    return VQ(spec, AutoencoderOptions(path=str(folders["vq"])))


def test_kl_tokens_are_the_scaled_latents_of_diffusers_in_patches(folders):
    tokenizer, x = kl(folders, patch=2, scale=0.5), images(3)
    tokenizer.fit([x])
    mean = AutoencoderFolder.find(str(folders["kl"])).load().encode(x / 8.0 - 1.0).latent_dist.mean
    token = tokenizer.encode(x)
    assert tokenizer.shape == (2, 2) and tokenizer.token == Vectors(12) and tokenizer.dimensions == 0
    torch.testing.assert_close(token[:, 1].reshape(3, 3, 2, 2), 0.5 * mean[:, :, :2, 2:])


def test_kl_decodes_to_what_diffusers_decodes_on_the_nearest_level(folders):
    tokenizer, x = kl(folders), images(4)
    tokenizer.fit([x])
    model = AutoencoderFolder.find(str(folders["kl"])).load()
    decoded = model.decode(model.encode(x / 8.0 - 1.0).latent_dist.mean).sample
    expected = ((decoded + 1.0) * 8.0).clamp(0, 16)
    back = tokenizer.decode(tokenizer.encode(x))
    assert back.dtype == torch.uint8 and back.shape == x.shape
    assert float((back - expected).abs().max()) <= 0.501


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_refused(folders, wrong):
    tokenizer = kl(folders)
    token = torch.full((1, *tokenizer.encode(images(1)).shape[1:]), wrong)
    with pytest.raises(UserError, match="not finite"):
        tokenizer.decode(token)


def test_the_posterior_is_drawn_from_the_images_own_noise_with_its_mean_and_spread(folders):
    tokenizer, x = kl(folders), images(1)
    mean, std = tokenizer.posterior(x)
    cached = torch.cat([mean, std], 1).expand(4000, -1, -1, -1)
    noise = stream(0, "test/posterior", 4000)
    draws = tokenizer.encode(cached, noise)
    assert torch.equal(draws[7:9], tokenizer.encode(cached[7:9], noise.rows(slice(7, 9))))
    one_LC, std_LC = (value[0].flatten(1).T for value in (mean, std))
    torch.testing.assert_close(draws.mean(0), one_LC, rtol=0, atol=5 * float(std.max()) / 4000**0.5)
    torch.testing.assert_close(draws.std(0), std_LC, rtol=0.06, atol=0)
    assert not torch.equal(draws, tokenizer.encode(cached, noise.at(draw=1))), "every epoch draws anew"


def test_the_measured_scale_gives_each_channel_mean_zero_and_variance_one(folders):
    tokenizer, x = kl(folders), images(300)
    tokenizer.fit(x.split(100))
    token = tokenizer.encode(x.repeat(8, 1, 1, 1), stream(0, "test/scale", 2400))
    torch.testing.assert_close(token.mean((0, 1)), torch.zeros(3), rtol=0, atol=0.02)
    torch.testing.assert_close(token.std((0, 1)), torch.ones(3), rtol=0.02, atol=0)


def test_a_given_scale_is_kept_and_a_large_mismatch_is_said(folders):
    measured = kl(folders)
    measured.fit([images(50)])
    about = 1.0 / float((measured.deviation.square() + measured.shift.square()).mean().sqrt())
    for scale, said in ((about, 0), (3.0 * about, 1)):
        tokenizer = kl(folders, scale=scale)
        tokenizer.fit([images(50)])
        assert tokenizer.deviation.tolist() == pytest.approx([1.0 / scale] * 3) and not tokenizer.shift.any()
        assert len(tokenizer.notes) == said
    assert "3 in place of 1" in tokenizer.notes[0]


def test_likelihoods_are_of_latents_whatever_their_scale(folders):
    x = images(20)
    wide, measured = kl(folders, scale=0.1), kl(folders)
    measured.fit([x])
    wide.fit([x])
    # the same Gaussian of the latents, written in tokens of either scale
    density = torch.distributions.Normal(0.1 * measured.shift, 0.1 * measured.deviation)
    first = density.log_prob(wide.encode(x)).sum((1, 2)) + wide.log_jacobian
    standard = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
    second = standard.log_prob(measured.encode(x)).sum((1, 2)) + measured.log_jacobian
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-3)


def test_vq_tokens_are_the_nearest_entries_and_decode_as_in_diffusers(folders):
    tokenizer, x = vq(folders), images(5)
    model = AutoencoderFolder.find(str(folders["vq"])).load()
    latents = model.encode(x / 8.0 - 1.0).latents
    token = tokenizer.encode(x)
    distance = (latents.movedim(1, -1).flatten(1, 2)[:, :, None] - model.quantize.embedding.weight).square().sum(-1)
    assert tokenizer.token == Categories(20) and tokenizer.shape == (4, 4) and tokenizer.dimensions == 0
    assert torch.equal(token, distance.argmin(-1))
    expected = ((model.decode(latents).sample + 1.0) * 8.0).clamp(0, 16)
    assert float((tokenizer.decode(token) - expected).abs().max()) <= 0.501


def test_cached_latents_are_read_as_they_would_be_encoded(folders):
    x, noise = images(6), stream(3, "test/cached", 6)
    continuous, discrete = kl(folders), vq(folders)
    cached = torch.cat(continuous.posterior(x), 1)
    assert torch.equal(continuous.encode(cached, noise), continuous.encode(x, noise))
    index = discrete.encode(x).unflatten(1, (1, 4, 4)).to(torch.int16)
    assert torch.equal(discrete.encode(index), discrete.encode(x))


class _Part(torch.nn.Linear):
    token_width = condition_width = context_width = 4
    cosine_token_init, condition_length = False, 0


def test_a_model_saves_and_trains_none_of_the_autoencoder(folders):
    tokenizer = kl(folders)
    tokenizer.encode(images(1))
    model = Model(tokenizer, _Part(4, 4), _Part(4, 4), 10)  # type: ignore[arg-type]
    assert {k for k in model.state_dict() if k.startswith("tokenizer")} == {
        "tokenizer.checksum", "tokenizer.shift", "tokenizer.deviation",
    }  # fmt: skip
    assert not list(tokenizer.parameters())


def test_weights_are_refused_with_another_autoencoder_than_they_were_trained_with(folders, tmp_path):
    saved = kl(folders).state_dict()
    other = KL(SPEC, KLOptions(path=str(save("kl", tmp_path / "other", seed=1))))
    with pytest.raises(UserError, match="is not the autoencoder that these weights were trained with"):
        other.load_state_dict(saved)
    kl(folders).load_state_dict(saved)


def test_a_checksum_depends_on_weights_and_on_sizes_not_on_versions(folders, tmp_path):
    before = AutoencoderFolder.find(str(folders["kl"])).sha256
    copy = save("kl", tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    for changed, same in (({"_diffusers_version": "9"}, True), ({"latent_channels": 5}, False)):
        (copy / "config.json").write_text(json.dumps({**config, **changed}))
        assert (AutoencoderFolder.find(str(copy)).sha256 == before) is same


@pytest.mark.parametrize(
    "spec, options, said",
    [
        (SPEC, {"path": ""}, "tokenizer.path is not set"),
        (SPEC, {"path": "/nowhere"}, "holds no autoencoder of diffusers"),
        (SPEC, {"path": "no-such/autoencoder"}, "give its folder"),
        (SPEC, {"patch": 3}, "tokenizer.patch=1 or 2 or 4"),
        (DataSpec((3, 8, 8), 256), {}, "takes images of 1 channels"),
        (DataSpec((1, 9, 8), 17), {}, "do not divide by 2"),
        (DataSpec((1, 1, 8), 17, modality="text"), {}, "takes images of 1 channels, not examples of shape"),
        (replace(SPEC, latents=Latents("vq", "", "")), {}, "use tokenizer.kind=vq"),
        (replace(SPEC, latents=Latents("kl", "", "0")), {}, "not the autoencoder that made the cache"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(folders, spec, options, said, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=said) as error:
        KL(spec, KLOptions(**{"path": str(folders["kl"]), **options}))
    assert "\n" not in str(error.value)


def test_weights_that_do_not_fit_their_configuration_are_refused(tmp_path):
    folder = save("kl", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for changed, said in (({"layers_per_block": 2}, "lacks"), ({"latent_channels": 5}, "does not hold an autoencoder")):
        (folder / "config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(UserError, match=said):
            KL(SPEC, KLOptions(path=str(folder))).encode(images(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("block_out_channels"), "has no block_out_channels"),
        (lambda c: c.pop("in_channels"), "has no in_channels"),
        (lambda c: c.update(block_out_channels=None), "has block_out_channels=None"),
        (lambda c: c.update(latent_channels="3"), "has latent_channels='3'"),
        (lambda c: c.pop("_class_name"), "holds a None"),
        (lambda c: [c.pop(key) for key in list(c)], "holds a None"),
    ],
)
def test_a_configuration_without_its_keys_is_refused_in_one_line(tmp_path, change, said):
    folder = save("kl", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said):
        KL(SPEC, KLOptions(path=str(folder)))
    for text in ("[]", "{", "\0"):
        (folder / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config\.json does not hold the configuration of an autoencoder"):
            KL(SPEC, KLOptions(path=str(folder)))


def test_a_vq_model_is_no_kl_autoencoder(folders):
    with pytest.raises(UserError, match=r"is a VQModel: use tokenizer.kind=vq"):
        KL(SPEC, KLOptions(path=str(folders["vq"])))
