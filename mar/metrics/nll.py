"""Likelihood along plans: as a metric of a grid, and as records in RUN/scores.

N images · L tokens · V vocabulary · C classes
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, TypeAdapter

from mar import build
from mar.config import Recipe, Section
from mar.core.errors import UserError
from mar.core.files import digest, environment, settings_digest, short, write_atomic
from mar.core.progress import bar
from mar.core.readers import reading
from mar.core.records import Partial, find
from mar.core.table import Column, Note, Table, fields, plus_minus, with_error, with_interval
from mar.core.table import field as field_of
from mar.core.tokens import Categories
from mar.data.base import Data, Split, evenly_spaced, sliding
from mar.data.base import fingerprint as content_hash
from mar.likelihood.chain import IMAGES_AT_ONCE, image_noise
from mar.likelihood.estimate import EVERY_STEP, SINGLE, Estimator, Repeats, parse_target, until_error
from mar.likelihood.summary import Conditionals, Likelihood, summarise
from mar.metrics.base import (
    Baseline,
    Metric,
    Question,
    SplitName,
    Subject,
    Units,
    Workspace,
    adaptive_plan,
    save,
    scores_folder,
)
from mar.metrics.statistics import Difference, holm, kind_of, paired_differences
from mar.model.plans import Plans
from mar.run import Precision, Run, to_measure
from mar.tokenizers import TOKENIZERS
from mar.tokenizers.base import Tokenizer

Say = Callable[[str], None]
_NAME = 200  # bytes of a picture's name
_SOURCES = tuple(Path(__file__).parents[2] / name for name in ("mar", "orderings"))


class NLL(Metric):
    """The likelihood of a split along each plan."""

    class Options(Section):
        split: SplitName = "test"
        images: int | None = Field(default=None, ge=2, description="number of images, spread over the split; None: all")
        seed: int = Field(default=0, ge=0, description="of random orders, dequantisation and the noise of bounds")
        orders: int = Field(default=0, ge=0, description="number of orders of random plans, shared by all images; of a "
                            "mixture of fixed orders at most these")  # fmt: skip
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
        """Score the split along the plan; with ``orders``, mixtures of random orders too."""
        run, plan, o, variant = at.load(), question.plan or "", self.options, at.variant
        rule, likelihood = (variant.adaptive, variant.likelihood) if variant is not None else ("", {})
        plans = run.plans(adaptive_plan(rule, plan) if rule else plan)
        return run.nll(
            plan=plans, split=o.split, limit=o.images, seed=o.seed, kind=o.kind, progress=at.progress,
            repeats=Repeats(orders=plans.orders(o.orders)), likelihood=dict(likelihood),
            estimator=Estimator.parse(o.estimator),
        )  # fmt: skip

    @classmethod
    def columns(cls, answers: Sequence[Likelihood]) -> Sequence[Column[Likelihood]]:
        """In bits/dim if an answer has them."""
        unit, mean, error, digits = "nats", "nats_per_image", "standard_error_nats", 2
        if any(answer.bits_per_dim is not None for answer in answers):
            unit, mean, error, digits = "bits/dim", "bits_per_dim", "standard_error_bits_per_dim", 4

        return [with_error("NLL", mean, error, digits, better="lower", unit=unit)]

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
        kinds = ", ".join(sorted({kind_text(replace(answer, orders=0)) for answer in answers}))  # orders: a column
        warnings = {warning for answer in answers for warning in answer.warnings}
        return [
            f"NLL: {kinds}, on {answers[0].n_images} {grid['nll']['split']} images. "
            "Tokens of one set are independent given the past, so fewer steps are a weaker model.",
            Note("±: one standard error over images.", "±"),
            *(f"Warning: {warning}." for warning in sorted(warnings)),
        ]

    def baselines(self, recipe: Recipe, data: Data) -> Iterator[Baseline]:
        """Yield independent tokens; of images whose tokens are vectors, independent pixels, in the same bits/dim."""
        tokenizer, spec = build.tokenizer(recipe, data), data.spec
        counted = len(data.train) * math.prod(spec.shape) <= _COUNTED and 2 <= spec.levels <= 256
        if tokenizer.dimensions and not isinstance(tokenizer.token, Categories) and counted and len(spec.shape) == 3:
            kind = "pixels" if spec.shape[0] == 1 else "channels"
            tokenizer = TOKENIZERS[kind](spec, TOKENIZERS.options(kind, {}))
        if isinstance(tokenizer.token, Categories):
            tokenizer.fit(to_measure(data))
        yield from independent_tokens(
            data, tokenizer, self.options.split, self.options.images, recipe.class_conditional
        )


def independent_tokens(
    data: Data, tokenizer: Tokenizer, split: str, limit: int | None, conditional: bool
) -> tuple[Baseline, ...]:
    """Return the NLL of tokens that are independent of all others, from counts with add-one smoothing.

    Beside ``conditional`` models, also of tokens that are independent given the class. There is no such baseline for
    vectors, which have no counts, and for examples of their own lengths, whose counts would be of the padding.
    """
    if not isinstance(tokenizer.token, Categories) or tokenizer.end is not None:
        return ()
    train_NL, train_N = _tokens(data.train, tokenizer, None)
    token_NL, class_N = _tokens(data.split(split), tokenizer, limit)
    position_L, found = torch.arange(token_NL.shape[1]), []
    by_class = data.spec.n_classes if conditional else 0
    for name, classes in (("independent tokens", 1), ("independent tokens, by class", by_class)):
        if classes:  # of one class: all labels are 0
            probability_CLV = smoothed(train_NL, train_N % classes, tokenizer.token.vocabulary, classes)
            nats_NL = -probability_CLV[class_N[:, None] % classes, position_L, token_NL].log()
            found_NL = Conditionals(torch.zeros_like(token_NL), nats_NL, "exact", evaluations=0, forward_rows=0)
            found.append(Baseline(name, name, "all at once", summarise(tokenizer, name, found_NL)))
    return tuple(found)


def smoothed(token_NL: torch.Tensor, class_N: torch.Tensor, vocabulary: int, n_classes: int) -> torch.Tensor:
    """Return (count + 1) / (N + V) for every class, position and category: float64 (C, L, V)."""
    length = token_NL.shape[1]
    cell_NL = (class_N[:, None] * length + torch.arange(length)) * vocabulary + token_NL
    count = torch.bincount(cell_NL.flatten(), minlength=n_classes * length * vocabulary).double() + 1.0
    count_CLV = count.reshape(n_classes, length, vocabulary)
    return count_CLV / count_CLV.sum(-1, keepdim=True)


def _tokens(split: Split, tokenizer: Tokenizer, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    x, label_N = split.batch(evenly_spaced(len(split), limit))
    if label_N is None or label_N.is_floating_point():  # conditions are no classes
        label_N = torch.zeros(len(x), dtype=torch.int64)
    return tokenizer.encode(x), label_N


_COUNTED = 2**26  # values of training images that a baseline counts


@dataclass(frozen=True)
class NllRequest:
    """What ``mar score nll`` asks of every plan."""

    plans: tuple[str, ...]  # canonical short texts
    paired_with: str = ""  # the plan that the others are compared with; "": none
    split: str = "test"
    n: int | None = None  # images, evenly spread over the split; None: all
    kind: str | None = None
    estimator: Estimator = EVERY_STEP
    repeats: Repeats = SINGLE  # orders of plans whose order is random, and dequantisations
    target: str = ""  # a standard error as text: more images are scored until it is reached; "": none
    likelihood: dict[str, Any] = field(default_factory=dict)  # the head's scoring options
    budget: int | None = None  # bytes of activations
    seed: int = 0
    weights: str = "ema"  # or "last"
    again: bool = False  # score anew what is scored already
    precision: Precision = "fp32"  # of the network
    control: bool = False  # correct the mean of ``n`` images by control variates
    past: int | None = None  # earlier tokens of each, in overlapping windows; None: windows as the split has them

    def __post_init__(self) -> None:
        if self.target and (self.repeats != SINGLE or self.paired_with):
            raise UserError(
                "--target-se chooses the images of each plan: leave out --orders, --draws and --paired-with"
            )
        if self.past is not None and (self.n is not None or self.target):
            raise UserError("--past scores every token of the split once: leave out -n and --target-se")


@dataclass(frozen=True)
class NllScores:
    """The scores of a request, by plan."""

    files: dict[str, Path]  # records in RUN/scores
    likelihoods: dict[str, Likelihood]
    differences: dict[str, Difference]  # to ``paired_with``
    random: Set[str]  # the plans whose order is drawn
    picture: Path  # beside the records, named after all of them


def score_plans(run: Run, request: NllRequest, say: Say) -> NllScores:
    """Score every plan on the same images and noise, into RUN/scores; compare with ``request.paired_with``."""
    texts = dict.fromkeys([*filter(None, [request.paired_with]), *request.plans])
    plans = {text: run.plans(text) for text in texts}
    random = {text for text in texts if plans[text].random}
    if request.repeats.orders and not random:
        raise UserError(f"--orders takes a plan whose order is random: {', '.join(request.plans)} have one order each")
    score_one = _score_to_target if request.target else score_plan
    scored = {text: score_one(run, plans[text], request, say) for text in texts}
    files = {text: file for text, (file, _) in scored.items()}
    likelihoods = {text: likelihood for text, (_, likelihood) in scored.items()}
    differences = paired_differences(likelihoods, request.paired_with) if request.paired_with else {}
    for text, difference in differences.items():
        _add(files[text], paired=asdict(difference))
    names = "+".join(path.stem.removeprefix("nll-") for path in files.values())
    picture = run.folder.path / "scores" / f"nll-{short(names, _NAME)}.png"
    return NllScores(files, likelihoods, differences, random, picture)


def _add(record: Path, **content: Any) -> None:
    write_atomic(record, json.dumps(json.loads(record.read_text()) | content, indent=1))


def compare_runs(
    runs: Sequence[Run], requests: Sequence[NllRequest], say: Say
) -> tuple[dict[str, Likelihood], dict[str, Difference], str]:
    """Score runs along the same plans; return likelihoods, differences to the first run, by "RUN PLAN", and its name.

    Holm's correction covers every comparison. Raise UserError: runs that ``check_comparable`` refuses.
    """
    named = run_names(runs)
    check_comparable(named, requests[0].kind)
    scored = [score_plans(run, request, say).likelihoods for run, request in zip(runs, requests, strict=True)]
    reference, likelihoods, differences = next(iter(named)), {}, {}
    for name, found in zip(named, scored, strict=True):
        for (base_plan, base), (plan, likelihood) in zip(scored[0].items(), found.items(), strict=True):
            key = name if plan == base_plan and len(found) == 1 else f"{name} {plan}"
            likelihoods[key] = likelihood
            if name != reference:
                differences[key] = paired_differences({"base": base, "other": likelihood}, "base")["other"]
    adjusted = holm([difference.p_value for difference in differences.values()])
    pairs = zip(differences.items(), adjusted, strict=True)
    return likelihoods, {key: replace(d, reference=reference, p_holm=p) for (key, d), p in pairs}, reference


def run_names(runs: Sequence[Run]) -> dict[str, Run]:
    """Return the runs by their folders' names, or by their paths where two have one name; refuse a run named twice."""
    paths = [run.folder.path.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{path} is there twice: name each run once")
    apart = len({path.name for path in paths}) == len(paths)
    return {path.name if apart else str(run.folder.path): run for path, run in zip(paths, runs, strict=True)}


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


def score_plan(run: Run, plan: str | Plans, request: NllRequest, say: Say) -> tuple[Path, Likelihood]:
    """Return the plan's record in RUN/scores and its likelihood, computed unless the same question has one."""
    plans, repeats, made_by = run.plans(plan), request.repeats, environment()
    if repeats.orders:
        repeats = replace(repeats, orders=plans.orders(repeats.orders))
        if repeats.orders != request.repeats.orders and plans.components:
            say(f"{plans.text}: a mixture of {repeats.orders} orders, each scored once")
    if request.past is None:
        (images, labels), given = run.subset(request.split, request.n), None
    else:
        images, labels, given = sliding(run.data.split(request.split), request.past)
    question = nll_question(run, plans, request, len(images), made_by)
    asked = {**question, **asdict(repeats)} | ({"control": True} if request.control else {})
    answer, scores = settings_digest(asked, 16), run.folder.path / "scores"
    if not request.again and (found := find(scores.glob("nll-*.json"), {"fingerprint": answer})):
        say(f"{plans.text}: scored before, kept in {found[0].name} (--again scores it anew)")
        with reading(found[0], "the likelihood of a run"):
            return found[0], TypeAdapter(Likelihood).validate_python(found[1])
    scores_folder(run)
    place = "partial" if repeats == SINGLE else "repeats"  # finished repeats stay, for more of them
    kept = Partial(scores / place / settings_digest(question, 16))
    if request.again:
        kept.delete()
    with bar(f"NLL {plans.text}") as progress:
        result = run.nll(
            images, plans, labels, seed=request.seed, repeats=repeats, likelihood=request.likelihood, kept=kept,
            progress=progress, kind=request.kind, budget=request.budget, estimator=request.estimator,
            precision=request.precision, given=given, control=request.split if request.control else "",
        )  # fmt: skip
    content = {key: getattr(request, key) for key in ("split", "seed", "weights", "precision", "past", "likelihood")}
    content["control"] = "control-variates" if request.control else ""
    content |= {"draws": repeats.draws, **asdict(result), "fingerprint": answer}
    path = save(run, "nll", plans.text, content, made_by)
    if repeats == SINGLE:
        kept.delete()
    return path, result


def _score_to_target(run: Run, plan: Plans, request: NllRequest, say: Say) -> tuple[Path, Likelihood]:
    """As ``score_plan``, with more images until the standard error is reached."""
    target, images = parse_target(request.target, run.model.tokenizer), len(run.data.split(request.split))
    paths = {}

    def score(n: int) -> Likelihood:
        paths[n], found = score_plan(run, plan, replace(request, n=n, target=""), say)
        return found

    found = until_error(score, target, images if request.n is None else min(request.n, images))
    path, reached = paths[found.n_images], found.standard_error_nats <= target
    settings = {"wanted": request.target, "wanted_nats": target, "looks": list(paths), "reached": reached}
    _add(path, target=settings)
    units, bits = Units.of_run(run), found.standard_error_bits_per_dim
    error = f"{found.standard_error_nats:.3f} {units.nats}" + (f" = {bits:.4f} {units.per_dimension}" if bits else "")
    end = "reached" if reached else f"with all {units.example}s there are"
    scored = f"{', '.join(f'{n:,}' for n in paths)} {units.example}s scored"
    say(f"{plan.text}: standard error {error} {end}, {request.target} wanted; {scored}")
    return path, found


def nll_question(
    run: Run, plans: Plans, request: NllRequest, n_images: int, made_by: Mapping[str, Any] | None = None
) -> dict[str, Any]:
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
        "code": code_identity(made_by or environment()),
    }


