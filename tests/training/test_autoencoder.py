"""Training small autoencoders: what the losses are, that a kill loses nothing, and that the folder loads back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mar import build, config
from mar.cli.tokenizer import score
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.processes import Processes
from mar.core.spec import DataSpec
from mar.tokenizers.autoencoder import AutoencoderFolder
from mar.tokenizers.vq import perplexity
from mar.training.autoencoder import (
    Architecture,
    AutoencoderObjective,
    AutoencoderRecipe,
    MovingCodebook,
    original_precision,
    train_autoencoder,
)
from mar.training.loop import Trainer
from tests.autoencoders import SMALL, SPEC, images, save
from tests.faults.processes import Running


class Alone:
    is_main = True

    def sum_tensor(self, tensor):
        return tensor


def recipe(kind: str, **changes) -> AutoencoderRecipe:
    architecture = Architecture(kind, SMALL.channels, 1, 3, 16)  # type: ignore[arg-type]
    settings = {"iterations": 6, "batch_size": 32, "log_every": 2, "save_every": 3, "precision": "fp32"}
    return AutoencoderRecipe({"kind": "digits"}, "test", architecture, **{**settings, **changes})


def train(folder: Path, kind: str, **changes) -> Path:
    data = build.data(config.read("digits"))
    return train_autoencoder(recipe(kind, **changes), data, folder, Processes("fp32"), lambda done, total: None)


def test_the_kl_term_is_the_divergence_from_a_standard_normal_per_value():
    model = SMALL.build(SPEC)
    y = images(4) / 8.0 - 1.0
    noise = stream(0, "test", 4)
    loss, square, nats = AutoencoderObjective(model, "kl", 2, 0.5)(y, noise)
    posterior = model.encode(y).latent_dist
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior.mean, posterior.std), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(nats, exact.sum() / y.numel())
    torch.testing.assert_close(loss, square + 0.5 * nats)


def test_the_commitment_moves_the_encoder_and_never_the_codebook():
    model = Architecture("vq", SMALL.channels, 1, 3, 16).build(SPEC)
    codebook = MovingCodebook(model.quantize.embedding.weight)
    loss, _, commitment, z_ND, index_N = AutoencoderObjective(model, "vq", 1, 0.25)(
        images(4) / 8.0 - 1.0, stream(0, "t", 4)
    )
    loss.backward()
    torch.testing.assert_close(commitment, (z_ND - codebook.entries[index_N]).square().mean())
    assert model.quantize.embedding.weight.grad is None and model.encoder.conv_in.weight.grad.abs().sum() > 0


def test_a_moving_codebook_starts_on_data_and_finds_separate_clusters():
    centre_KD = torch.eye(4) * 10
    entries = torch.nn.Parameter(torch.zeros(4, 4))
    codebook = MovingCodebook(entries)
    for step in range(600):
        noise = stream(0, "test/codebook", torch.tensor([step]))
        z_ND = centre_KD.repeat(8, 1) + 0.1 * stream(step, "test/data", 32).normal(4)
        codebook.update(z_ND, torch.cdist(z_ND, entries).argmin(1), noise, Alone())  # type: ignore[arg-type]
    nearest = torch.cdist(centre_KD, entries.detach())
    assert float(nearest.min(1).values.max()) < 0.2 and nearest.argmin(1).unique().numel() == 4


def test_perplexity_is_the_number_of_entries_used_evenly():
    assert float(perplexity(torch.arange(8).repeat(3), 32)) == pytest.approx(8.0)
    assert float(perplexity(torch.zeros(5, dtype=torch.long), 32)) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_killed_training_goes_on_bit_for_bit_and_its_folder_loads(kind, tmp_path, monkeypatch):
    final = train(tmp_path / "whole", kind)
    step = Trainer.step

    def killed(self, batches):
        if self.iteration == 5:
            raise KeyboardInterrupt
        return step(self, batches)

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", kind)
    monkeypatch.undo()
    again = train(tmp_path / "parts", kind)
    assert AutoencoderFolder(again).sha256 == AutoencoderFolder(final).sha256
    assert AutoencoderFolder.find(str(tmp_path / "whole")).path == final
    assert logged(tmp_path / "parts", "iteration") == [2, 4, 6]
    with pytest.raises(UserError, match=r"tokenizer of other settings .learning_rate"):
        train(tmp_path / "parts", kind, learning_rate=1e-4)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    step = Trainer.step

    def exploding(self, batches):
        if self.iteration == 4:
            next(self.model.parameters()).data.fill_(math.nan)
        return step(self, batches)

    monkeypatch.setattr(Trainer, "step", exploding)
    with pytest.raises(UserError, match="not finite"):
        train(tmp_path, "kl", iterations=10, log_every=10, save_every=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00000002", "00000004"]


def logged(folder: Path, key: str) -> list[float]:
    return [json.loads(line)[key] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_two_processes_train_as_one(kind, tmp_path):
    asked = ["--kind", kind, "--channels", "8,8", "--latent", "3", "--codebook", "16", "--batch-size", "32"]
    for world in (1, 2):
        out = ["--iterations", "20", "--precision", "fp32", "--out", str(tmp_path / str(world))]
        run = Running(tmp_path / "logs", ["tokenizer", "train", "digits", *asked, *out], world)
        assert run.wait() == [0] * world, run.said
    # the second half of a batch never starts the codebook when it is another process's
    tolerance = {"kl": 1e-4, "vq": 0.2}[kind]
    assert logged(tmp_path / "2", "loss") == pytest.approx(logged(tmp_path / "1", "loss"), rel=tolerance)
    record = json.loads((tmp_path / "2" / "scores" / "reconstruction.json").read_text())
    assert record["n_images"] == 360 and (record["codebook_perplexity"] is None) is (kind == "kl")
    assert (tmp_path / "2" / "reconstructions.png").is_file()


def test_a_finished_tokenizer_goes_on_longer_which_is_said_and_is_never_called_shorter(tmp_path, capsys):
    train(tmp_path, "kl", iterations=2)
    train(tmp_path, "kl", iterations=3)
    assert "iterations were 2 and are 3: from here on the cosine learning rate follows" in capsys.readouterr().out
    written = (tmp_path / "tokenizer.json").read_text()
    with pytest.raises(UserError, match="has 3 iterations already, and 2 are asked for"):
        train(tmp_path, "kl", iterations=2)
    assert (tmp_path / "tokenizer.json").read_text() == written
    train(tmp_path, "kl", iterations=3)
    assert "resuming" in capsys.readouterr().out and logged(tmp_path, "iteration") == [2, 3]


def test_a_tokenizer_goes_on_in_the_precision_that_it_began_in_wherever(tmp_path):
    file = tmp_path / "tokenizer.json"
    assert original_precision(tmp_path, recipe("kl", precision="auto")) == "auto"
    train(tmp_path, "kl", iterations=1, precision="auto")
    content = json.loads(file.read_text())
    assert content["recipe"]["precision"] == "auto" and content["environment"]["precision"] == "fp32"
    content["environment"]["precision"] = "bf16"  # as if it had begun on a GPU
    file.write_text(json.dumps(content))
    assert original_precision(tmp_path, recipe("kl", precision="auto")) == "bf16"
    assert original_precision(tmp_path, recipe("kl", precision="fp32")) == "fp32"
    with pytest.raises(UserError, match="precision is 'auto' there, 'fp32' here"):
        train(tmp_path, "kl", iterations=1)
    del content["environment"]["precision"]  # as it was written before
    file.write_text(json.dumps(content))
    assert original_precision(tmp_path, recipe("kl", precision="auto")) == "auto"


def test_a_score_keeps_its_rfid_and_gives_way_to_no_other_question(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        save("kl", tmp_path / f"vae-{number}", seed=number)
        score(f"vae-{number}", "digits", n=20, rfid=False)
    files = [tmp_path / "scores" / f"vae-{number}" / "scores" / "reconstruction.json" for number in (1, 2)]
    first, second = (json.loads(file.read_text()) for file in files)
    assert first["sha256"] != second["sha256"]
    files[0].write_text(json.dumps({**first, "rfid": {"fid": 1.5}}))
    score("vae-1", "digits", n=20, rfid=False)
    assert json.loads(files[0].read_text())["rfid"] == {"fid": 1.5}
    with pytest.raises(UserError, match=r"is another score .n_images is 20 there, 10 here"):
        score("vae-1", "digits", n=10, rfid=False)
    with pytest.raises(UserError, match=r"is another score .sha256 is"):
        score("vae-2", "digits", n=20, rfid=False, out=tmp_path / "scores" / "vae-1")


def test_an_extractor_that_cannot_be_had_is_said_before_images_are_reconstructed(tmp_path, monkeypatch):
    monkeypatch.setattr("mar.metrics.reconstruction.reconstruct", None)
    save("kl", tmp_path / "vae")
    with pytest.raises(UserError, match="there is no file"):
        score(
            str(tmp_path / "vae"), "digits", features="inception", features_weights=tmp_path / "absent.pth",
            out=tmp_path / "scores",
        )  # fmt: skip


def test_training_lowers_the_error(tmp_path):
    train(tmp_path / "run", "kl", iterations=60, log_every=10)
    psnr = logged(tmp_path / "run", "psnr_db")
    assert psnr[-1] > psnr[0] + 1.0 and all(map(math.isfinite, psnr))


@pytest.mark.parametrize(
    "spec, channels, said",
    [
        (DataSpec((1, 28, 28), 256), (8, 8, 8, 8), "28x28 images do not divide by 8.*use one of 2 or 4"),
        (DataSpec((1, 7, 7), 256), (8, 8), "use one of 1 "),
        (DataSpec((1, 1, 50), 65, modality="text"), (8,), "trained on images"),
        (DataSpec((1, 1, 50), 0, modality="vector"), (8,), "trained on images"),
    ],
)
def test_impossible_sizes_are_refused_with_what_would_work(spec, channels, said):
    with pytest.raises(UserError, match=said):
        Architecture("kl", channels).build(spec)
