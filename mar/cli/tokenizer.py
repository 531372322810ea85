"""``mar tokenizer`` and ``mar cache``: autoencoders of images, and data sets of their latents."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mar.cli import options as o
from mar.cli.options import Device, Features, Overrides, Seed, arg, grouped, opt, whole_numbers
from mar.core.errors import UserError
from mar.core.files import CACHE, TOKENIZER, check_kind, check_writable, locked, runs_folder
from mar.core.progress import bar
from mar.core.readers import read_json

if TYPE_CHECKING:
    from mar.data.base import Data
    from mar.metrics.images import FeatureSettings

Source = Annotated[str, arg("Data set, kind:path (fashion-mnist:~/data/fashion-mnist), or a recipe with its data.")]
_AUTOENCODER = "Autoencoder: its folder, a folder of mar tokenizer train, or a hub name."


@grouped
def train(
    data: Source,
    features: Features,
    overrides: Overrides = None,
    kind: Annotated[Literal["kl", "vq"], opt("kl: continuous latents; vq: a codebook.")] = "kl",
    channels: Annotated[str, opt("Channels of each level; each level after the first halves the image.")] = "32,64,64",
    latent: Annotated[int, opt("Channels of the latents.", min=1)] = 4,
    codebook: Annotated[int, opt("Entries of a VQ codebook.", min=2)] = 512,
    loss: Annotated[Literal["l1", "l2"], opt("Loss of the reconstruction.")] = "l1",
    weight: Annotated[float | None, opt("Weight of the KL (1e-6) or of the commitment (0.25).", min=0.0)] = None,
    iterations: Annotated[int, opt("Optimiser steps.", min=1)] = 2000,
    batch_size: Annotated[int, opt("Images per iteration, over all processes.", min=1)] = 128,
    learning_rate: Annotated[float, opt("Peak of the learning rate, which falls along a cosine.", min=0.0)] = 1e-3,
    ema: Annotated[float, opt("Decay of the averaged weights.", min=0.0, max=0.99999)] = 0.999,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], opt("Of matrix products; auto: bf16 on GPUs.")
    ] = "auto",
    save_every: Annotated[int, opt("Iterations between checkpoints.", min=1)] = 500,
    tracker: Annotated[list[str] | None, opt("Tracker of the curves, repeatable: tensorboard, wandb, ….")] = None,
    rfid: Annotated[bool, opt("Compute the FID of reconstructions at the end.", "--rfid")] = False,
    seed: Seed = 0,
    device: Device = "",
    out: Annotated[Path | None, opt("The run folder; default DATA-KIND in runs, or in $MAR_RUNS.")] = None,
) -> None:
    """Train a small autoencoder on the images of a data set.

    Writes RUN/autoencoder (a diffusers folder), reconstructions.png, scores/ and metrics.jsonl. Run the same command
    again to resume.

    Examples:

        mar tokenizer train fashion-mnist:~/data/fashion-mnist --kind vq --codebook 512 --out runs/fashion-vq
        torchrun --nproc_per_node 2 -m mar tokenizer train folder:~/flowers data.size=64 --channels 64,128,128,256
    """
    from mar.core.processes import Processes
    from mar.metrics.reconstruction import rfid_settings, score_autoencoder
    from mar.training.autoencoder import Architecture, AutoencoderRecipe, original_precision, train_autoencoder

    section, source = data_of(data, overrides or [])
    architecture = Architecture(kind, tuple(whole_numbers(channels, "--channels")), 1, latent, codebook)
    architecture.check(source.spec)
    folder = out or runs_folder() / f"{source.name}-{kind}"
    recipe = AutoencoderRecipe(
        section, _identity(source, folder / TOKENIZER), architecture, 1 if loss == "l1" else 2, weight,
        iterations, batch_size, learning_rate, ema, precision, seed, save_every=save_every,
    )  # fmt: skip
    processes = Processes(original_precision(folder, recipe))
    rated: list[FeatureSettings] = []
    if rfid:
        processes.on_main(lambda: rated.append(rfid_settings(features.settings(seed, o.device()), source)))
    with ExitStack() as stack:
        processes.on_main(lambda: stack.enter_context(locked(folder, TOKENIZER)))
        with bar("training", processes.is_main) as progress:
            final = train_autoencoder(recipe, source, folder, processes, progress, tracker or ())
    if processes.is_main:
        print(
            *score_autoencoder(final, section, source, folder, None, rated[0] if rated else None, seed, replaces=True),
            sep="\n",
        )
        words = shlex.join([data, *(overrides or [])])
        print(f"next: mar cache {words} --tokenizer {folder} --out caches/{folder.name}")
    processes.end()


@grouped
def score(
    tokenizer: Annotated[str, arg(_AUTOENCODER)],
    data: Source,
    features: Features,
    overrides: Overrides = None,
    n: Annotated[int | None, opt("Test images; default all.", "-n", "--n", min=2)] = None,
    rfid: Annotated[bool, opt("Compute the FID of the reconstructions.", "--rfid/--no-rfid")] = True,
    lpips: Annotated[bool, opt("Compute LPIPS of VGG, too.", "--lpips")] = False,
    seed: Seed = 0,
    device: Device = "",
    out: Annotated[Path | None, opt("Folder of scores; default the tokenizer's run, or scores/NAME.")] = None,
) -> None:
    """Reconstruction error, SSIM, codebook use, rFID and LPIPS on test images.

    Examples:

        mar tokenizer score stabilityai/sd-vae-ft-mse folder:~/imagenet data.size=256 -n 5000
    """
    from mar.metrics.reconstruction import rfid_settings, score_autoencoder
    from mar.tokenizers.autoencoder import AutoencoderFolder

    section, source = data_of(data, overrides or [])
    found = AutoencoderFolder.find(tokenizer).path
    own = found.parent if (found.parent / TOKENIZER).is_file() else None
    folder = out or own or Path("scores") / Path(tokenizer).expanduser().resolve().name
    check_kind(folder, TOKENIZER)
    check_writable(folder / "scores" / "reconstruction.json")
    settings = rfid_settings(features.settings(seed, o.device()), source) if rfid else None
    print(*score_autoencoder(found, section, source, folder, n, settings, seed, False, lpips), sep="\n")


def cache(
    data: Source,
    overrides: Overrides = None,
    tokenizer: Annotated[str, opt(_AUTOENCODER)] = "",
    out: Annotated[Path | None, opt("The folder to write; default caches/DATA-KIND.")] = None,
    flips: Annotated[bool, opt("Encode every training image twice: as it is and mirrored.", "--flips")] = False,
    precision: Annotated[
        Literal["float32", "float16"], opt("Of KL latents; float16 takes half the space.")
    ] = "float32",
    shard: Annotated[int, opt("Examples in a file.", min=1)] = 4096,
    batch_size: Annotated[int, opt("Images encoded at a time.", min=1)] = 64,
    device: Device = "",
) -> None:
    """Encode a data set once, for training on its latents.

    Any number of processes write the same files. Run the same command again to resume; it also replaces damaged files.

    Examples:

        torchrun --nproc_per_node 8 -m mar cache folder:~/imagenet data.size=256 --tokenizer kl16 --flips --out caches/imagenet
        mar train fashion-kl data.path=caches/fashion-kl
    """
    from mar.core.processes import Processes
    from mar.data.shards import Settings
    from mar.tokenizers import TOKENIZERS
    from mar.tokenizers.autoencoder import AutoencoderFolder
    from mar.training.caching import encode_all

    section, source = data_of(data, overrides or [], relative=out is None or not out.is_absolute())
    if source.spec.latents is not None:
        raise UserError(f"{data} is a cache of latents already: name the images, e.g. folder:PATH data.size=256")
    found = AutoencoderFolder.find(tokenizer)
    cls: Any = TOKENIZERS[found.kind]
    encoder = cls(source.spec, cls.Options(path=str(found.path)))
    folder, processes = out or Path("caches") / f"{source.name}-{found.kind}", Processes()
    settings = Settings(
        source.name, section, _identity(source, folder / CACHE), source.spec, found.kind, found.sha256, flips, precision,
        shard,
    )  # fmt: skip
    with ExitStack() as stack, bar("shards", processes.is_main) as progress:
        processes.on_main(lambda: stack.enter_context(locked(folder, CACHE)))
        manifest = encode_all(source, encoder, settings, folder, processes, batch_size, progress)
    if processes.is_main:
        gigabytes = sum(s.bytes for shards in manifest.shards.values() for s in shards) / 1e9
        counts = ", ".join(f"{manifest.count(name):,} {name}" for name in manifest.shards)
        print(f"{folder}: {counts} as {found.kind} latents {encoder.latent_shape}, {gigabytes:.3g} GB")
        if manifest.std:
            print("standard deviation of each channel: " + " ".join(f"{std:.4g}" for std in manifest.std))
        print(f"next: mar train RECIPE data.kind=cache data.path={folder} tokenizer.kind={found.kind}")
    processes.end()


def _identity(data: Data, file: Path) -> str:
    """Return the fingerprint of the data, in the form that the settings in ``file`` hold already, if it exists."""
    from mar.data.shards import settings_in

    if file.name == CACHE:
        there = settings_in(file.parent)
    else:
        there = read_json(file, "the settings of this folder") if file.is_file() else {}
    return data.about.identity(there.get("recipe", there).get("fingerprint", ""))


def data_of(text: str, overrides: list[str], relative: bool = False) -> tuple[dict[str, Any], Data]:
    """Return the resolved ``data`` section of ``kind:path`` or of a recipe, and the data set.

    Args:
        relative: keep a path as it was typed; otherwise it becomes absolute.

    Raises UserError: no such kind or recipe, or its files are not there.
    """
    from mar import build, config
    from mar.data import DATA

    kind, path = DATA.split(text)
    if path or ":" in kind or kind in DATA:
        options = {"path": path} if path else {}
        recipe = config.parse({"data": {"kind": kind, **options}}, overrides)
    else:
        recipe = config.read(text, overrides)
    section = build.resolve(recipe).data.model_dump(mode="json")
    if section.get("path"):
        typed = Path(section["path"]).expanduser()
        section["path"] = str(typed if relative else typed.resolve())
    return section, build.data(recipe)
