"""``mar sample`` and ``mar generate``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

from mar.cli.options import BatchSize, DecodedRun, Plan, Precision, Sampling, Shard, grouped, opt, plan_product
from mar.core.errors import UserError
from mar.core.files import check_writable, environment, write_atomic
from mar.core.progress import bar

_PRINTED = 4  # texts in the terminal
_LARGEST = 2**32  # values of all examples


@grouped
def sample(
    run: DecodedRun,
    sampling: Sampling,
    n: Annotated[int | None, opt("Examples; default 64, of text and sound 4.", "-n", "--n", min=1)] = None,
    plan: Plan = "",
    image: Annotated[Path | None, opt("Inpainting: an image whose tokens outside --mask are kept.")] = None,
    mask: Annotated[Path | None, opt("Inpainting: a picture, bright where tokens are generated.")] = None,
    prompt: Annotated[str, opt("Text: the beginning of every example.")] = "",
    length: Annotated[int, opt("Text: characters, bytes or tokens of an example; 0: one window.", min=0)] = 0,
    batch_size: BatchSize = 256,
    gif: Annotated[bool, opt("Write an animation of the first images.", "--gif/--no-gif")] = True,
    out: Annotated[Path | None, opt("Folder; default RUN/samples/PLAN-SETTINGS-SEED.")] = None,
) -> None:
    """Generate examples along any plan.

    Images: grid.png, single PNGs, images.npz and generation.gif. Videos: grid.gif, single GIFs and videos.npz. Text:
    samples.txt. Sound: .wav files and spectrograms.
    Text, sound and numbers also as samples.npz. Latents of an imported model without autoencoder, or indices of a
    codebook (RAR): latents.npy.
    Example k depends on the seed and k alone.

    Examples:

        mar sample runs/digits --plan spiral/cosine:16 --class 3 --class 8 --guidance 2 -n 100
        mar sample runs/digits --adaptive lowest-entropy --plan random/equal:4 --head top_k=5
        mar sample runs/digits-ink --condition ink.npy --guidance 2
        mar sample runs/digits --image digit.png --mask mask.png
        mar sample runs/shakespeare --prompt "To be" --length 500
    """
    head = sampling.head_options()
    plan_product(plan, "", "raster")  # a mistake is told before torch is imported
    loaded = run.load()
    label = list(sampling.classes(loaded.spec)) or None

    from mar.metrics.base import samples_name
    from mar.metrics.samples import GenerationRecorder
    from mar.run import write_on
    from mar.sampling.output import levels_of, load_given, load_mask, save_samples, text_of

    spec, plan = loaded.spec, plan or loaded.training_plan
    text = spec.modality == "text"
    for kind, words, given in (
        ("text", "prompt and --length", prompt or length),
        ("image", "image and --mask", image or mask),
    ):
        if given and spec.modality != kind:
            raise UserError(f"--{words} need examples of kind {kind}: {loaded.folder.path} makes {spec.modality}")
    setting = sampling.setting(plan, spec)
    if sampling.condition:
        from mar.model.inputs import read_conditions

        n = n or len(read_conditions(sampling.condition, loaded.model))
    n = n or (4 if spec.modality in ("text", "audio") else 64)
    if n * math.prod(spec.shape) > _LARGEST:
        raise UserError(
            f"-n {n}: all samples are kept in memory, {math.prod(spec.shape)} values each; use mar generate"
        )
    ahead = loaded.speculation(sampling.speculate) if sampling.speculate else None
    options = {
        "labels": setting.labels(n, loaded.model), **setting.draws(),
        "seed": sampling.seed, "given": load_given(image, spec) if image else None,
        "mask": load_mask(mask, loaded.model.tokenizer) if mask else None, "adaptive": sampling.adaptive or None,
        "remask": sampling.remask or None, "speculate": ahead, **head,
    }  # fmt: skip
    record = {
        "plan": plan, "n": n, "guidance": sampling.guidance, "guidance_schedule": sampling.guidance_schedule,
        "temperature": sampling.temperature, "temperature_schedule": sampling.temperature_schedule,
        "adaptive": sampling.adaptive, "remask": sampling.remask, "speculate": sampling.speculate,
        "seed": sampling.seed, "prompt": prompt,
        "length": length, "classes": label, "condition": str(sampling.condition or ""), "head": head,
        "weights": run.weights, "environment": environment(),
    }  # fmt: skip
    changed = {  # what differs from the defaults names the default folder
        "adaptive": sampling.adaptive, "remask": sampling.remask,
        "speculate": sampling.speculate, "class": "+".join(map(str, label or [])),
        "length": length, "guidance": f"{sampling.guidance:g}" if sampling.guidance != 1 else "",
        "schedule": "" if sampling.guidance_schedule == "linear" else sampling.guidance_schedule,
        "temperature": f"{sampling.temperature:g}" if sampling.temperature != 1 else "",
        "tempering": "" if sampling.temperature_schedule == "constant" else sampling.temperature_schedule,
        "weights": run.weights.replace("ema", ""), "image": image and image.stem, "mask": mask and mask.stem,
        "prompt": prompt, "condition": sampling.condition and sampling.condition.stem, **head,
    }  # fmt: skip
    folder = out or loaded.folder.path / "samples" / samples_name(plan, changed, sampling.seed)
    check_writable(folder)
    recorder = None
    if gif and spec.modality == "image":
        given_L = None if options["mask"] is None else ~options["mask"]
        recorder = GenerationRecorder(loaded, min(n, 64), given_L)
        options["on_step"] = recorder.record
    with bar("sampling") as progress:
        asked = {"plan": plan, "batch_size": batch_size, "progress": progress, **options}
        x = write_on(loaded, n, levels_of(prompt, spec), length, **asked) if text else loaded.sample(n, **asked)
    files = save_samples(x, spec, folder, recorder and recorder.frames)
    write_atomic(folder / "samples.json", json.dumps(record, indent=1))
    for level_T in x.flatten(1)[:_PRINTED] if text else ():
        print(text_of(level_T, spec), end="\n\n")
    print(f"wrote {n} examples to {folder}: {files}")
    if ahead is not None:
        print(ahead.told(len(loaded.grid)))


@grouped
def generate(
    run: DecodedRun,
    sampling: Sampling,
    out: Annotated[Path, opt("Folder of the store: a new one, or one that this command began.")],
    n: Annotated[int, opt("Examples; a larger number later continues the store.", "-n", "--n", min=1)] = 50_000,
    plan: Plan = "",
    precision: Annotated[Precision, opt("Precision of matrix products; bf16 is faster on a GPU.")] = "fp32",
    batch_size: BatchSize = 256,
    shard: Shard = 0,
    npz: Annotated[Path | None, opt("Also write one file for ADM's evaluator: arr_0 (N, H, W, 3) uint8.")] = None,
) -> None:
    """Generate many examples into one store, which mar fid scores.

    Any number of processes gives the same store. A store holds examples of one setting; another setting is rejected.
    Run the same command again to resume.

    Examples:

        mar generate runs/digits --out samples/digits -n 10000
        torchrun --nproc_per_node 8 -m mar generate runs/x --out samples/x --guidance 2.5 --plan random/cosine:64
    """
    from mar.core.processes import Processes
    from mar.metrics.images import images_in, write_npz
    from mar.metrics.samples import fill
    from mar.sampling.output import image_grid

    processes = Processes()
    loaded = processes.on_all(lambda: run.load(str(processes.device)))
    setting = sampling.setting(plan or loaded.training_plan, loaded.spec, precision)
    store = fill(out, loaded, setting, n, processes, batch_size, shard)
    if processes.is_main:
        if store.spec.modality == "image":
            image_grid(store.read(0)[0][:100], store.spec.levels).save(out / "grid.png")
        if npz is not None:
            write_npz(images_in(store, n), npz)
        scored = f"; score them: mar fid {out} --against DATA" if store.spec.modality == "image" else ""
        print(f"{n} examples of {setting.plan} in {out}{scored}")
    processes.end()
