"""Runs from Python: train a recipe in a run folder, or fit a model to a data set in memory; load, sample, score, walk.

N images · L tokens · K AR steps · M gathered tokens · P tokens of a prompt · T tokens so far

    run = mar.load("runs/digits")
    result = run.nll(plan="spiral/cosine:16")
    images = run.sample(64, plan="hilbert", guidance=2.0)
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal
from warnings import warn

import torch

from mar import build, config
from mar.config import Recipe
from mar.core.devices import chosen
from mar.core.errors import Unsupported, UserError, unknown
from mar.core.files import RUN, write_atomic
from mar.core.hub import local_folder
from mar.core.log import logger
from mar.core.noise import derived_seed, stream
from mar.core.processes import Processes
from mar.core.progress import Progress
from mar.core.records import Partial
from mar.core.spec import DataSpec
from mar.data.base import SPLITS, About, Data, evenly_spaced
from mar.data.memory import Memory, in_memory
from mar.likelihood.chain import FindOrders, TokenScores, adaptive_log_prob, conditionals
from mar.likelihood.control import Control
from mar.likelihood.estimate import EVERY_STEP, SINGLE, Repeats, check_draws, score_several
from mar.likelihood.summary import Conditionals, Likelihood, summarise
from mar.model.inputs import are_whole, examples_of, given_labels, tokens_of
from mar.model.model import Model, sampling_options, scoring_options
from mar.model.plans import PlanLike, Plans
from mar.networks import NETWORKS
from mar.networks.base import Network, NetworkOptions
from mar.order_search.learned import find_learned
from mar.sampling.guidance import Guidance, Temperature
from mar.sampling.many import Settings, given_tokens, labels_of, sample_many
from mar.sampling.remask import parse_remask
from mar.sampling.samplers import Drawn, begin, draw_steps
from mar.sampling.speculate import OWN, Speculation
from mar.training import blocks, checkpoint
from mar.training.initial import RECORD, initialise
from mar.training.job import FidOf, ModelJob, check, check_memory
from mar.training.loop import Trainer
from mar.training.parts import Parts
from mar.training.run_folder import RunFolder
from orderings import PlanSpec


def train(
    recipe: Recipe, path: str | Path, processes: Processes | None = None, examples: Data | None = None,
    ignore_memory: bool = False, fid: FidFor | None = None,
) -> None:  # fmt: skip
    """Train ``recipe`` in the folder ``path``, or go on where it stands.

    Args:
        examples: the data set, in place of the recipe's; the recipe is resolved (``mar.build.resolve``).
        ignore_memory: start although the training needs more memory than is free.
        fid: what measures ``train.fid_every``: ``mar.metrics.fid.while_training``.

    Raises:
        UserError: the recipe is impossible, does not fit the memory, or the folder belongs to another run or process.
    """
    folder = RunFolder(path)
    processes = processes or Processes(folder.original_setting(recipe, "precision"), recipe.train.parallel)

    def assembled() -> Parts:
        parts = build.assemble(recipe, examples)
        check(parts, processes)
        if recipe.train.fid_every and fid is None:
            raise UserError("train.fid_every from Python: pass fid=mar.metrics.fid.while_training")
        if not (ignore_memory or os.environ.get("MAR_IGNORE_MEMORY")):
            check_memory(parts, processes)
        if recipe.train.init and not folder.checkpoints.is_dir():
            begun.append(initialise(parts.model, recipe.train.init))
        return parts

    begun: list[tuple[str, str]] = []  # the note and the record of train.init
    parts = processes.on_all(assembled)
    compiles = folder.original_setting(recipe, "compile")
    if compiles == "auto":
        compiles = blocks.compiles(parts.model, processes.device)
    computes = {"precision": processes.precision, "compile": compiles, "processes": processes.world}
    if processes.device.type == "cpu" and torch.cuda.is_available():  # --device cpu
        computes["device"] = f"cpu, {os.cpu_count()} cores"
    with ExitStack() as stack:
        processes.on_main(lambda: stack.enter_context(folder.locked()))
        said = processes.on_main(lambda: folder.start(parts.recipe, parts.about, computes))
        for note, record in begun:
            said = [*said, note]
            processes.on_main(lambda record=record: write_atomic(folder.path / RECORD, record))
        tokenizer = parts.model.to(processes.device).tokenizer
        tokenizer.fit(to_measure(parts.data))  # on the device: an autoencoder encodes thousands of images
        for note in (*said, *tokenizer.notes) if processes.is_main else ():
            logger.info(f"note: {note}")
        measure: list[FidOf] = []
        if recipe.train.fid_every and fid is not None:
            processes.on_main(lambda: measure.append(fid(parts.data, processes.device)))
        scorer = measure[0] if measure else _no_fid
        Trainer(ModelJob(parts, folder, processes, compiles, scorer), folder, processes).run()


FidFor = Callable[[Data, torch.device], FidOf]


def _no_fid(images: torch.Tensor) -> float:
    raise NotImplementedError  # on the other processes, which only wait


def to_measure(data: Data, limit: int = 10_000) -> Iterable[torch.Tensor]:
    """Examples for what a tokenizer measures; each batch is spread over the training split, which may be sorted."""
    index = evenly_spaced(len(data.train), limit)
    batches = -(-len(index) // 500)
    for first in range(batches):
        yield data.train.batch(index[first::batches])[0]


def write_on(run: Run, n: int, prompt_P: torch.Tensor, length: int, seed: int = 0, **options: Any) -> torch.Tensor:
    """(N, 1, 1, T) levels: N texts of ``length`` tokens, or one window if that is 0, that begin with the prompt.

    Each further window is given the last half of the text so far and adds another half. Documents end by themselves,
    with the level ``end``, or are cut off at the window. ``options`` are those of ``Run.sample``. Raises UserError: the
    length leaves nothing to write, or is asked of documents.
    """
    window = run.spec.shape[-1]
    if run.spec.end is not None:
        if length or len(prompt_P) >= window:
            raise UserError(
                f"this run writes documents, which end by themselves, at the latest after {window} {run.spec.symbol}s: "
                "leave out --length, and give a shorter --prompt"
            )
        length = window
    length = length or max(window, len(prompt_P) + window // 2)
    if length <= len(prompt_P):
        raise UserError(f"the prompt has {len(prompt_P)} {run.spec.symbol}s: ask for a length of more, not {length}")
    x_NT, part = prompt_P.expand(n, -1), 0
    while x_NT.shape[1] < length:
        kept = x_NT.shape[1] if x_NT.shape[1] < window else window // 2
        if kept:
            given = torch.nn.functional.pad(x_NT[:, x_NT.shape[1] - kept :], (0, window - kept))[:, None, None]
            options |= {"given": given, "mask": torch.arange(window) >= kept, "prompt": True}
        fresh_NL = run.sample(n, seed=derived_seed(seed, part) if part else seed, **options).reshape(n, window).long()
        x_NT, part = torch.cat([x_NT, fresh_NL[:, kept:]], dim=1), part + 1
    return x_NT[:, None, None, :length]


Precision = Literal["fp32", "bf16"]


class Run:
    """A run folder with its model loaded, in evaluation mode.

    Args:
        path: the run folder, or a run's name on the hub: OWNER/NAME or OWNER/NAME@REVISION.
        ema: the averaged weights, or the last ones.
        device: cpu, cuda, xpu or mps; default: that of the variable MAR_DEVICE, else a CUDA GPU if there is one.
        iteration: of the checkpoint; default: the newest, or with ``train.keep_best`` the best.
        weights: the checkpoint of best validation (kept with ``train.until=plateau`` or ``train.keep_best``), or the
            last one, in place of an iteration.
        data_path: where the data lie now, if they have moved; default: the ``data.path`` of the recipe.

    Raises:
        UserError: not a run folder, no (such) checkpoint, or weights that disagree with the recipe.
    """

    def __init__(
        self,
        path: str | Path,
        ema: bool = True,
        device: str | None = None,
        iteration: int | None = None,
        weights: Literal["best", "last"] | None = None,
        data_path: str | Path = "",
    ) -> None:
        self.folder, self.ema, self.data_path = RunFolder(local_folder(path)), ema, str(data_path)
        self.recipe: Recipe = self.folder.recipe()
        self.located = self.folder.located(self.recipe, self.data_path)  # its paths as seen from here
        newest, _ = checkpoint.latest(self.folder.checkpoints)
        if newest is None:
            raise UserError(f"{path} has no checkpoint yet: train it with the command that started it")
        self.trained = newest.trained
        if weights == "best" or (weights is None and ema and self.recipe.train.keep_best):
            best, _ = checkpoint.latest(self.folder.best)
            if weights == "best" and (best is None or not ema):
                raise UserError(
                    f"{path} has no such weights: the best are averaged ones, kept with train.keep_best=true"
                )
            newest = best or newest
        if iteration is not None and iteration != newest.iteration:
            newest = checkpoint.at(self.folder.checkpoints, iteration)
        self.checkpoint = newest
        self.device = chosen(device or "")
        self.about: About = self.folder.about() or self.data.about
        parts = build.assemble(self.located, build.moved(self.about, self.located), check=False)
        self.parts = replace(parts, recipe=self.recipe)
        self.model: Model = self.parts.model
        self.checkpoint.load_model(self.model, ema)
        self.model.to(self.device).eval().requires_grad_(False)
        self.grid = self.model.tokenizer.lattice
        self._trained_plan = PlanSpec(self.parts.ordering, self.parts.partition)
        self.training_plan = str(self._trained_plan)  # as short text
        logger.debug(repr(self))

    def __repr__(self) -> str:
        recipe, parameters = self.recipe, sum(p.numel() for p in self.model.parameters())
        return (
            f"Run({self.folder.path}: {recipe.network.kind}, {recipe.head.kind} head, {self.about.name}, plan "
            f"{self.training_plan}, {parameters:,} parameters, {'averaged' if self.ema else 'last'} weights of "
            f"iteration {self.checkpoint.iteration})"
        )

    @cached_property
    def data(self) -> Data:
        """The data of the recipe, loaded lazily; not needed for sampling. May be assigned. UserError: not there."""
        found = build.data(self.located)
        known = self.folder.about() if self.data_path else None
        if known is not None and not found.about.recorded_as(known.fingerprint):
            raise UserError(f"{self.data_path} holds other data ({found.name}) than {self.folder.path} was trained on")
        return found

    @cached_property
    def images(self) -> Data:
        """The real images: the data, or what a cache of latents was made from. Raises UserError: not there."""
        return build.images(self.data)

    @property
    def spec(self) -> DataSpec:
        return self.about.spec

    def nll(
        self,
        images: torch.Tensor | None = None,
        plan: PlanLike | Plans | None = None,
        labels: torch.Tensor | None = None,
        split: str = "test",
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        repeats: Repeats = SINGLE,
        likelihood: dict[str, Any] | None = None,
        kept: Partial | None = None,
        precision: Precision = "fp32",
        given: torch.Tensor | None = None,
        control: str = "",
        condition: Any = None,
        **options: Any,
    ) -> Likelihood:
        """Likelihood along a plan of images (N, C, H, W) in the data set's levels, or of ``limit`` spread over a split.

        Args:
            images: also arrays, lists, other layouts and floats that ``mar.model.inputs.examples_of`` converts.
            labels: (N,) classes, -1: none; None: no classes, with a warning where the model is class-conditional.
            repeats: several orders or dequantisations of the same images, and their mean or mixture.
            likelihood: the head's scoring options (timesteps, solver, tolerance, …).
            kept: where finished work is kept, and taken up again.
            precision: of the network; probabilities are computed in float32.
            given: (N, L) bool, tokens that are conditioned on and not scored, of tokens of one dimension each.
            control: a split that the images are spread over, whose statistics correct their mean by regression
                (``Likelihood.controlled``, ``mar.likelihood.control``).
            condition: in place of labels, where the run's condition is vectors: (N, E), (N, T, E) or one for all; or a
                pair of sequences and their mask (N, T).
            options: those of ``mar.likelihood.chain.score``: kind, budget, estimator.

        Raises:
            UserError, Unsupported: this run has no such likelihood along this plan; the message says which it has.
        """
        labels = self._label(labels, condition)
        if images is None:
            images, own = self.subset(split, limit)
            labels = own if condition is None else labels
        plans, (images, labels) = self.plans(plan), self._examples(images, labels)
        variates = Control(self.spec, self.data.train, images, self.subset(control, None)[0]) if control else None

        def score_one(**asked: Any) -> Likelihood:
            found = self._conditionals(plans, images, labels, seed, given, **{"partial": kept, **options, **asked})
            return summarise(self.model.tokenizer, plans.text, found, self.warnings(plans.text))

        if repeats.draws > 1:
            check_draws(self.model, options.get("kind"), options.get("estimator", EVERY_STEP))
        with self._autocast(precision), scoring_options(self.model, likelihood or {}):
            every = 0 < repeats.orders == len(plans.components)
            found = score_several(self.model.tokenizer, score_one, repeats, progress, kept, every)
        return replace(found, controlled=variates.correct(self.model.tokenizer, found)) if variates else found

    def subset(self, split: str, limit: int | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images and labels of ``limit`` examples, evenly spread over a split, always the same; None: all."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if limit is not None and limit < 1:
            raise UserError(f"at least 1 example is wanted, not {limit}")
        source = self.data.split(split)
        return source.batch(evenly_spaced(len(source), limit))

    def _label(self, labels: Any, condition: Any) -> Any:
        """The one of ``labels`` and ``condition`` that is given. Raises UserError: both, or this run has no such."""
        if condition is not None and self.model.given is None:
            raise UserError("condition is for runs of condition.kind=vector or tokens: this run was trained without")
        if labels is not None and condition is not None:
            raise UserError("labels and condition are both given: this run is conditioned on vectors, condition, alone")
        if self.model.given is not None and are_whole(labels):
            raise UserError("labels are whole numbers, classes, and this run is conditioned on vectors: give condition")
        return labels if condition is None else condition

    def _examples(self, images: Any, labels: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images and labels as tensors; labels are of no account to an unconditional model."""
        images, conditional = examples_of(self.spec, images), self.model.conditional
        if conditional and labels is None:
            without = "class-conditional model scores these images without a class"
            if self.model.given is not None:
                without = "conditional model scores these examples under the null condition"
            warn(f"no labels: a {without}", stacklevel=3)
        if not conditional or labels is None:
            return images, None
        return images, given_labels(self.model, labels, len(images), lowest=-1)

    def _conditionals(
        self,
        plans: Plans,
        images: torch.Tensor,
        labels: torch.Tensor | None,
        seed: int,
        given: torch.Tensor | None,
        order: int | None = None,
        **asked: Any,
    ) -> Conditionals:
        find: FindOrders | None = None
        if plans.learned:
            if given is not None or order is not None:
                raise Unsupported("a learned order is scored by every step of an order of each whole image's own")
            find = find_learned
        elif (rule := plans.rule) is not None:
            find = lambda model, token, plan, *rest: adaptive_log_prob(model, token, plan, rule, *rest)  # noqa: E731
        if order is not None:  # MADE: each member of the mixture has a connectivity of its own, too
            self.model.network.resample(stream(seed, "structure", torch.tensor([order])))
        draw = partial(plans.scored, order=order, given_NL=given)
        try:
            return conditionals(self.model, images, labels, draw, seed, find=find, **asked)
        finally:
            self.model.eval()  # back to the first connectivity

    def log_prob(
        self,
        images: torch.Tensor,
        plan: PlanLike | None = None,
        labels: torch.Tensor | None = None,
        seed: int = 0,
        likelihood: dict[str, Any] | None = None,
        condition: Any = None,
        **options: Any,
    ) -> TokenScores:
        """The log-probability of every token of images (N, C, H, W) along a plan, with its step and position.

        Arguments and errors: as ``nll``. A learned order gives the terms of its bound.
        """
        plans, (images, labels) = self.plans(plan), self._examples(images, self._label(labels, condition))
        with scoring_options(self.model, likelihood or {}):
            found = self._conditionals(plans, images, labels, seed, options.pop("given", None), **options)
        return TokenScores(plans.text, found.kind, -found.nats_NL, found.step_NL, self.grid.coordinates())

    def plans(self, plan: PlanLike | Plans | None) -> Plans:
        """What draws a plan for every image; None: the training plan. Errors: a learned order without a policy, those
        of ``Plans``."""
        if isinstance(plan, Plans):
            return plan
        plan = self._trained_plan if plan in (None, self.training_plan) else plan
        plans = Plans(plan, self.grid, self.folder.path, self.device)
        if plans.learned and self.model.policy is None:
            raise UserError(f"{self.folder.path} has no learned order: train one with ordering=learned")
        if self.model.tokenizer.end is not None:
            self.model.tokenizer.check(plans.sample(stream(0, "check", 1)).step_BL)
        return plans

    def sample(
        self,
        n: int,
        plan: PlanLike | None = None,
        labels: torch.Tensor | None = None,
        guidance: float | Guidance = 1.0,
        temperature: float | Temperature = 1.0,
        seed: int = 0,
        batch_size: int = 256,
        adaptive: str | None = None,
        given: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        prompt: bool = False,
        remask: str | None = None,
        speculate: str | Speculation | None = None,
        progress: Progress | None = None,
        on_step: Any = None,
        first: int = 0,
        precision: Precision = "fp32",
        condition: Any = None,
        **options: Any,
    ) -> torch.Tensor:
        """N images (N, C, H, W) in the data set's levels; image k is the same for any n and batch size.

        Args:
            labels: (N,) classes; None: all in turn, or the null condition where the run's condition is vectors.
            condition: such vectors, as of ``nll``.
            first: number of the first image; ``labels`` and ``given`` count from image 0.
            guidance: a scale, with the linear schedule, or a Guidance with its own: Guidance(4, "power-cosine:2.75").
            temperature: of every step, or a Temperature with a schedule (``mar.sampling.guidance``).
            adaptive, given, mask, prompt: see ``mar.sampling.many.Settings``.
            remask: tokens are masked again and redrawn, e.g. random:16:0.1 or cap:0.02 (``mar.sampling.remask``).
            speculate: several tokens a pass, with the distribution of one at a time: self:8, jacobi:8 or RUN:8
                (``mar.sampling.speculate``); a Speculation counts the passes.
            precision: of matrix products.
            options: sampling options of the head (top_k, solver, steps, …) or the network (refresh).
        """
        plans, guidance, given = self.plans(plan), self._guidance(guidance), self._given(given, first + n)
        again = parse_remask(remask) if remask else None
        ahead = self.speculation(speculate) if speculate else None
        settings = Settings(guidance, temperature, seed, adaptive, given, mask, prompt, plans.learned, again, ahead)
        with sampling_options(self.model, options), self._autocast(precision):
            label_N = labels_of(self.model, self._label(labels, condition), first + n)
            return sample_many(self.model, label_N, plans.sample, settings, batch_size, on_step, progress, first)

    def walk(
        self,
        plan: PlanLike | None = None,
        n: int = 1,
        labels: torch.Tensor | None = None,
        guidance: float | Guidance = 1.0,
        temperature: float | Temperature = 1.0,
        seed: int = 0,
        adaptive: str | None = None,
        given: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        condition: Any = None,
    ) -> Iterator[Drawn]:
        """The generation of ``sample(n, plan, …)``, one AR step at a time, for a loop of one's own::

            for step in run.walk("raster", n=4):
                step.number, step.target_BL      # the step and its tokens
                step.z_MD, step.logits_MV        # their contexts, and logits of a categorical head
                step.x_M                         # the tokens drawn; assign others to go on with those
            images = run.decode(step.token)      # the tokens at the end

        Arguments and errors: as ``sample``.
        """
        plans, guidance, given = self.plans(plan), self._guidance(guidance), self._given(given, n)
        settings = Settings(guidance, temperature, seed, adaptive, given, mask, learned=plans.learned)
        noise = stream(seed, "sample", n, self.device)
        given_BL, token = given_tokens(self.model, settings, torch.arange(n))
        label_B = labels_of(self.model, self._label(labels, condition), n).to(self.device)
        drawn = plans.sample(noise.at("order"), given_BL)
        return draw_steps(*begin(
            self.model, drawn, label_B, noise.at("tokens"), guidance, temperature, token, adaptive, plans.learned
        ))  # fmt: skip

    def speculation(self, speculate: str | Speculation) -> Speculation:
        """Return a speculation with its draft model loaded. Raises UserError: a draft of other tokens or classes."""
        found = Speculation.parse(speculate) if isinstance(speculate, str) else speculate
        if found.model is None and found.draft not in OWN:
            if not (local_folder(found.draft) / RUN).is_file():
                raise UserError(f"{found.draft} is no run folder: the draft is self, jacobi or a run")
            draft = Run(found.draft, device=str(self.device)).model
            of, own = (
                (m.tokenizer.shape, m.tokenizer.token, m.n_classes, m.given and m.given.spec)
                for m in (draft, self.model)
            )
            if of != own:
                raise UserError(f"{found.draft} drafts other tokens or classes than {self.folder.path} has")
            found.model = draft
        return found

    @torch.no_grad()
    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) in the data set's levels, from tokens (N, L) or (N, L, E)."""
        return self.model.tokenizer.decode(tokens_of(self.model, token)).cpu()

    def _given(self, given: Any, n: int) -> torch.Tensor | None:
        """Given images as tensors, one or at least ``n``. Raises UserError: there is nothing to generate, too."""
        if n < 1:
            raise UserError(f"at least 1 image is wanted, not {n}")
        found = None if given is None else examples_of(self.spec, given, "given images")
        if found is not None and 1 < len(found) < n:
            raise UserError(f"{len(found)} given images for {n} images: give one, or one for each")
        return found

    def _guidance(self, guidance: float | Guidance) -> Guidance:
        guidance = guidance if isinstance(guidance, Guidance) else Guidance(guidance)
        if guidance.active and not self.model.conditional:
            raise UserError("guidance needs a class-conditional model: this run has no classes")
        return guidance

    def _autocast(self, precision: Precision) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    def warnings(self, plan: str) -> tuple[str, ...]:
        """What to know before quoting a likelihood of this run along ``plan``."""
        said = list(self.parts.objective.warnings())
        if not self.parts.ordering.at(1.0).random and plan != self.training_plan:
            said.append(f"trained along {self.training_plan} alone: the conditionals of {plan} were never trained")
        if self.model.policy is not None and plan != self.training_plan:
            said.append(f"trained along the orders of its policy: where {plan} goes elsewhere, it was trained little")
        if self.recipe.train.scheduled_sampling.probability:
            said.append("trained with scheduled sampling, whose optimum is not at the data's conditionals")
        if self.trained < (length := self.recipe.train.length(self.folder.validations())):
            said.append(f"an unfinished run: {self.trained} of {length} iterations")
        if "data" in self.__dict__ and not self.data.about.recorded_as(self.about.fingerprint):
            said.append(f"the data of {self.folder.path} have changed since training: {self.about.fingerprint[:12]} "
                        f"then, {self.data.fingerprint[:12]} now")  # fmt: skip
        return (*said, *self.about.notes.values())