def code_identity(made_by: Mapping[str, Any], sources: Sequence[Path] = _SOURCES) -> list[str]:
    """Return version, revision and, where these do not identify the code, a hash of the source files."""
    version, revision = made_by["packages"]["mar-orderings"], made_by["revision"]
    if revision != "unknown" and not revision.endswith("-dirty"):
        return [version, revision]
    files = sorted(path for folder in sources for path in folder.rglob("*.py"))
    return [version, revision, digest(*(path.read_bytes() for path in files))]


def nll_tables(
    likelihoods: Mapping[str, Likelihood],
    differences: Mapping[str, Difference],
    reference: str | None,
    title: str,
    units: Units,
    random: Set[str] = frozenset(),
) -> list[Table]:
    """Return the table of likelihoods by name, and of plans with several shared orders the ensembles.

    ``reference`` is that of ``differences``; ``random`` are the names whose order is drawn, for the notes.
    """
    nats, tables = units.nats, list[Table[Any]]()
    for name, r in likelihoods.items():
        if r.ensemble:
            of_orders: list[Column[Any]] = [
                *fields(orders="orders"),
                with_error(f"{nats} ± over {units.example}s", "nats_per_image", "standard_error_nats", 2),
                Column("± over orders", field_of("standard_error_orders_nats"), digits=2),
                with_error(units.per_dimension, "bits_per_dim", "standard_error_bits_per_dim", 4),
            ]
            tables.append(
                Table(of_orders, r.ensemble, title=f"ensembles of orders, {name}, {r.n_images} {units.example}s")
            )
    latents = any(r.nats_per_latent_dimension is not None for r in likelihoods.values())
    per_dimension = "nats_per_latent_dimension" if latents else "bits_per_dim"
    columns: list[Column[Any]] = [
        Column("plan", lambda row: row[0], words=True),
        Column("kind", lambda row: row[2], words=True),
        Column("n", lambda row: row[1].n_images, drop=4),
        with_error(nats, "1.nats_per_image", "1.standard_error_nats", 2),
    ]
    if any(r.controlled for r in likelihoods.values()):
        paths = ("1.controlled.nats_per_image", "1.controlled.standard_error_nats")
        columns.append(with_error(f"{nats}, controlled", *paths, 2))
    others = {f"nats/{units.symbol}": math.log(2.0)} if units.symbol else {}  # bits/dim in another unit
    others |= {"bits/byte": 1.0 / units.token_bytes} if units.token_bytes else {}
    bits, error = field_of("1.bits_per_dim"), field_of("1.standard_error_bits_per_dim")
    for unit, by in others.items():
        text = lambda row, by=by: plus_minus(bits(row) * by, error(row) * by, 4)  # noqa: E731
        columns.append(Column(unit, lambda row, by=by: bits(row) * by, digits=4, text=text))
    columns += [
        with_error(units.per_dimension, f"1.{per_dimension}", f"1.standard_error_{per_dimension}", 4),
        Column("AR steps", field_of("1.steps"), drop=3),
    ]
    if reference:
        columns += difference_columns(f"{nats} − {reference} [95 %]", lambda row: differences.get(row[0]))
    title = f"negative log-likelihood, {title} (lower is better)"
    rows = [(name, r, kind_text(r)) for name, r in likelihoods.items()]
    return [*tables, Table(columns, rows, nll_notes(likelihoods, random, units), title)]


