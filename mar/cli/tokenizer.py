"""``mar tokenizer``: autoencoders of images, trained and scored."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from mar.data.base import Data
    from mar.tokenizers.autoencoder import AutoencoderFolder

# ruff: noqa: UP045 - typer reads Optional

app = typer.Typer(no_args_is_help=True)

_RECORD = Path("scores/reconstruction.json")
_DATA = "kind:path, e.g. fashion-mnist:~/data/fashion-mnist; or a recipe, of which its data are taken."


@app.command(no_args_is_help=True)
def train(
    data: Annotated[str, typer.Argument(help=_DATA)],
    overrides: Annotated[Optional[list[str]], typer.Argument(help="key=value pairs, e.g. data.size=64.")] = None,
    kind: Annotated[str, typer.Option(help="kl (continuous latents) or vq (a codebook).")] = "kl",
    channels: Annotated[str, typer.Option(help="Of each level; each after the first halves the image.")] = "32,64,64",
    blocks: Annotated[int, typer.Option(min=1, help="Of each level.")] = 1,
    latent: Annotated[int, typer.Option(min=1, help="Channels of the latents.")] = 4,
    codebook: Annotated[int, typer.Option(min=2, help="Entries of a VQ codebook.")] = 512,
    loss: Annotated[str, typer.Option(help="Of the reconstruction: l1 or l2.")] = "l1",
    weight: Annotated[
        Optional[float], typer.Option(min=0.0, help="Of the KL (default 1e-6) or of the commitment (default 0.25).")
    ] = None,
    iterations: Annotated[int, typer.Option(min=1)] = 2000,
    batch_size: Annotated[int, typer.Option(min=1, help="Images an iteration, over all processes.")] = 128,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="The peak; it falls along a cosine.")] = 1e-3,
    ema: Annotated[float, typer.Option(min=0.0, max=0.99999, help="Decay of the averaged weights.")] = 0.999,
    precision: Annotated[str, typer.Option(help="auto (bf16 on GPUs), fp32, bf16 or fp16.")] = "auto",
    save_every: Annotated[int, typer.Option(min=1, help="Iterations between checkpoints.")] = 500,
    rfid: Annotated[bool, typer.Option("--rfid", help="At the end also FID of reconstructions.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Optional[Path], typer.Option(help="The run folder; default runs/DATA-KIND.")] = None,
) -> None:
    """Train a small autoencoder on a data set's images. The same command goes on after a kill.

    Leaves RUN/autoencoder (a diffusers folder), reconstructions.png, scores/ and metrics.jsonl.

    Examples:

        mar tokenizer train fashion-mnist:~/data/fashion-mnist --kind kl --out runs/fashion-kl

        mar tokenizer train fashion-mnist:~/data/fashion-mnist --kind vq --codebook 512 --out runs/fashion-vq

        torchrun --nproc_per_node 2 -m mar tokenizer train folder:~/flowers data.size=64 --channels 64,128,128,256
    """
    from mar.cli.cache import data_of
    from mar.cli.scoring import whole_numbers
    from mar.core.errors import unknown
    from mar.core.files import TOKENIZER, locked
    from mar.core.processes import Processes
    from mar.core.progress import bar
    from mar.training.autoencoder import Architecture, AutoencoderRecipe, original_precision, train_autoencoder

    if loss not in ("l1", "l2"):
        raise unknown("loss", loss, ("l1", "l2"))
    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise unknown("precision", precision, ("auto", "fp32", "bf16", "fp16"))
    section, source = data_of(data, overrides or [])
    architecture = Architecture(kind, tuple(whole_numbers(channels, "--channels")), blocks, latent, codebook)  # type: ignore[arg-type]
    architecture.check(source.spec)
    recipe = AutoencoderRecipe(
        section, source.fingerprint, architecture, 1 if loss == "l1" else 2, weight, iterations, batch_size,
        learning_rate, ema, precision, seed, save_every=save_every,  # type: ignore[arg-type]
    )  # fmt: skip
    folder = out or Path("runs") / f"{source.name}-{kind}"
    processes = Processes(original_precision(folder, recipe))
    with ExitStack() as stack:
        processes.on_main(lambda: stack.enter_context(locked(folder, TOKENIZER)))
        with bar("training", processes.is_main) as progress:
            final = train_autoencoder(recipe, source, folder, processes, progress)
    if processes.is_main:
        _score(final, section, source, folder, None, rfid, seed)
        print(f"next: mar cache {data} --tokenizer {folder} --out caches/{folder.name}")
    processes.end()


@app.command(no_args_is_help=True)
def score(
    tokenizer: Annotated[str, typer.Argument(help="An autoencoder: its folder, a tokenizer run's, or a hub name.")],
    data: Annotated[str, typer.Argument(help=_DATA)],
    overrides: Annotated[Optional[list[str]], typer.Argument(help="key=value pairs, e.g. data.size=256.")] = None,
    n: Annotated[Optional[int], typer.Option("-n", "--n", min=2, help="Test images; default all.")] = None,
    rfid: Annotated[bool, typer.Option("--rfid/--no-rfid", help="FID of the reconstructions.")] = True,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[
        Optional[Path], typer.Option(help="Where scores and pictures go; default the tokenizer's run, or scores/NAME.")
    ] = None,
) -> None:
    """Reconstruction error, use of the codebook and rFID of an autoencoder on test images.

    Examples:

        mar tokenizer score runs/fashion-kl fashion-mnist:~/data/fashion-mnist

        mar tokenizer score stabilityai/sd-vae-ft-mse folder:~/imagenet data.size=256 -n 5000
    """
    from mar.cli.cache import data_of
    from mar.core.errors import UserError
    from mar.core.files import TOKENIZER, check_kind
    from mar.tokenizers.autoencoder import AutoencoderFolder

    section, source = data_of(data, overrides or [])
    found = AutoencoderFolder.find(tokenizer)
    own = found.path.parent if (found.path.parent / TOKENIZER).is_file() else None
    folder = out or own or Path("scores") / Path(tokenizer).expanduser().resolve().name
    check_kind(folder, TOKENIZER)
    if differing := _differing(_scored(folder), _question(found, source, n, seed)):
        raise UserError(f"{folder / _RECORD} is another score ({differing}): choose another --out, or delete it")
    _score(found.path, section, source, folder, n, rfid, seed)


def _question(autoencoder: AutoencoderFolder, data: Data, n: int | None, seed: int) -> dict[str, Any]:
    """What decides a score."""
    n_images = min(n or len(data.test), len(data.test))
    return {"sha256": autoencoder.sha256, "fingerprint": data.fingerprint, "n_images": n_images, "seed": seed}


def _scored(folder: Path) -> dict[str, Any]:
    """The record that is there, {} without."""
    import json

    file = folder / _RECORD
    return json.loads(file.read_text()) if file.is_file() else {}


def _differing(there: dict[str, Any], question: dict[str, Any]) -> str:
    """The first difference, "" without. What an older record does not say is taken to agree."""
    pairs = (f"{k} is {there[k]} there, {v} here" for k, v in question.items() if there.get(k, v) != v)
    return next(pairs, "")


def _score(
    autoencoder: Path, section: dict[str, Any], data: Data, folder: Path, n: int | None, rfid: bool, seed: int
) -> None:
    import json
    from dataclasses import asdict

    import torch

    from mar.core.files import environment, write_atomic
    from mar.core.progress import bar
    from mar.metrics.reconstruction import reconstruct, side_by_side
    from mar.sampling.output import image_grid
    from mar.tokenizers import TOKENIZERS
    from mar.tokenizers.autoencoder import AutoencoderFolder

    found, device = AutoencoderFolder(autoencoder), "cuda" if torch.cuda.is_available() else "cpu"
    cls: Any = TOKENIZERS.find(found.kind)
    tokenizer = cls(data.spec, cls.Options(path=str(autoencoder))).to(device)
    with bar("reconstructing") as progress:
        x, y, result = reconstruct(tokenizer, data.test, n, seed, 256, progress)
    folder.mkdir(parents=True, exist_ok=True)
    image_grid(side_by_side(x, y), data.spec.levels, columns=min(16, len(x))).save(folder / "reconstructions.png")
    before, question = _scored(folder), _question(found, data, n, seed)
    record = {"autoencoder": str(autoencoder), "data": section, **question, **asdict(result)}
    print(f"{result.n_images} test images: mean square error {result.mean_square_error:.3g}, {result.psnr_db:.2f} dB")
    if result.codebook_perplexity is not None:
        print(f"codebook: {result.codebook_used:.1%} of the entries used, perplexity {result.codebook_perplexity:.1f}")
    if rfid:
        from mar.cli.fid_sources import cache_folder
        from mar.metrics.fid import score_images

        fid = score_images(y, data, cache_folder(), seed=seed, device=device)
        record["rfid"] = fid.to_dict()
        print(
            f"rFID {fid.generated.fid:.3f} ({fid.extractor}; of as many real training images {fid.noise_floor.fid:.3f})"
        )
    elif "rfid" in before and not _differing(before, question):
        record["rfid"] = before["rfid"]
    elif "rfid" in before:
        print(f"the rFID in {folder / _RECORD} was of other weights or images and goes: --rfid measures it again")
    write_atomic(folder / _RECORD, json.dumps({**record, "environment": environment()}, indent=1))
    print(f"wrote {folder}/reconstructions.png and {folder / _RECORD}")