def fit(
    model: str | Recipe | type[Network] | Network,
    dataset: Any,
    *overrides: str,
    out: str | Path | None = None,
    fid: FidFor | None = None,
    **options: Any,
) -> Run:
    """Train on a data set in memory.

        run = mar.fit("digits", (images, labels), "train.iterations=500")
        run = mar.fit(MyNetwork, torchvision.datasets.MNIST("data", transform=ToTensor()), "ordering=raster")

    Args:
        model: a recipe or its name; or a network in the default recipe: a class, ``FILE.py:Class``, or an instance,
            which is copied. A class or instance loads again where it has been put into ``mar.networks.NETWORKS``.
        dataset: a tensor of images, a pair of images and labels, a ``torch.utils.data.Dataset`` or a Hugging Face data
            set. A ``Data`` is taken as it is.
        overrides: of the recipe, ``"key=value"``.
        out: the run folder, where a stopped training goes on; None: a new temporary one (``run.folder.path``).
        fid: as of ``train``.
        options: of ``mar.data.memory.in_memory``: validation, test, levels, image, label, name.

    Raises:
        UserError: the data set is none of these, or the recipe cannot be trained on it.
    """
    data = dataset if isinstance(dataset, Data) else in_memory(dataset, **options)
    if isinstance(model, str) and ":" not in model:
        model = config.read(model)
    content = model.as_dict() if isinstance(model, Recipe) else {"name": "fit", "network": {"kind": _kind(model)}}
    content["data"] = {"kind": Memory.name}
    path = Path(out or tempfile.mkdtemp(prefix="mar-fit-"))
    recipe = build.resolve(config.parse(content, overrides))
    given = data is not dataset and data.spec.conditions is not None
    if given and (named := recipe.condition.column or recipe.condition.path):
        raise UserError(f"the examples have conditions beside them, and the recipe names {named}: leave out one")
    data = build.conditioned(data, recipe)
    train(recipe, path, examples=data, fid=fid)
    run = load(path)
    run.data = data
    return run


def _kind(network: str | type[Network] | Network) -> str:
    """The network's name in the registry, where it is put."""
    if isinstance(network, str):
        return network
    cls = network if isinstance(network, type) else type(network)
    if cls is not network:  # "constructing" it copies the instance
        copied = {"Options": NetworkOptions, "__new__": lambda *_: copy.deepcopy(network)}
        cls = type(cls.__name__, (cls,), copied)
    NETWORKS[cls.__name__] = cls
    return cls.__name__


def load(path: str | Path, ema: bool = True, device: str | None = None, **options: Any) -> Run:
    """The run in a folder or on the hub (OWNER/NAME), ready to sample and score. ``options``: iteration, weights,
    data_path, as of ``Run``."""
    return Run(path, ema, device, **options)
