"""Likelihood along plans: as a metric of a grid, and as records in RUN/scores.

N images · L tokens · V vocabulary · C classes
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, TypeAdapter

from mar import build
from mar.config import Recipe, Section
from mar.core.errors import UserError
from mar.core.files import digest, environment, write_atomic
from mar.core.progress import Progress, bar
from mar.core.records import Partial
from mar.core.table import Column, Table, fields, plus_minus, with_interval
from mar.core.tokens import Categories
from mar.data.base import Data, Split, evenly_spaced, sliding
from mar.data.base import fingerprint as content_hash
from mar.likelihood.chain import IMAGES_AT_ONCE, image_noise
from mar.likelihood.estimate import EVERY_STEP, SINGLE, Estimator, Repeats, parse_target, until_error
from mar.likelihood.summary import EnsemblePoint, Likelihood, fingerprint
from mar.metrics.base import (
    Baseline,
    Metric,
    Question,
    SplitName,
    Subject,
    Units,
    Variant,
    Workspace,
    adaptive_plan,
    save,
    scores_folder,
)
from mar.metrics.statistics import Difference, holm, kind_of, paired_differences
from mar.model.plans import Plans
from mar.run import Precision, Run
from mar.tokenizers.base import Tokenizer
from orderings import PlanSpec

Say = Callable[[str], None]
_Named = tuple[str, Likelihood]  # a row of a table
_NAME = 120  # characters of a picture's name
_SOURCES = tuple(Path(__file__).parents[2] / name for name in ("mar", "orderings"))


class NLL(Metric):
    """The likelihood of a split along each plan."""

    class Options(Section):
        split: SplitName = "test"
        images: int | None = Field(default=None, ge=2, description="so many, spread over the split; None: all")
        seed: int = Field(default=0, ge=0, description="of random orders, dequantisation and the noise of bounds")
        orders: int = Field(default=0, ge=0, description="of random plans: so many orders, shared by all images")
        estimator: str = Field(default="exact", description="exact, or steps drawn for each image, e.g. steps:8")
        kind: str | None = Field(default=None, description="exact, ode or bound; None: the head's default")

    name, title, Answer = "nll", "NLL", Likelihood
    default = Options()
    options: Options

    def question(self, subject: Subject) -> Question | None:
        variant = subject.variant
        if variant is not None and not variant.has_likelihood:
            return None
        return self.along_plan(subject, variant if variant is not None and variant.is_scored_alone else None)

    def compute(self, question: Question, at: Workspace) -> Likelihood:
        assert question.plan is not None
        return score_nll(at.load(), question.plan, self.options, at.variant, at.progress)

    @classmethod
    def columns(cls, answers: Sequence[Likelihood]) -> Sequence[Column[Likelihood]]:
        """In bits/dim if an answer has them."""
        unit, mean, error, digits = "nats", "nats_per_image", "standard_error_nats", 2
        if any(answer.bits_per_dim is not None for answer in answers):
            unit, mean, error, digits = "bits/dim", "bits_per_dim", "standard_error_bits_per_dim", 4

        def text(answer: Likelihood) -> str:
            return plus_minus(getattr(answer, mean), getattr(answer, error), digits)

        return [Column("NLL", lambda answer: getattr(answer, mean), "lower", digits, text, unit)]

    @classmethod
    def data_columns(cls) -> Sequence[Column[Likelihood]]:
        return fields(
            nll_kind="kind",
            nll_images="n_images",
            nll_nats_per_image="nats_per_image",
            nll_nats_per_image_standard_error="standard_error_nats",
            nll_bits_per_dim="bits_per_dim",
            nll_bits_per_dim_standard_error="standard_error_bits_per_dim",
        )

    @classmethod
    def alike(cls, answer: Likelihood, recipe: Mapping[str, Any]) -> Hashable:
        """Data, images and kind; for latents also the tokenizer."""
        latents = str(recipe.get("tokenizer")) if answer.bits_per_dim is None else ""
        return str(recipe.get("data")), answer.n_images, kind_of(answer), latents

    @classmethod
    def notes(cls, answers: Sequence[Likelihood], grid: Mapping[str, Any]) -> list[str]:
        kinds = ", ".join(sorted({answer.kind for answer in answers}))
        warnings = {warning for answer in answers for warning in answer.warnings}
        return [
            f"NLL: {kinds}, on {answers[0].n_images} {grid['nll']['split']} images, ± one standard error over images. "
            "Tokens of one set are independent given the past, so fewer steps are a weaker model.",
            *(f"Warning: {warning}." for warning in sorted(warnings)),
        ]

    def baselines(self, recipe: Recipe, data: Data) -> Iterator[Baseline]:
        tokenizer = build.tokenizer(recipe, data)
        yield from independent_tokens(
            data, tokenizer, self.options.split, self.options.images, recipe.class_conditional
        )


def score_nll(
    run: Run, plan: str, options: NLL.Options, variant: Variant | None = None, progress: Progress | None = None
) -> Likelihood:
    """Return the likelihood of the split along ``plan``; with ``options.orders``, of mixtures of random orders too."""
    rule, likelihood = (variant.adaptive, variant.likelihood) if variant is not None else ("", {})
    repeats = Repeats(orders=options.orders) if options.orders and run.plans(plan).random and not rule else SINGLE
    along = adaptive_plan(rule, PlanSpec.parse(plan).partition) if rule else plan
    return run.nll(
        plan=along, split=options.split, limit=options.images, seed=options.seed, progress=progress,
        repeats=repeats, likelihood=dict(likelihood), kind=options.kind,
        estimator=Estimator.parse(options.estimator),
    )  # fmt: skip


def independent_tokens(
    data: Data, tokenizer: Tokenizer, split: str, limit: int | None, conditional: bool
) -> tuple[Baseline, ...]:
    """Return the NLL of tokens that are independent of all others, from counts with add-one smoothing.

    Beside ``conditional`` models, also of tokens that are independent given the class. There is no such baseline for
    vectors, which have no counts, and for examples of their own lengths, whose counts would be of the padding.
    """
    if not isinstance(tokenizer.token, Categories) or tokenizer.end is not None:
        return ()
    found = [_independent(data, tokenizer, split, limit, by_class=False)]
    if conditional and data.spec.n_classes:
        found.append(_independent(data, tokenizer, split, limit, by_class=True))
    return tuple(found)


def _independent(data: Data, tokenizer: Tokenizer, split: str, limit: int | None, by_class: bool) -> Baseline:
    name = "independent tokens, by class" if by_class else "independent tokens"
    train_NL, train_N = _tokens(data.train, tokenizer, None)
    token_NL, class_N = _tokens(data.split(split), tokenizer, limit)
    if not by_class:
        train_N, class_N = torch.zeros_like(train_N), torch.zeros_like(class_N)
    n_classes = data.spec.n_classes if by_class else 1
    probability_CLV = smoothed(train_NL, train_N, tokenizer.token.vocabulary, n_classes)  # type: ignore[union-attr]
    position_L = torch.arange(token_NL.shape[1])
    nats_NL = -probability_CLV[class_N[:, None], position_L, token_NL].log()
    nats_N = nats_NL.sum(1)
    mean, error = float(nats_N.mean()), float(nats_N.std() / math.sqrt(len(nats_N)))
    per_dim = math.log(2.0) * tokenizer.dimensions
    likelihood = Likelihood(
        plan=name,
        kind="exact",
        n_images=len(nats_N),
        nats_per_image=mean,
        standard_error_nats=error,
        bits_per_dim=mean / per_dim if per_dim else None,
        standard_error_bits_per_dim=error / per_dim if per_dim else None,
        steps=1,
        evaluations=0,
        forward_rows_per_image=0.0,
        warnings=(),
        nats_per_step=(mean,),
        tokens_per_step=(float(nats_NL.shape[1]),),
        nats_per_position=tuple(nats_NL.mean(0).tolist()),
        nats_of_image=tuple(nats_N.tolist()),
    )
    return Baseline(name, name, "all at once", likelihood)


def smoothed(token_NL: torch.Tensor, class_N: torch.Tensor, vocabulary: int, n_classes: int) -> torch.Tensor:
    """Return (count + 1) / (N + V) for every class, position and category: float64 (C, L, V)."""
    length = token_NL.shape[1]
    cell_NL = (class_N[:, None] * length + torch.arange(length)) * vocabulary + token_NL
    count = torch.bincount(cell_NL.flatten(), minlength=n_classes * length * vocabulary).double() + 1.0
    count_CLV = count.reshape(n_classes, length, vocabulary)
    return count_CLV / count_CLV.sum(-1, keepdim=True)


def _tokens(split: Split, tokenizer: Tokenizer, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    x, label_N = split.batch(evenly_spaced(len(split), limit))
    return tokenizer.encode(x), torch.zeros(len(x), dtype=torch.int64) if label_N is None else label_N


@dataclass(frozen=True)
class NllRequest:
    """What ``mar score nll`` asks of every plan.

    Attributes:
        plans: canonical short texts.
        paired_with: the plan that the others are compared with; "": none.
        n: images, evenly spread over the split; None: all.
        repeats: orders of plans whose order is random, and dequantisations.
        target: a standard error as text: more images are scored until it is reached; "": none.
        likelihood: the head's scoring options.
        budget: bytes of activations.
        weights: "ema" or "last".
        precision: of the network, "fp32" or "bf16".
        again: score anew what is scored already.
        past: tokens before each scored one, in overlapping windows; None: windows as the split has them.
    """

    plans: tuple[str, ...]
    paired_with: str = ""
    split: str = "test"
    n: int | None = None
    kind: str | None = None
    estimator: Estimator = EVERY_STEP
    repeats: Repeats = field(default_factory=Repeats)
    target: str = ""
    likelihood: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    seed: int = 0
    weights: str = "ema"
    again: bool = False
    precision: Precision = "fp32"
    past: int | None = None

    def __post_init__(self) -> None:
        if self.target and (self.repeats != Repeats() or self.paired_with):
            raise UserError(
                "--target-se chooses the images of each plan: leave out --orders, --draws and --paired-with"
            )
        if self.past is not None and (self.n is not None or self.target):
            raise UserError("--past scores every token of the split once: leave out -n and --target-se")


@dataclass(frozen=True)
class NllScores:
    """Attributes: plan -> its record in RUN/scores, its likelihood, its difference to ``paired_with``."""

    files: dict[str, Path]
    likelihoods: dict[str, Likelihood]
    differences: dict[str, Difference]

    @cached_property
    def picture(self) -> Path:
        """The file of the picture: the name of a single record; of several, their plans in one name, cut short."""
        files = list(self.files.values())
        if len(files) == 1:
            return files[0].with_suffix(".png")
        stems = [path.stem.removeprefix("nll-") for path in files]
        name = "+".join(stems)
        if len(name) > _NAME:
            name = f"{stems[0]}+{len(stems) - 1}-more-{fingerprint({'stems': stems})[:8]}"
        return files[0].with_name(f"nll-{name}.png")


def score_plans(run: Run, request: NllRequest, say: Say) -> NllScores:
    """Score every plan on the same images and noise, into RUN/scores; compare with ``request.paired_with``."""
    if request.repeats.orders and not any(run.plans(plan).random for plan in request.plans):
        raise UserError(f"--orders takes a plan whose order is random: {', '.join(request.plans)} have one order each")
    plans = list(dict.fromkeys([*filter(None, [request.paired_with]), *request.plans]))
    score_one = _score_to_target if request.target else score_plan
    files = {plan: score_one(run, plan, request, say) for plan in plans}
    likelihoods = {plan: read_nll(path) for plan, path in files.items()}
    differences = paired_differences(likelihoods, request.paired_with) if request.paired_with else {}
    for plan, difference in differences.items():
        write_atomic(
            files[plan], json.dumps({**json.loads(files[plan].read_text()), "paired": asdict(difference)}, indent=1)
        )
    return NllScores(files, likelihoods, differences)


def compare_runs(
    runs: Sequence[Run], requests: Sequence[NllRequest], say: Say
) -> tuple[dict[str, Likelihood], dict[str, Difference], str]:
    """Score runs along the same plans; return likelihoods and differences to the first run, by "RUN PLAN".

    Holm's correction covers every comparison. The last value names the reference.

    Raises:
        UserError: the runs were not trained on the same data, or their likelihoods cannot be paired.
    """
    names = run_names(runs)
    check_comparable(dict(zip(names, runs, strict=True)), requests[0].kind)
    scored = [score_plans(run, request, say) for run, request in zip(runs, requests, strict=True)]
    likelihoods, differences = {}, {}
    for name, found in zip(names, scored, strict=True):
        for (base_plan, base), (plan, likelihood) in zip(
            scored[0].likelihoods.items(), found.likelihoods.items(), strict=True
        ):
            key = name if plan == base_plan and len(found.likelihoods) == 1 else f"{name} {plan}"
            likelihoods[key] = likelihood
            if name != names[0]:
                differences[key] = paired_differences({"base": base, "other": likelihood}, "base")["other"]
    adjusted = holm([difference.p_value for difference in differences.values()])
    pairs = zip(differences.items(), adjusted, strict=True)
    return likelihoods, {key: replace(d, reference=names[0], p_holm=p) for (key, d), p in pairs}, names[0]


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of the runs' folders, or their paths where two folders have one name.

    Raises:
        UserError: one run is there twice.
    """
    paths = [run.folder.path.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{path} is there twice: name each run once")
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(run.folder.path) for run in runs]


