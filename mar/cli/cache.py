"""``mar cache``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from mar.data.base import Data

# ruff: noqa: UP045 - typer reads Optional


def cache(
    data: Annotated[
        str, typer.Argument(help="kind:path, e.g. folder:~/imagenet; or a recipe, of which its data are taken.")
    ],
    overrides: Annotated[Optional[list[str]], typer.Argument(help="key=value pairs, e.g. data.size=256.")] = None,
    tokenizer: Annotated[
        str, typer.Option(help="An autoencoder: its folder, that of a mar tokenizer run, or a hub name.")
    ] = "",
    out: Annotated[Optional[Path], typer.Option(help="The folder to write; default caches/DATA-KIND.")] = None,
    flips: Annotated[bool, typer.Option("--flips", help="Training images twice, as they are and mirrored.")] = False,
    precision: Annotated[str, typer.Option(help="Of KL latents: float32, or float16 at half the size.")] = "float32",
    shard: Annotated[int, typer.Option(min=1, help="Examples of a file.")] = 4096,
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at a time.")] = 64,
) -> None:
    """Encode a data set once with a KL autoencoder or a VQ model, for training on its latents.

    The same command goes on after a kill, and mends damaged files. Any number of processes write the same files.

    Examples:

        mar cache fashion-mnist:~/data/fashion-mnist --tokenizer runs/fashion-kl --out caches/fashion-kl

        torchrun --nproc_per_node 8 -m mar cache folder:~/imagenet data.size=256 --tokenizer kl16 --flips --out caches/imagenet

        mar train fashion-kl data.path=caches/fashion-kl
    """
    from mar.core.errors import UserError, unknown
    from mar.core.files import CACHE, locked
    from mar.core.processes import Processes
    from mar.core.progress import bar
    from mar.data.shards import Settings
    from mar.tokenizers import TOKENIZERS
    from mar.tokenizers.autoencoder import AutoencoderFolder
    from mar.training.caching import encode_all

    if precision not in ("float32", "float16"):
        raise unknown("precision", precision, ("float32", "float16"))
    section, source = data_of(data, overrides or [])
    if source.spec.latents is not None:
        raise UserError(f"{data} is a cache of latents already: name the images, e.g. folder:PATH data.size=256")
    found = AutoencoderFolder.find(tokenizer)
    cls: Any = TOKENIZERS.find(found.kind)
    encoder = cls(source.spec, cls.Options(path=str(found.path)))
    settings = Settings(
        source.name, section, source.fingerprint, source.spec, found.kind, found.sha256, flips, precision, shard,  # type: ignore[arg-type]
    )  # fmt: skip
    folder, processes = out or Path("caches") / f"{source.name}-{found.kind}", Processes()
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


def data_of(text: str, overrides: list[str]) -> tuple[dict[str, Any], Data]:
    """The resolved ``data`` section, its path absolute, of ``kind:path`` or of a recipe; and the data set.

    Raises:
        UserError: no such kind or recipe, or its files are not there.
    """
    from mar import build, config
    from mar.data import DATA

    kind, _, path = text.partition(":")
    if path or kind in DATA:
        options = {"path": str(Path(path).expanduser().resolve())} if path else {}
        recipe = config.parse({"data": {"kind": kind, **options}}, overrides)
    else:
        recipe = config.read(text, overrides)
    section = build.resolve(recipe).data.model_dump(mode="json")
    if section.get("path"):
        section["path"] = str(Path(section["path"]).expanduser().resolve())
    return section, build.data(recipe)
