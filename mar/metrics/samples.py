"""Generate examples: into a store, by any number of processes; and a film of the first ones.

N examples · B batch · L tokens · C channels · H, W pixels
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mar.core.errors import UserError, unknown
from mar.core.files import checksum, digest, environment
from mar.core.log import logger
from mar.core.noise import stream
from mar.core.processes import Processes
from mar.core.progress import bar
from mar.metrics.classifier import weight_hash
from mar.metrics.store import DEFAULT_SHARD, Store
from mar.model.inputs import read_conditions
from mar.model.model import Model, sampling_options
from mar.run import Precision, Run
from mar.sampling.guidance import Guidance, Temperature
from mar.sampling.many import Settings, labels_of
from mar.sampling.output import to_bytes
from mar.sampling.remask import parse_remask
from orderings import parse_adaptive

SAMPLES, ANIMATION = "samples.png", "animation.gif"
_DECODED = 256  # images at once
_UNKNOWN = torch.tensor([70, 110, 170], dtype=torch.uint8)  # RGB of pixels that are not generated yet


def check_decodes(run: Run) -> None:
    """Raise UserError if the run generates latents."""
    if run.spec.is_codebook:
        raise UserError(
            f"{run.folder.path} makes indices of a codebook, not images: import the model with the VQ tokenizer of its "
            "tokens (mar import --vae)"
        )
    if run.spec.modality == "latent":
        raise UserError(f"{run.folder.path} makes latents: name their autoencoder with --vae, here or at mar import")


@dataclass(frozen=True)
class Setting:
    """The settings of generated examples, in plain values."""

    plan: str
    guidance: float = 1.0
    guidance_schedule: str = "linear"
    temperature: float = 1.0
    head: dict[str, Any] = field(default_factory=dict)  # sampling options of the head or the network: steps, refresh
    seed: int = 0
    adaptive: str = ""  # a rule that chooses each next set
    remask: str = ""  # how tokens are masked again and redrawn afterwards, e.g. random:16:0.1
    classes: tuple[int, ...] = ()  # in turn; (): all
    precision: Precision = "fp32"  # of matrix products
    speculate: str = ""  # several tokens a pass: what drafts them, e.g. jacobi:8
    temperature_schedule: str = "constant"  # along the AR steps
    condition: str = ""  # a file of conditions, in turn

    def __post_init__(self) -> None:
        self.draws()
        if self.precision not in ("fp32", "bf16"):
            raise unknown("precision", str(self.precision), ("fp32", "bf16"))

    def told(self) -> dict[str, Any]:
        """Return the fields; omit later ones where they are off, so that answers to existing questions stay answers."""
        off = {"speculate": "", "temperature_schedule": "constant", "condition": ""}
        return {key: value for key, value in asdict(self).items() if key not in off or value != off[key]}

    def draws(self) -> dict[str, Any]:
        """Return guidance and temperature of ``run.sample``. Raise UserError: no such schedule."""
        temperature = Temperature(self.temperature, self.temperature_schedule)
        return {"guidance": Guidance(self.guidance, self.guidance_schedule), "temperature": temperature}

    def labels(self, n: int, model: Model) -> torch.Tensor | None:
        """Return the classes or conditions of the first ``n`` examples; None: all classes in turn."""
        given = torch.tensor(self.classes)
        if self.condition:
            given = read_conditions(Path(self.condition), model)
        return given[torch.arange(n) % len(given)] if len(given) else None


def question(run: Run, setting: Setting) -> dict[str, Any]:
    """Return everything that decides the examples of a setting.

    Its values, the weights, and the first sampled plans, since the file of an order may have changed.

    Raises UserError: the head has no such option, or settings contradict each other. Unsupported, InvalidRequest: there
    is no such plan for this run.
    """
    plans = run.plans(setting.plan)
    if setting.adaptive:
        parse_adaptive(setting.adaptive)
    Settings(
        **setting.draws(), adaptive=setting.adaptive or None, learned=plans.learned,
        remask=parse_remask(setting.remask) if setting.remask else None,
        speculation=(ahead := run.speculation(setting.speculate) if setting.speculate else None),
    )  # fmt: skip
    with sampling_options(run.model, setting.head):
        head = run.model.head.sampling.told() | asdict(run.model.network.sampling)
    drawn = b""
    if not plans.learned:
        drawn = plans.sample(stream(setting.seed, "sample", 4).at("order")).step_BL.cpu().numpy().tobytes()
    return {
        **setting.told(),
        **({"condition": checksum(Path(setting.condition))} if setting.condition else {}),
        **({} if ahead is None or ahead.model is None else {"draft_weights": weight_hash(ahead.model)}),
        "plan": plans.text,
        "plans_sha256": digest(drawn, digits=16),
        "head": head,
        "recipe": run.recipe.fingerprint(),
        "iteration": run.checkpoint.iteration,
        "weights": _weights(run),
    }


@cache
def _weights(run: Run) -> str:
    return weight_hash(run.model)  # seconds of a large model


def fill(
    path: Path, run: Run, setting: Setting, n: int, processes: Processes, batch_size: int, shard: int, what: str = ""
) -> Store:
    """Fill the store in ``path`` with at least ``n`` examples of ``setting``: process r of n writes every n-th missing
    shard, and all wait for the last. ``shard`` 0: a batch, at least 256. The first process prints the passes of its
    speculation.

    Raises UserError: the store answers another question, or the run makes latents.
    """
    check_decodes(run)
    asked, spec, shard = question(run, setting), run.spec, shard or max(DEFAULT_SHARD, batch_size)
    label_N = labels_of(run.model, setting.labels(n, run.model), n)
    label_N = torch.full((n,), -1) if label_N.is_floating_point() else label_N  # a store has classes, no conditions
    store = processes.on_main(
        lambda: Store.create(path, asked, spec, shard, environment=environment(), run=str(run.folder.path))
    )
    ahead = run.speculation(setting.speculate) if setting.speculate else None
    mine = [shard for shard in store.missing(n) if shard.start // store.shard % processes.world == processes.rank]
    with processes.together(), bar(what or "generating", processes.is_main and bool(mine)) as progress:
        for images in mine:
            there = store.count(n)
            x_NCHW = run.sample(
                len(images), setting.plan, labels=setting.labels(images.stop, run.model), **setting.draws(),
                precision=setting.precision, seed=setting.seed, batch_size=batch_size,
                adaptive=setting.adaptive or None, remask=setting.remask or None, speculate=ahead, first=images.start,
                progress=lambda done, _, there=there: progress(there + done, n), **setting.head,
            )  # fmt: skip
            store.write(images, x_NCHW, label_N[images.start : images.stop])
        processes.wait()
    if ahead is not None and ahead.passes and processes.is_main:
        logger.info(ahead.told(len(run.grid)))
    return store


class GenerationRecorder:
    """Record the first ``n`` examples after each AR step as ``frames`` (n, 3, H, W) uint8, the unknown in colour.

    ``given_L`` (bool): tokens that are known from the beginning.
    """

    def __init__(self, run: Run, n: int, given_L: torch.Tensor | None = None) -> None:
        self.run, self.n = run, n
        self.given_L = torch.tensor(False) if given_L is None else given_L.flatten()
        self.steps: list[tuple[torch.Tensor, torch.Tensor]] = []  # tokens, and where they are known

    def record(self, step: int, token: torch.Tensor, target_BL: torch.Tensor) -> None:
        """Called after each AR step of each batch; record the first batch only."""
        if len(self.steps) == step:
            before = self.steps[-1][1] if self.steps else self.given_L
            self.steps.append((token[: self.n].clone(), target_BL[: self.n].cpu() | before))

    @property
    def frames(self) -> list[torch.Tensor]:
        """Decode all steps at once, in batches."""
        token, known_BL = (torch.cat(parts) for parts in zip(*self.steps, strict=True))
        images = torch.cat([self.run.decode(some) for some in token.split(_DECODED)])
        pixels_NHWC = to_bytes(images, self.run.spec.levels)
        height, width = pixels_NHWC.shape[1:3]
        rows, columns = (*self.run.grid.shape, 1)[:2]
        known = known_BL.reshape(len(known_BL), rows, columns, -1).all(-1)  # a position, in all of its channels
        known = known[:, torch.arange(height) * rows // height][:, :, torch.arange(width) * columns // width]
        pixels_NCHW = torch.where(known[..., None], pixels_NHWC, _UNKNOWN).permute(0, 3, 1, 2)
        return list(pixels_NCHW.chunk(len(self.steps)))