def check_comparable(runs: Mapping[str, Run], kind: str | None) -> None:
    """Refuse runs whose likelihoods do not belong in one table.

    Raises:
        UserError: another data set (or other splits of it), or another kind of likelihood.
        Unsupported: a head without likelihoods of ``kind``.
    """
    (first, base), *others = runs.items()
    base_kind = base.model.head.check_kind(kind)
    for name, run in others:
        if run.data.fingerprint != base.data.fingerprint:
            raise UserError(
                f"{first} was trained on {base.data.name} {base.data.fingerprint[:12]}, {name} on {run.data.name} "
                f"{run.data.fingerprint[:12]}: a table takes runs on the same examples in the same splits"
            )
        if (other_kind := run.model.head.check_kind(kind)) != base_kind:
            raise UserError(
                f"the likelihood of {first} is of kind {base_kind}, that of {name} {other_kind}: they are never mixed "
                "in one table; choose a --kind that all runs have"
            )
        if bool(run.model.tokenizer.dimensions) != bool(base.model.tokenizer.dimensions):
            raise UserError(f"{first} and {name} model different data: one has latent tokens, the other does not")


def read_nll(path: Path) -> Likelihood:
    """Return the likelihood of a record in RUN/scores."""
    return TypeAdapter(Likelihood).validate_python(json.loads(path.read_text()))


