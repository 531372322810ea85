"""``mar sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# ruff: noqa: UP045 - typer reads Optional

_PRINTED = 4  # texts in the terminal


def sample(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    n: Annotated[
        Optional[int], typer.Option("-n", "--n", min=1, help="How many; default 64, of text and sound 4.")
    ] = None,
    plan: Annotated[
        str, typer.Option(help="ordering/partition, e.g. spiral/cosine:16; default the training plan.")
    ] = "",
    label: Annotated[
        Optional[list[int]], typer.Option("--class", help="A class, repeatable; default all in turn.")
    ] = None,
    guidance: Annotated[float, typer.Option(min=0.0, help="Guidance scale; 1 is none.")] = 1.0,
    guidance_schedule: Annotated[str, typer.Option(help="constant or linear (in known tokens).")] = "linear",
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    adaptive: Annotated[
        str, typer.Option(help="Choose each next set from the model: e.g. lowest-entropy, confidence.")
    ] = "",
    remask: Annotated[
        str,
        typer.Option(
            help="Masked networks: redraw tokens afterwards, random:ROUNDS:SHARE or least-confident:ROUNDS:SHARE."
        ),
    ] = "",
    top_k: Annotated[Optional[int], typer.Option(min=1, help="Categorical head: keep the k likeliest.")] = None,
    top_p: Annotated[Optional[float], typer.Option(help="Categorical head: keep this much probability.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Categorical head: always the likeliest.")] = False,
    solver: Annotated[
        Optional[str],
        typer.Option(
            help="Diffusion head: ancestral, ddim, dpm-solver++, unipc, heun; flow head: euler, midpoint, heun, rk4, rk45."
        ),
    ] = None,
    head_steps: Annotated[
        Optional[int], typer.Option(min=1, help="Diffusion head: timesteps; flow head: steps.")
    ] = None,
    head: Annotated[
        Optional[list[str]],
        typer.Option(help="Another sampling option of the head, e.g. start=999 of the diffusion head."),
    ] = None,
    vae: Annotated[
        str, typer.Option(help="Of an imported model without one: the KL autoencoder, a diffusers folder or hub name.")
    ] = "",
    image: Annotated[
        Optional[Path], typer.Option(help="Inpainting: an image whose tokens outside --mask are kept.")
    ] = None,
    mask: Annotated[
        Optional[Path], typer.Option(help="Inpainting: a picture, bright where tokens are generated.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="Text: what it begins with.")] = "",
    length: Annotated[int, typer.Option(min=0, help="Text: its characters; 0 is one window.")] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    last_weights: Annotated[bool, typer.Option("--last-weights", help="Not the averaged (EMA) ones.")] = False,
    gif: Annotated[bool, typer.Option("--gif/--no-gif", help="Also an animation of the first images.")] = True,
    out: Annotated[Optional[Path], typer.Option(help="Folder; default RUN/samples/PLAN-WAYS-SEED.")] = None,
) -> None:
    """Generate examples along any plan, not only the one it was trained on. Example k depends on the seed and k alone.

    Images: grid.png, single PNGs, images.npz and generation.gif. Text: samples.txt. Sound: .wav files and spectrograms.
    Text, sound and numbers also as samples.npz. Latents of an imported model without autoencoder: latents.npy.

    Examples:

        mar sample runs/digits

        mar sample runs/digits --plan spiral/cosine:16 --class 3 --class 8 --guidance 2 -n 100

        mar sample runs/digits --adaptive lowest-entropy --plan random/equal:4

        mar sample runs/digits --plan random/equal:4 --remask random:16:0.1

        mar sample runs/digits --image digit.png --mask mask.png

        mar sample runs/shakespeare --prompt "To be" --length 500
    """
    import json

    from mar.cli.generating import opened
    from mar.cli.scoring import options_of, samples_name
    from mar.core.errors import UserError
    from mar.core.files import environment, write_atomic
    from mar.core.progress import bar
    from mar.run import write_on
    from mar.sampling.guidance import Guidance
    from mar.sampling.output import levels_of, load_given, load_mask, save_samples, text_of

    loaded = opened(run, vae, not last_weights)
    spec = loaded.spec
    n = n or (4 if spec.modality in ("text", "audio") else 64)
    if spec.modality != "text" and (prompt or length):
        raise UserError(f"--prompt and --length are of text: {run} makes examples of kind {spec.modality}")
    if spec.modality != "image" and (image or mask):
        raise UserError(f"--image and --mask are of images: {run} makes examples of kind {spec.modality}")
    plan = plan or loaded.training_plan
    head_options = options_of(head or [], "sampling") | {
        key: value
        for key, value in {
            "top_k": top_k, "top_p": top_p, "greedy": greedy or None, "solver": solver, "steps": head_steps,
        }.items()
        if value is not None
    }  # fmt: skip
    import torch

    options = {
        "labels": torch.tensor(label).repeat(n // len(label) + 1)[:n] if label else None,
        "guidance": Guidance(guidance, guidance_schedule),  # type: ignore[arg-type]
        "temperature": temperature,
        "seed": seed,
        "given": load_given(image, loaded.spec) if image else None,
        "mask": load_mask(mask, loaded.model.tokenizer) if mask else None,
        "adaptive": adaptive or None,
        "remask": remask or None,
        **head_options,
    }
    ways = {
        "adaptive": adaptive, "remask": remask, "class": "+".join(map(str, label or [])), "length": length,
        "guidance": f"{guidance:g}" if guidance != 1 else "", "schedule": guidance_schedule.replace("linear", ""),
        "temperature": f"{temperature:g}" if temperature != 1 else "", "weights": "last" if last_weights else "",
        "image": image and image.stem, "mask": mask and mask.stem, "prompt": prompt, **head_options,
    }  # fmt: skip
    folder = out or loaded.folder.path / "samples" / samples_name(plan, ways, seed)
    with bar("sampling") as progress:
        asked = {"plan": plan, "batch_size": batch_size, "progress": progress, **options}
        text = spec.modality == "text"
        x = write_on(loaded, n, levels_of(prompt, spec), length, **asked) if text else loaded.sample(n, **asked)
    frames = loaded.frames(min(n, 64), plan, **options) if gif and spec.modality == "image" else None
    files = save_samples(x, spec, folder, frames)
    record = {
        "plan": plan,
        "n": n,
        "guidance": guidance,
        "temperature": temperature,
        "adaptive": adaptive,
        "remask": remask,
        "seed": seed,
        "prompt": prompt,
        "length": length,
    }
    record |= {"classes": label, "head": head_options, "weights": "last" if last_weights else "ema"}
    write_atomic(folder / "samples.json", json.dumps({**record, "environment": environment()}, indent=1))
    if spec.modality == "text":
        for level_T in x.flatten(1)[:_PRINTED]:
            print(text_of(level_T, spec), end="\n\n")
    print(f"wrote {n} examples to {folder}: {files}")
