"""Caches of latents: what direct encoding gives, the same files for any number of processes and kills, and damage."""

from __future__ import annotations

import json
import shutil
import signal
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mar import build, config, run
from mar.cli.tokenizer import cache as command
from mar.cli.tokenizer import data_of
from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.cache import Cache, CacheOptions
from mar.data.folder import Folder, FolderOptions
from mar.data.shards import Settings
from mar.tokenizers import TOKENIZERS
from mar.tokenizers.autoencoder import AutoencoderFolder
from mar.training import caching
from tests.autoencoders import save
from tests.faults.processes import Running
from tests.training.conftest import TINY

GREY = ["data.size=8", "data.colour=grey"]
SHARD = 100  # of 72 + 360 + 1365 digits: 19 shards


class Alone:
    """One process on the CPU."""

    rank, world, is_main, device = 0, 1, True, torch.device("cpu")

    def wait(self) -> None: ...

    def together(self) -> nullcontext[None]:
        return nullcontext()

    def on_main(self, action):
        return action()


def encode(kind: str, autoencoder: Path, out: Path, flips=False, precision="float32", shard=SHARD):
    section, data = data_of("digits", [])
    found = AutoencoderFolder.find(str(autoencoder))
    cls = TOKENIZERS[kind]
    tokenizer = cls(data.spec, cls.Options(path=str(autoencoder)))
    made = Settings(data.name, section, data.fingerprint, data.spec, kind, found.sha256, flips, precision, shard)  # type: ignore[arg-type]
    caching.encode_all(data, tokenizer, made, out, Alone(), 64, lambda done, total: None)  # type: ignore[arg-type]
    return data, tokenizer