def score_plan(run: Run, plan: str, request: NllRequest, say: Say) -> Path:
    """Return the plan's record in RUN/scores; compute and write it unless the same question is answered there."""
    plans = run.plans(plan)
    if not plans.random:
        request = replace(request, repeats=replace(request.repeats, orders=0))
    if request.past is None:
        (images, labels), given = run.subset(request.split, request.n), None
    else:
        images, labels, given = sliding(run.data.split(request.split), request.past)
    question, several = nll_question(run, plans, request, len(images)), asdict(request.repeats)
    answer, scores = fingerprint({**question, **several}), run.folder.path / "scores"
    if not request.again and (found := _find(scores, answer)):
        say(f"{plan}: scored before, kept in {found.name} (--again scores it anew)")
        return found
    scores_folder(run)
    kept = Partial(scores / "partial" / fingerprint(question))
    if request.again:
        kept.delete()
    with bar(f"NLL {plan}") as progress:
        result = run.nll(
            images, plans, labels, seed=request.seed, repeats=request.repeats, likelihood=request.likelihood, kept=kept,
            progress=progress, kind=request.kind, budget=request.budget, estimator=request.estimator,
            precision=request.precision, given=given,
        )  # fmt: skip
    settings = {"split": request.split, "seed": request.seed, "weights": request.weights, "draws": several["draws"]}
    settings |= {"precision": request.precision, "past": request.past}
    content = {**settings, "likelihood": request.likelihood, **result.to_dict(), "fingerprint": answer}
    path = save(run, "nll", plan, content)
    kept.clear("images")
    return path


