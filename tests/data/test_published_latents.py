"""Latents that MAR's and RAR's codes wrote, from small files in their forms, into models and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mar import build, config
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.data.published_latents import MarLatents, MarLatentsOptions, RarTokens, RarTokensOptions
from mar.tokenizers.kl import KL, KLOptions
from tests.autoencoders import save

NAMES = [f"{kind}/n0{kind}_{i}.JPEG.npz" for kind in (1, 2) for i in range(10)]


def write(folder: Path, channels: int = 3, side: int = 4) -> dict[str, dict[str, np.ndarray]]:
    """MAR's files: means and log-variances of an image and its mirror image."""
    rng, written = np.random.default_rng(0), {}
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        written[name] = {
            k: rng.normal(size=(2 * channels, side, side)).astype("f4") for k in ("moments", "moments_flip")
        }
        np.savez(folder / name, **written[name])
    return written


def load(folder: Path, **options):
    return MarLatents.load(
        MarLatentsOptions(**{"path": str(folder), "size": 8, "validation": 0.2, "test": 0.2} | options)
    )


def test_means_deviations_flips_and_classes_are_those_of_the_files(tmp_path):
    written = write(tmp_path)
    data = load(tmp_path)
    assert data.spec.class_names == ("1", "2") and len(data.train) == 2 * len(data.train.files)
    assert sorted(f for s in (data.train, data.validation, data.test) for f in s.files) == sorted(NAMES)
    n = len(data.train.files)
    x, label = data.train.batch(torch.tensor([2, n + 2]))
    name = data.train.files[2]
    for got, key in zip(x.numpy(), ("moments", "moments_flip"), strict=True):
        mean, log_variance = written[name][key][:3], written[name][key][3:]
        assert np.array_equal(got[:3], mean) and np.allclose(got[3:], np.exp(log_variance / 2))
    assert label.tolist() == [int(name[0]) - 1] * 2
    assert load(tmp_path, flips=False).fingerprint != data.fingerprint == load(tmp_path).fingerprint
    every = data.train.batch(torch.arange(2 * n))[0].double()
    spread = torch.cat([every[:, :3] + every[:, 3:], every[:, :3] - every[:, 3:]])  # has the posterior's variance
    assert torch.allclose(torch.tensor(data.spec.latents.std).double(), spread.std((0, 2, 3), correction=0))


def test_the_autoencoder_of_the_recipe_reads_and_decodes_them(tmp_path):
    write(tmp_path / "cache")
    folder = save("kl", tmp_path / "kl", spec=DataSpec((3, 8, 8), 256))
    over = ["data.kind=mar-latents", f"data.path={tmp_path / 'cache'}", "data.size=8"]
    over += ["data.validation=0.2", "data.test=0.2"]
    recipe = config.read("fashion-kl", [*over, f"tokenizer.path={folder}", "tokenizer.scale=0.5"])
    parts = build.assemble(recipe)
    x, _ = parts.data.train.batch(torch.arange(4))
    token = parts.model.tokenizer.encode(x)
    assert torch.allclose(token, 0.5 * x[:, :3].flatten(2).mT)
    drawn = parts.model.tokenizer.encode(x, stream(0, "test", 4))
    z = ((drawn - token) / 0.5 / x[:, 3:].flatten(2).mT).flatten()
    assert abs(float(z.std()) - 1) < 0.2
    assert parts.model.tokenizer.decode(token).shape == (4, 3, 8, 8)
    with pytest.raises(UserError, match=r"data\.images names their folder"):
        build.images(parts.data)
    with pytest.raises(UserError, match=r"tokenizer\.path is not set"):
        build.assemble(config.read("fashion-kl", over))


def test_latents_of_another_size_or_damaged_are_refused_in_one_line(tmp_path):
    write(tmp_path / "cache")
    folder = save("kl", tmp_path / "kl", spec=DataSpec((3, 16, 16), 256))
    data = load(tmp_path / "cache", size=16)
    with pytest.raises(UserError, match=r"latents of 3x4x4, .* makes 3x8x8 \(data\.size\)"):
        KL(data.spec, KLOptions(str(folder))).encode(data.train.batch(torch.tensor([0]))[0])
    file = tmp_path / "cache" / data.train.files[0]
    for content, words in ((file.read_bytes()[:300], "does not hold MAR's latents"), ({"x": np.zeros(3)}, "moments")):
        file.write_bytes(content) if isinstance(content, bytes) else np.savez(file, **content)
        with pytest.raises(UserError, match=words) as error:
            load(tmp_path / "cache")
        assert "\n" not in str(error.value)


def lines(file: Path, n: int = 12, **changes: object) -> Path:
    rows = [{"class_id": i % 3, "tokens": np.random.default_rng(i).integers(0, 1024, 16).tolist()} for i in range(n)]
    rows[n // 2] |= changes
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_token_files_are_grids_of_categories_with_classes(tmp_path):
    file = lines(tmp_path / "pretokenized.jsonl")
    data = RarTokens.load(RarTokensOptions(str(file), validation=2, test=3))
    assert data.spec.shape == (1, 4, 4) and data.spec.levels == 1024 and data.spec.n_classes == 3
    pairs = set()
    for split, n in ((data.train, 7), (data.validation, 2), (data.test, 3)):
        x, label = split.batch(torch.arange(n))
        pairs |= {(tuple(row.flatten().tolist()), int(y)) for row, y in zip(x, label, strict=True)}
    read = [json.loads(line) for line in file.read_text().splitlines()]
    assert pairs == {(tuple(row["tokens"]), row["class_id"]) for row in read}
    recipe = config.read("digits", ["data.kind=rar-tokens", f"data.path={file}", "data.validation=2", "data.test=3"])
    tokenizer = build.assemble(recipe).model.tokenizer
    x, _ = data.train.batch(torch.arange(2))
    assert tokenizer.shape == (4, 4) and tokenizer.token.vocabulary == 1024 and tokenizer.dimensions == 0
    assert torch.equal(tokenizer.decode(tokenizer.encode(x)), x)


WRONG = [
    ({"tokens": [1, 2]}, "2 tokens, the first line 16"),
    ({"tokens": [1024] * 16}, r"0 to 1023 .* \(data\.levels\)"),
    *[(change, "expected lines") for change in ({"class_id": None}, {"tokens": "x"}, {"tokens": []})],
]


@pytest.mark.parametrize("changes, words", WRONG)
def test_a_wrong_line_is_named(tmp_path, changes, words):
    with pytest.raises(UserError, match=f"line 7 is wrong.*{words}") as error:
        RarTokens.load(RarTokensOptions(str(lines(tmp_path / "x.jsonl", **changes)), validation=1, test=1))
    assert "\n" not in str(error.value)


def test_a_truncated_or_missing_file_is_refused(tmp_path):
    file = lines(tmp_path / "x.jsonl")
    file.write_text(file.read_text()[:-20])
    for path, words in ((str(file), "line 12 is wrong"), ("", "is not set"), ("/nowhere", "is not a file")):
        with pytest.raises(UserError, match=words):
            RarTokens.load(RarTokensOptions(path))