@pytest.fixture(scope="module", params=["kl", "vq"])
def cached(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    data, tokenizer = encode(request.param, save(request.param, root / "autoencoder"), root / "cache")
    return root / "cache", data, tokenizer


@pytest.fixture
def cache(cached, tmp_path):
    return shutil.copytree(cached[0], tmp_path / "cache")


def load(folder: Path, **options):
    return Cache.load(CacheOptions(str(folder), **options))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def damage(file: Path, row: int) -> None:
    """Flip one bit of an example's latents."""
    raw = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8:start])["latent"]
    begin, end = entry["data_offsets"]
    raw[start + begin + row * (end - begin) // entry["shape"][0]] ^= 1
    file.write_bytes(raw)


def test_a_cache_holds_what_direct_encoding_gives(cached):
    folder, data, tokenizer = cached
    stored = load(folder)
    for name in ("train", "validation", "test"):
        index = torch.arange(len(data.split(name))).flip(0)[:150]  # over two shards, backwards
        x, label = data.split(name).batch(index)
        latent, label_again = stored.split(name).batch(index)
        assert len(stored.split(name)) == len(data.split(name)) and torch.equal(label, label_again)
        direct, read = tokenizer.encode(x), tokenizer.encode(latent)
        torch.testing.assert_close(read, direct, rtol=1e-5, atol=1e-5)


def test_a_finished_cache_of_images_that_were_replaced_is_not_done(tmp_path):
    def write(shift: int) -> None:
        for split in ("train", "val", "test"):
            for i in range(4):
                file = tmp_path / "d" / split / "a" / f"{i}.bmp"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(i).integers(shift, shift + 128, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(file)

    write(0)
    autoencoder, out = str(save("kl", tmp_path / "kl", spec=DataSpec((1, 8, 8), 256))), tmp_path / "cache"
    again = partial(command, f"folder:{tmp_path / 'd'}", GREY, tokenizer=autoencoder, out=out)
    again()
    content = json.loads((out / "settings.json").read_text())
    former = Folder.load(FolderOptions(str(tmp_path / "d"), size=8, colour="grey")).former
    (out / "settings.json").write_text(json.dumps(content | {"fingerprint": former}))  # as earlier versions wrote it
    again()
    assert json.loads((out / "settings.json").read_text())["fingerprint"] == former
    (out / "settings.json").write_text(json.dumps(content))
    (tmp_path / "d").rename(tmp_path / "moved")
    moved = partial(command, f"folder:{tmp_path / 'moved'}", GREY, tokenizer=autoencoder, out=out)
    moved()
    (tmp_path / "moved").rename(tmp_path / "d")
    write(128)
    with pytest.raises(UserError, match=r"a cache of other settings \(fingerprint is"):
        again()


def test_images_and_their_description_stay_those_of_the_source(cached):
    folder, data, _ = cached
    stored = load(folder)
    assert stored.spec.shape == data.spec.shape and stored.spec.class_names == data.spec.class_names
    assert build.images(stored).fingerprint == data.fingerprint


def test_the_scale_is_that_of_the_whole_training_split(cached):
    folder, data, tokenizer = cached
    if tokenizer.kind == "vq":
        assert load(folder).spec.latents.std == ()
        return
    x, _ = data.train.batch(torch.arange(len(data.train)))
    mean, std = tokenizer.posterior(x)
    latents = load(folder).spec.latents
    variance = mean.double().var((0, 2, 3), correction=0) + std.double().square().mean((0, 2, 3))
    torch.testing.assert_close(torch.tensor(latents.std).double(), variance.sqrt(), rtol=1e-4, atol=0)
    fresh = type(tokenizer)(load(folder).spec, type(tokenizer).Options())
    fresh.fit([])
    assert fresh.deviation.tolist() == pytest.approx(list(latents.std))


def test_flips_are_the_latents_of_mirrored_images_and_only_of_training(cached, tmp_path):
    _, data, tokenizer = cached
    encode(tokenizer.kind, tokenizer.folder.path, tmp_path / "flipped", flips=True)
    stored = load(tmp_path / "flipped")
    index = torch.arange(5)
    x, label = data.train.batch(index)
    latent, label_again = stored.train.batch(index + len(data.train))
    torch.testing.assert_close(tokenizer.encode(latent), tokenizer.encode(x.flip(-1)), rtol=1e-5, atol=1e-5)
    assert torch.equal(label, label_again) and len(stored.train) == 2 * len(data.train)
    assert len(stored.test) == len(data.test)


def test_half_precision_halves_the_files_and_rounds_by_a_two_thousandth(cached, tmp_path):
    folder, _, tokenizer = cached
    if tokenizer.kind == "vq":
        pytest.skip("indices are whole numbers")
    encode("kl", tokenizer.folder.path, tmp_path / "half", precision="float16")
    index = torch.arange(50)
    exact, half = load(folder).train.batch(index)[0], load(tmp_path / "half").train.batch(index)[0]
    torch.testing.assert_close(half, exact, rtol=2**-11, atol=1e-6)


def test_a_cache_goes_on_after_a_kill_and_has_the_same_files(cached, tmp_path, monkeypatch):
    folder, _, tokenizer = cached
    write, calls = caching.write_shard, []

    def killed(file, *tensors):
        calls.append(file)
        if len(calls) == 7:
            file.write_bytes(b"half")
            raise KeyboardInterrupt
        write(file, *tensors)

    monkeypatch.setattr(caching, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        encode(tokenizer.kind, tokenizer.folder.path, tmp_path / "cache")
    with pytest.raises(UserError, match="unfinished cache"):
        load(tmp_path / "cache")
    encode(tokenizer.kind, tokenizer.folder.path, tmp_path / "cache")
    assert len(calls) == 7 + 19 - 6, "finished shards are kept"
    assert files(tmp_path / "cache") == files(folder)


def test_another_cache_is_not_written_into_the_folder(cache, cached):
    with pytest.raises(UserError, match=r"cache of other settings .shard is 100 there, 50 here"):
        encode(cached[2].kind, cached[2].folder.path, cache, shard=50)


def test_a_flipped_bit_is_named_and_refused_or_the_next_example_stands_in(cache, cached, capsys):
    file = cache / "train" / "00002.safetensors"
    damage(file, row=3)
    index = torch.tensor([202, 203, 204])
    with pytest.raises(UserError, match=r"00002.safetensors: example 3 does not match its checksum \(1 of 1365"):
        load(cache, damaged_limit=0).train.batch(index)
    x, _ = load(cache, damaged_limit=1).train.batch(index)
    assert "00002.safetensors: example 3" in capsys.readouterr().err
    whole = load(cached[0]).train
    assert torch.equal(x, whole.batch(torch.tensor([202, 204, 204]))[0])
    damage(file, row=4)
    with pytest.raises(UserError, match=r"2 of 1365 damaged in train, of 1 allowed"):
        load(cache, damaged_limit=1).train.batch(index)


def test_a_truncated_or_missing_shard_is_found_at_the_start(cache, capsys):
    file = cache / "train" / "00001.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"00001\.safetensors is truncated, 100 examples"):
        load(cache)
    x, _ = load(cache, damaged_limit=100).train.batch(torch.tensor([99, 100, 199, 200]))
    assert torch.equal(x[1], x[3]) and torch.equal(x[2], x[3]) and "is truncated" in capsys.readouterr().err
    file.unlink()
    with pytest.raises(UserError, match="is missing"):
        load(cache)


def test_a_split_of_damaged_examples_alone_is_refused_whatever_the_limit(cache):
    (cache / "train" / "00013.safetensors").unlink()
    manifest = json.loads((cache / "manifest.json").read_text())
    manifest["shards"]["train"] = manifest["shards"]["train"][:1]
    (cache / "manifest.json").write_text(json.dumps(manifest))
    (cache / "train" / "00000.safetensors").unlink()
    with pytest.raises(UserError, match="100 of 100 damaged in train, of 99 allowed"):
        load(cache, damaged_limit=1000).train.batch(torch.tensor([0]))


def test_a_damaged_header_is_damage_like_any_other(cache, capsys):
    file = cache / "train" / "00002.safetensors"
    raw = bytearray(file.read_bytes())
    raw[9] ^= 128
    file.write_bytes(raw)
    with pytest.raises(UserError, match=r"00002\.safetensors has a damaged header, 100 examples \(100 of 1365"):
        load(cache).train.batch(torch.tensor([200]))
    x, _ = load(cache, damaged_limit=100).train.batch(torch.tensor([200, 300]))
    assert torch.equal(x[0], x[1]) and "damaged header" in capsys.readouterr().err


def test_what_is_scored_is_scored_whole(cache):
    damage(cache / "test" / "00000.safetensors", row=1)
    with pytest.raises(UserError, match="1 of 360 damaged in test, of 0 allowed"):
        load(cache).test.batch(torch.tensor([1]))


def test_the_same_command_mends_damage(cache, cached):
    damage(cache / "train" / "00002.safetensors", row=3)
    (cache / "test" / "00000.safetensors").unlink()
    encode(cached[2].kind, cached[2].folder.path, cache)
    assert files(cache) == files(cached[0])


def test_only_what_is_asked_for_is_read(cached):
    split = load(cached[0]).train
    split.batch(torch.tensor([0, 1250]))
    assert sorted(split.shards) == [0, 12]
    with pytest.raises(IndexError):
        split.batch(torch.tensor([1365]))


def test_what_is_no_cache_is_refused(tmp_path, cached):
    for path, said in (("", "data.path is not set"), ("/nowhere", "is not a folder"), (str(tmp_path), "no cache")):
        with pytest.raises(UserError, match=said):
            load(path)
    with pytest.raises(UserError, match="is a cache of latents already"):
        command(f"cache:{cached[0]}")
    with pytest.raises(UserError, match=f"use tokenizer.kind={cached[2].kind}"):
        recipe = config.read("digits", ["data.kind=cache", f"data.path={cached[0]}"])
        build.assemble(recipe)


def test_a_run_finds_a_cache_that_moved_with_it_and_is_told_of_one_that_moved_alone(cached, tmp_path, monkeypatch):
    shutil.copytree(cached[0], tmp_path / "here" / "latents")
    monkeypatch.chdir(tmp_path / "here")
    kind = cached[2].kind
    head = ["head=gaussian-mixture"] if kind == "kl" else []
    recipe = partial(config.read, "digits", [*TINY, "train.iterations=1", "data=cache", f"tokenizer={kind}", *head])

    def at(path: str) -> config.Recipe:
        return config.parse(recipe().as_dict(), [f"data.path={path}"])

    run.train(at("latents"), Path("run"))
    monkeypatch.chdir("/")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = tmp_path / "there" / "run"
    assert len(run.load(moved).data.test) == 360 and run.load(moved).sample(2).shape == (2, 1, 8, 8)
    (tmp_path / "there" / "latents").rename(tmp_path / "alone")
    with pytest.raises(UserError, match=r"the cache of this run has moved from .*latents: .* data\.path="):
        run.load(moved)
    run.train(at(str(tmp_path / "alone")), moved)
    assert run.load(moved).sample(2).shape == (2, 1, 8, 8)


def running(cached, out: Path, world: int) -> Running:
    asked = ["--tokenizer", str(cached[2].folder.path), "--out", str(out), "--shard", str(SHARD)]
    return Running(out.parent / "logs", ["cache", "digits", *asked], world)


def test_two_processes_write_the_files_of_one(cached, tmp_path):
    both = running(cached, tmp_path / "two", 2)
    assert both.wait() == [0, 0], both.said
    assert {k: v for k, v in files(tmp_path / "two").items() if k != ".lock"} == files(cached[0])


@pytest.mark.parametrize("world", [1, 2])
def test_sigkill_at_any_moment_loses_nothing(cached, tmp_path, world):
    out = tmp_path / "killed"
    for after in (1, 9):
        killed = running(cached, out, world)
        killed.until(lambda after=after: len(list(out.glob("*/*.json"))) >= after)
        killed.send(signal.SIGKILL)
        killed.wait()
        assert not (out / "manifest.json").is_file()
    last = running(cached, out, world)
    assert last.wait() == [0] * world, last.said
    kept = {k: v for k, v in files(out).items() if not Path(k).name.startswith(".")}
    assert kept == files(cached[0])


def test_settings_that_were_cut_are_those_of_the_manifest(cache, cached):
    (cache / "settings.json").write_text('{"name": "dig')
    with pytest.raises(UserError, match="a cache of other settings"):
        encode(cached[2].kind, cached[2].folder.path, cache, shard=99)
    encode(cached[2].kind, cached[2].folder.path, cache)
    assert files(cache) == files(cached[0])


def test_an_unfinished_cache_whose_settings_were_cut_is_made_again(cache, cached):
    (cache / "settings.json").write_text('{"name": "dig')
    (cache / "manifest.json").unlink()
    for suffix in ("safetensors", "json"):  # a whole shard, of other settings
        shutil.copyfile(cache / "test" / f"00000.{suffix}", cache / "train" / f"00000.{suffix}")
    encode(cached[2].kind, cached[2].folder.path, cache)
    assert files(cache) == files(cached[0])