def difference_columns(title: str, of: Callable[[Any], Difference | None]) -> list[Column[Any]]:
    """Return the columns of a difference with its interval, and of its corrected p-value."""

    def text(row: Any) -> str:
        return "" if (d := of(row)) is None else with_interval(d.nats_per_image, d.interval_nats, 2)

    return [
        Column(title, lambda row: (d := of(row)) and d.nats_per_image, text=text),
        Column(
            "p (Holm)",
            lambda row: (d := of(row)) and d.p_holm,
            text=lambda row: f"{(of(row) or row).p_holm:.2g}",
            drop=1,
        ),
    ]


def nll_notes(likelihoods: Mapping[str, Likelihood], random: Set[str], units: Units) -> list[str]:
    """Return what to know before quoting the figures; ``random``: names whose order is drawn."""
    found, example = likelihoods.values(), units.example
    bounds = "bounds the NLL of"
    said: list[tuple[Any, str]] = [
        (True, f"± is one standard error over {example}s, orders and steps drawn; kind names the figure "
               "(docs/likelihood.md)"),
        (any(name in random and not r.orders for name, r in likelihoods.items()),
         f"random orders: every {example} has its own; the mean over orders {bounds} their mixture from above"),
        (any(r.orders for r in found),
         f"shared orders: the mean over them {bounds} the mixture over all orders from above"),
        (any(r.ensemble for r in found),
         "an ensemble of S orders is the exact NLL of the mixture of these S orders, for these tokens"),
        (any(r.controlled for r in found),
         f"controlled: corrected by regression on statistics of all {example}s of the split (docs/estimators.md)"),
        (any(r.dequantisation_draws for r in found),
         "uniform dequantisation: a bound on the NLL of the integer pixels, whatever the kind"),
    ]  # fmt: skip
    for r in found:
        settings = ", ".join(f"{key}={value}" for key, value in r.settings.items())
        line = f"likelihood settings: {settings}; {r.evaluations} evaluations of the head for each token"
        said.append((settings, line))
    said += [(True, f"warning: {warning}") for r in found for warning in r.warnings]
    return list(dict.fromkeys(note for applies, note in said if applies))


def kind_text(likelihood: Likelihood) -> str:
    """Return the kind and the averages: "exact", "estimate (bound, steps:8)", "exact, mean of 16 orders"."""
    r = likelihood
    kind = f"estimate ({r.head_kind}, {r.estimator})" if r.kind == "estimate" else r.kind
    if r.dequantisation_draws:
        kind = f"bound ({kind} of dequantised data)"
    if r.orders:
        kind += f", mean of {r.orders} orders"
    return f"{kind}, {r.dequantisation_draws} draws" if r.dequantisation_draws > 1 else kind
