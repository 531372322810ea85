"""The demo without its page: plans, painted orders, given pixels, one image and its NLL.

L tokens · K AR steps · B batch (one here) · C, H, W shape of an image

A cell is a visible place of the token grid, numbered row-major: one token, or all channels of a pixel.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch

from mar.core.errors import MarError, Unsupported, UserError
from mar.core.files import digest, write_atomic
from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.likelihood.chain import image_noise, token_log_prob
from mar.likelihood.summary import per_step
from mar.model.walk import empty_tokens
from mar.run import Run
from mar.sampling.many import labels_of
from orderings import GIVEN, ORDERINGS, Adaptive, Ordering, Partition, Plan, PlanSpec, parse_ordering, to_text

PAINTED = "painted"  # stands for an ordering in a plan's text: painted/cosine:16
_MOST = 128  # frames of a generation
_ORDERS = 1000  # painted orders that are kept as files, the latest ones
_SETS = (
    "random/cosine:16", "subsample/cosine:16", "spiral:outward/cosine:16", "checkerboard/linear:2", "raster/linear:8",
    "painted/cosine:16", "lowest-entropy", "lowest-entropy/cosine:16",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """The choices of the page's user."""

    plan: str  # short text, or ``painted[/partition]``
    painted: Sequence[int] = ()  # cells in the order they were painted; all others follow in raster order
    given: Sequence[int] = ()  # cells whose pixels are kept
    picture: torch.Tensor | None = None  # (C, H, W) levels, read at the given cells; None: all 0
    label: int | None = None  # the class, for a model with classes
    guidance: float = 1.0
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Generation:
    """One image and its NLL, -log p of the tokens generated so far given the class and the kept ones, at guidance 1 and
    temperature 1; None: the head has no exact likelihood."""

    image: torch.Tensor  # (1, C, H, W) in the data set's levels
    plan: Plan  # one row, as the tokens were generated
    shown: list[int]  # the AR steps of ``frames``; at most 128, the last included
    frames: list[torch.Tensor]  # (1, C, H, W) after each of these steps
    nats: list[float] | None  # (K,)
    bits_per_dim: list[float] | None  # (K,) over the dimensions generated so far; None also of latents and palettes
    notes: list[str]  # caveats of the figure