def _score_to_target(run: Run, plan: str, request: NllRequest, say: Say) -> Path:
    """As ``score_plan``, with more images until the standard error is reached."""
    target, images = parse_target(request.target, run.model.tokenizer), len(run.data.split(request.split))
    paths = {}

    def score(n: int) -> Likelihood:
        paths[n] = score_plan(run, plan, replace(request, n=n, target=""), say)
        return read_nll(paths[n])

    found = until_error(score, target, images if request.n is None else min(request.n, images))
    path, reached = paths[found.n_images], found.standard_error_nats <= target
    settings = {"wanted": request.target, "wanted_nats": target, "looks": list(paths), "reached": reached}
    write_atomic(path, json.dumps({**json.loads(path.read_text()), "target": settings}, indent=1))
    units, bits = Units.of_run(run), found.standard_error_bits_per_dim
    error = f"{found.standard_error_nats:.3f} {units.nats}" + (f" = {bits:.4f} {units.per_dimension}" if bits else "")
    end = "reached" if reached else f"with all {units.example}s there are"
    scored = f"{', '.join(f'{n:,}' for n in paths)} {units.example}s scored"
    say(f"{plan}: standard error {error} {end}, {request.target} wanted; {scored}")
    return path


def nll_question(run: Run, plans: Plans, request: NllRequest, n_images: int) -> dict[str, Any]:
    """Return everything that the log-probabilities of one order and one dequantisation depend on."""
    first = image_noise(request.seed, min(n_images, IMAGES_AT_ONCE)).at("order")
    state = json.loads((run.checkpoint.path / "state.json").read_text())["sha256"]
    kind = request.kind
    return {
        "plan": plans.text,
        "steps": content_hash(plans.scored(first).step_BL.cpu()),  # an order's file or set costs may have changed
        "split": request.split,
        "images": n_images,
        "data": run.data.fingerprint,
        "seed": request.seed,
        "kind": run.model.head.check_kind(None if plans.learned and kind == "bound" else kind),  # a bound by itself
        "estimator": str(request.estimator),
        "likelihood": request.likelihood,
        "precision": request.precision,
        "past": request.past,
        "weights": [state["model.safetensors"], state["ema.safetensors"] if run.ema else ""],
        "code": code_identity(environment()),
    }


def code_identity(made_by: Mapping[str, Any], sources: Sequence[Path] = _SOURCES) -> list[str]:
    """Return version, revision and, where these do not identify the code, a hash of the source files."""
    version, revision = made_by["packages"]["mar-orderings"], made_by["revision"]
    if revision != "unknown" and not revision.endswith("-dirty"):
        return [version, revision]
    files = sorted(path for folder in sources for path in folder.rglob("*.py"))
    return [version, revision, digest(*(path.read_bytes() for path in files))]


def _find(scores: Path, answer: str) -> Path | None:
    """Return the record with this fingerprint."""
    return next((path for path in scores.glob("nll-*.json") if f'"fingerprint": "{answer}"' in path.read_text()), None)


def nll_tables(
    likelihoods: Mapping[str, Likelihood],
    differences: Mapping[str, Difference],
    reference: str | None,
    title: str,
    units: Units,
    random: Set[str] = frozenset(),
) -> list[Table]:
    """Return the table of likelihoods by name, and of plans with several shared orders the ensembles.

    Args:
        reference: name of the reference of ``differences``.
        random: names whose order is drawn, for the notes.
    """
    columns: list[Column[_Named]] = [
        Column("plan", lambda row: row[0], words=True),
        Column("kind", lambda row: kind_text(row[1]), words=True),
        Column("n", lambda row: row[1].n_images),
        Column(
            units.nats, lambda row: row[1].nats_per_image,
            text=lambda row: plus_minus(row[1].nats_per_image, row[1].standard_error_nats, 2),
        ),
    ]  # fmt: skip
    if units.symbol:
        columns.append(_per_dimension(f"nats/{units.symbol}", math.log(2.0)))
    columns.append(_per_dimension(units.per_dimension))
    columns.append(Column("AR steps", lambda row: row[1].steps))
    if reference:

        def difference(row: _Named) -> Difference | None:
            return differences.get(row[0])

        def shown(row: _Named) -> str:
            found = differences[row[0]]
            return with_interval(found.nats_per_image, found.interval_nats, 2)

        head = f"{units.nats} − {reference} [95 %]"
        columns.append(Column(head, lambda row: (d := difference(row)) and d.nats_per_image, text=shown))
        p_holm = Column[_Named](
            "p (Holm)", lambda row: (d := difference(row)) and d.p_holm,
            text=lambda row: f"{differences[row[0]].p_holm:.2g}",
        )  # fmt: skip
        columns.append(p_holm)
    ensembles = [_ensemble_table(name, found, units) for name, found in likelihoods.items() if found.ensemble]
    table = Table(
        columns, list(likelihoods.items()), nll_notes(likelihoods, random, units),
        f"negative log-likelihood, {title} (lower is better)",
    )  # fmt: skip
    return [*ensembles, table]