class Session:
    """A run of images, and a folder for painted orders.

    Args:
        reads_files: plans may name files of this machine, as ``file:PATH`` does.

    Raises:
        UserError: the run makes text, sound, numbers, or latents without an autoencoder.
    """

    def __init__(self, run: Run, folder: Path, reads_files: bool = True) -> None:
        if run.spec.modality != "image":
            raise UserError(f"mar demo shows images: {run.folder.path} makes examples of kind {run.spec.modality}, "
                            "which mar sample writes")  # fmt: skip
        self.run, self.folder, self.reads_files = run, folder, reads_files
        self._turn = Lock()  # one generation at a time bounds the memory of many clients
        shape = run.grid.shape if run.grid.ndim > 1 else (1, *run.grid.shape)
        self.rows, self.columns = shape[:2]
        self.channels = math.prod(shape[2:])  # tokens of a cell
        self.picture_shape: tuple[int, ...] = tuple(self._decode(empty_tokens(run.model, 1, run.device)).shape[1:])

    @property
    def classes(self) -> list[str]:
        """The class names or numbers; empty without classes."""
        names = self.run.spec.class_names
        return [names[k] if names else str(k) for k in range(self.run.model.n_classes)]

    def presets(self) -> list[str]:
        """Return the training plan, the painted one, every ordering that supports this grid, and some sets."""
        served = []
        for text in (self.run.training_plan, PAINTED, *ORDERINGS.names(), *_SETS):
            try:
                self.plan(Request(text))
            except MarError:
                continue
            served.append(text)
        return list(dict.fromkeys(served))

    def plan(self, request: Request) -> Plan | None:
        """The plan that ``generate`` will follow; None: its order is found along the way.

        Raises:
            InvalidRequest, Unsupported, UserError: there is no such plan; the message says what is near or missing.
        """
        plans = self.run.plans(self._parsed(request))
        if plans.rule is not None or plans.learned:
            return None
        noise = stream(request.seed, "sample", torch.tensor([0]))  # as ``mar sample`` draws its first image
        return plans.sample(noise.at("order"), self._given(request)[None])

    def generate(self, request: Request) -> Generation:
        """One image along the plan, the same as ``mar sample`` makes first. Raises as ``plan`` and ``Run.sample``."""
        given_L = self._given(request)
        if given_L.all():
            raise UserError("every cell is given: leave some to generate")
        token_K: list[torch.Tensor] = []
        step_BL = torch.where(given_L, GIVEN, 0)[None].to(self.run.device)

        def keep(step: int, token: torch.Tensor, target_BL: torch.Tensor) -> None:
            token_K.append(token.clone())
            step_BL[target_BL] = step

        picture = torch.zeros(self.picture_shape, dtype=torch.uint8) if request.picture is None else request.picture
        given = (picture, ~given_L) if given_L.any() else (None, None)
        ordering, partition = self._parsed(request)
        adaptive = to_text(ordering) if isinstance(ordering, Adaptive) else None
        drawn = self.plan(request) or (parse_ordering("raster") if adaptive else ordering, partition)
        with self._turn:
            image = self.run.sample(
                1, drawn, self._label(request), request.guidance, request.temperature, request.seed, adaptive=adaptive,
                given=given[0], mask=given[1], on_step=keep,
            )  # fmt: skip
        plan = drawn if isinstance(drawn, Plan) else Plan(step_BL, step_BL)  # only steps matter from here on
        shown = torch.linspace(0, len(token_K) - 1, min(len(token_K), _MOST)).round().int().tolist()
        frames = [self._decode(token_K[k]) for k in shown]
        nats, bits, notes = self._nll(token_K[-1], plan.to(self.run.device), request)
        return Generation(image, plan, shown, frames, nats, bits, notes)

    def order_file(self, painted: Sequence[int]) -> Path:
        """The painted order as a file that every command takes (``--plan file:PATH``)."""
        rest = sorted(set(range(self.rows * self.columns)) - set(painted))
        positions = [cell * self.channels + k for cell in (*painted, *rest) for k in range(self.channels)]
        text = json.dumps({"positions": positions})
        path = self.folder / f"order-{digest(text, digits=8)}.json"
        write_atomic(path, text)
        for old in sorted(self.folder.glob("order-*.json"), key=lambda file: file.stat().st_mtime_ns)[:-_ORDERS]:
            old.unlink(missing_ok=True)
        return path

    def test_image(self, number: int) -> tuple[torch.Tensor, int | None]:
        """(C, H, W) levels and the class of a test image, counted from 0 and again from 0 after the last.

        Raises:
            UserError: the data are not there.
        """
        split = self.run.images.test
        x, label = split.batch(torch.tensor([number % len(split)]))
        return x[0], None if label is None else int(label[0])

    def _parsed(self, request: Request) -> tuple[Ordering | Adaptive, Partition]:
        name, *partition = request.plan.strip().split("/", 1)
        if not self.reads_files and re.search(r"\b(file|costs|path)\b", request.plan):
            raise UserError("this page reads no files for its visitors: paint the order, or choose another plan")
        if name.strip() != PAINTED:
            return PlanSpec.parse(request.plan, adaptive=True)
        path = self.order_file(request.painted)
        return parse_ordering("file", {"path": str(path)}), PlanSpec.parse("/".join(["raster", *partition]))[1]

    def _given(self, request: Request) -> torch.Tensor:
        """given_L (bool)."""
        cell = torch.zeros(self.rows * self.columns, dtype=torch.bool)
        cell[list(request.given)] = True
        return cell.repeat_interleave(self.channels)

    def _label(self, request: Request) -> torch.Tensor | None:
        return torch.tensor([request.label or 0]) if self.run.model.n_classes else None

    def _decode(self, token: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.run.model.tokenizer.decode(token).cpu()

    def _nll(
        self, token: torch.Tensor, plan: Plan, request: Request
    ) -> tuple[list[float] | None, list[float] | None, list[str]]:
        """(nats, bits/dim, notes) as in ``Generation``."""
        model, text = self.run.model, request.plan.strip()
        if text.split("/")[0].strip() != PAINTED:
            text = str(PlanSpec.parse(text, adaptive=True))
        notes = list(self.run.warnings(text))
        if "exact" not in model.head.likelihoods:
            kinds = " or ".join(sorted(model.head.likelihoods))
            return None, None, [f"this head has no exact likelihood, only one of kind {kinds}: mar score nll", *notes]
        label_B = labels_of(model, self._label(request), 1).to(self.run.device)
        noise = image_noise(request.seed, 1, self.run.device)
        nats_BL = -token_log_prob(model, token, plan, label_B, noise, "exact").nats_BL.double()
        n_steps = int(plan.n_steps_B)
        nats_K = per_step(plan.step_BL, nats_BL, torch.ones_like(nats_BL), n_steps)[0][0].cumsum(0)
        if not isinstance(model.tokenizer.token, Categories):
            notes.insert(0, "the density of the continuous tokens as they were drawn")
        share_K = plan.sizes()[0].cumsum(0) / plan.step_BL.shape[1]
        try:
            bits = [model.tokenizer.bits_per_dim(float(x)) for x in nats_K / share_K]
        except Unsupported:
            bits = None
        return nats_K.tolist(), bits, notes