def nll_notes(likelihoods: Mapping[str, Likelihood], random: Set[str], units: Units) -> list[str]:
    """Return what to know before quoting the figures; ``random``: names whose order is drawn."""
    found = likelihoods.values()
    notes = [
        f"± is one standard error over {units.example}s, orders and steps drawn; kind names the figure "
        "(docs/likelihood.md)"
    ]
    if any(name in random and not r.orders for name, r in likelihoods.items()):
        notes.append(
            f"random orders: every {units.example} has its own; the mean over orders bounds the NLL of their mixture "
            "from above"
        )
    if any(r.orders for r in found):
        notes.append("shared orders: the mean over them bounds the NLL of the mixture over all orders from above")
    if any(r.ensemble for r in found):
        notes.append("an ensemble of S orders is the exact NLL of the mixture of these S orders, for these tokens")
    if any(r.dequantisation_draws for r in found):
        notes.append("uniform dequantisation: a bound on the NLL of the integer pixels, whatever the kind")
    for r in found:
        settings = ", ".join(f"{key}={value}" for key, value in r.settings.items())
        line = f"likelihood settings: {settings}; {r.evaluations} evaluations of the head for each token"
        notes += [line] if settings and line not in notes else []
    return [*notes, *(f"warning: {w}" for w in dict.fromkeys(w for r in found for w in r.warnings))]


def kind_text(likelihood: Likelihood) -> str:
    """Return the kind and the averages: "exact", "estimate (bound, steps:8)", "exact, mean of 16 orders"."""
    r = likelihood
    kind = f"estimate ({r.head_kind}, {r.estimator})" if r.kind == "estimate" else r.kind
    if r.orders or r.orders_per_image > 1:
        kind += f", mean of {r.orders or r.orders_per_image} orders"
    return f"{kind}, {r.dequantisation_draws} draws" if r.dequantisation_draws > 1 else kind


def _per_dimension(title: str, nats_per_bit: float = 1.0) -> Column[_Named]:
    """A column per dimension; ``nats_per_bit`` converts bits to nats."""

    def figures(row: _Named) -> tuple[float | None, float | None]:
        r = row[1]
        if r.nats_per_latent_dimension is not None:
            return r.nats_per_latent_dimension, r.standard_error_nats_per_latent_dimension
        if r.bits_per_dim is None or r.standard_error_bits_per_dim is None:
            return None, None
        return r.bits_per_dim * nats_per_bit, r.standard_error_bits_per_dim * nats_per_bit

    return Column(title, lambda row: figures(row)[0], text=lambda row: plus_minus(*figures(row), 4))  # type: ignore[arg-type]


def _ensemble_table(name: str, likelihood: Likelihood, units: Units) -> Table:
    columns: list[Column[EnsemblePoint]] = [
        Column("orders", lambda p: p.orders),
        Column(
            f"{units.nats} ± over {units.example}s", lambda p: p.nats_per_image,
            text=lambda p: plus_minus(p.nats_per_image, p.standard_error_nats, 2),
        ),
        Column("± over orders", lambda p: p.standard_error_orders_nats, digits=2),
        Column(
            units.per_dimension, lambda p: p.bits_per_dim,
            text=lambda p: plus_minus(p.bits_per_dim or 0.0, p.standard_error_bits_per_dim or 0.0, 4),
        ),
    ]  # fmt: skip
    title = f"ensembles of orders, {name}, {likelihood.n_images} {units.example}s"
    return Table(columns, likelihood.ensemble, title=title)
