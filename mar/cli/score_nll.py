"""``mar score RUN --nll``: likelihoods of plans on the same images and noise, into RUN/scores and the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console

import mar
import orderings
from mar.cli import nll_tables
from mar.cli.scoring import save, scores_folder
from mar.cli.units import Units
from mar.core.errors import UserError
from mar.core.files import environment, write_atomic
from mar.core.progress import bar, wide_console
from mar.core.records import Partial
from mar.data.base import fingerprint as content_hash
from mar.data.base import sliding
from mar.experiments.compare import paired_differences
from mar.likelihood import pictures
from mar.likelihood.chain import IMAGES_AT_ONCE, image_noise
from mar.likelihood.estimate import (
    EVERY_STEP,
    Estimator,
    Repeats,
    parse_target,
    until_error,
)
from mar.likelihood.summary import Likelihood, fingerprint
from mar.run import Precision, Run

_NAME = 120  # characters of a picture's name
_SOURCES = (Path(mar.__file__).parent, Path(orderings.__file__).parent)


@dataclass(frozen=True)
class Request:
    """What is asked of every plan.

    Attributes:
        plans: canonical short texts.
        paired_with: the plan that the others are compared with; "": none.
        n: so many images, evenly spread over the split; None: all.
        repeats: orders of plans whose order is random, and dequantisations.
        target: a wanted standard error as text: ever more images are scored until it is reached; "": none.
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


def score_nll(run: Run, request: Request) -> None:
    """Score every plan, compare, write JSON and a picture, print the tables."""
    console, reference = wide_console(), request.paired_with or None
    _check_orders(run, request)
    plans: list[str] = list(dict.fromkeys([*filter(None, [reference]), *request.plans]))
    score_one = _score_to_target if request.target else score_plan
    files = {plan: score_one(run, plan, request, console) for plan in plans}
    records = {plan: json.loads(path.read_text()) for plan, path in files.items()}
    results = {plan: TypeAdapter(Likelihood).validate_python(record) for plan, record in records.items()}
    differences = paired_differences(results, reference) if reference else {}
    for plan, difference in differences.items():
        write_atomic(files[plan], json.dumps({**records[plan], "paired": asdict(difference)}, indent=1))
    picture = _picture_path(list(files.values()))
    title = f"{run.data.name} {request.split}, {request.weights} weights"
    pictures.draw(results, run.grid.shape, picture, f"{title}: nats per token ± one standard error")
    units = Units.of_run(run)
    for table in nll_tables.tables(results, differences, reference, title, units):
        console.print(table)
    for note in nll_tables.notes(results, {plan for plan in plans if run.plans(plan).random}, units):
        console.print(note, highlight=False, soft_wrap=True)
    console.print(f"wrote {len(files)} JSON file(s) and {picture.name} to {picture.parent}", soft_wrap=True)


def _check_orders(run: Run, request: Request) -> None:
    """Shared orders are for plans with a random one; the others are scored as they are."""
    if request.repeats.orders and not any(run.plans(plan).random for plan in request.plans):
        raise UserError(f"--orders takes a plan whose order is random: {', '.join(request.plans)} have one order each")


def score_plan(run: Run, plan: str, request: Request, console: Console) -> Path:
    """The record of the plan in RUN/scores: found there if the same was asked before, else computed and written."""
    if not run.plans(plan).random:
        request = replace(request, repeats=replace(request.repeats, orders=0))
    if request.past is None:
        (images, labels), given = run.some(request.split, request.n), None
    else:
        images, labels, given = sliding(run.data.split(request.split), request.past)
    question, several = _question(run, plan, request, len(images)), asdict(request.repeats)
    answer, scores = fingerprint({**question, **several}), run.folder.path / "scores"
    if not request.again and (found := _find(scores, answer)):
        console.print(
            f"{plan}: scored before, kept in {found.name} (--again scores it anew)", highlight=False, soft_wrap=True
        )
        return found
    scores_folder(run)
    kept = Partial(scores / "partial" / fingerprint(question))
    if request.again:
        kept.delete()
    with bar(f"NLL {plan}") as progress:
        result = run.nll(
            images, plan, labels, seed=request.seed, repeats=request.repeats, likelihood=request.likelihood, kept=kept,
            progress=progress, kind=request.kind, budget=request.budget, estimator=request.estimator,
            precision=request.precision, given=given,
        )  # fmt: skip
    settings = {"split": request.split, "seed": request.seed, "weights": request.weights, "draws": several["draws"]}
    settings |= {"precision": request.precision, "past": request.past}
    content = {**settings, "likelihood": request.likelihood, **result.to_dict(), "fingerprint": answer}
    path = save(run, "nll", plan, content)
    kept.clear("images")
    return path


def _score_to_target(run: Run, plan: str, request: Request, console: Console) -> Path:
    """As ``score_plan``, with ever more images until the standard error is the wanted one."""
    target, images = parse_target(request.target, run.model.tokenizer), len(run.data.split(request.split))
    paths = {}

    def score(n: int) -> Likelihood:
        paths[n] = score_plan(run, plan, replace(request, n=n, target=""), console)
        return TypeAdapter(Likelihood).validate_json(paths[n].read_bytes())

    found = until_error(score, target, images if request.n is None else min(request.n, images))
    path, reached = paths[found.n_images], found.standard_error_nats <= target
    settings = {"wanted": request.target, "wanted_nats": target, "looks": list(paths), "reached": reached}
    write_atomic(path, json.dumps({**json.loads(path.read_text()), "target": settings}, indent=1))
    said = nll_tables.reached(plan, request.target, found, list(paths), reached, Units.of_run(run))
    console.print(said, highlight=False, soft_wrap=True)
    return path


def _question(run: Run, plan: str, request: Request, n_images: int) -> dict[str, Any]:
    """Everything that the log-probabilities of one order and one dequantisation depend on."""
    first = image_noise(request.seed, min(n_images, IMAGES_AT_ONCE)).at("order")
    state = json.loads((run.checkpoint.path / "state.json").read_text())["sha256"]
    plans, kind = run.plans(plan), request.kind
    return {
        "plan": plan,
        "steps": content_hash(plans.scored(first).step_BL.cpu()),  # what a file, or set costs, say now
        "split": request.split,
        "images": n_images,
        "data": run.data.fingerprint,
        "seed": request.seed,
        "kind": run.model.head.check_kind(None if plans.learned and kind == "bound" else kind),  # theirs has no other
        "estimator": str(request.estimator),
        "likelihood": request.likelihood,
        "precision": request.precision,
        "past": request.past,
        "weights": [state["model.safetensors"], state["ema.safetensors"] if run.ema else ""],
        "code": _code(),
    }


def _code() -> list[str]:
    """What computes: version, revision and, where these do not tell, the sources."""
    made_by = environment()
    version, revision = made_by["packages"]["mar-orderings"], made_by["revision"]
    if revision != "unknown" and not revision.endswith("-dirty"):
        return [version, revision]
    sources = sha256()
    for path in sorted(path for folder in _SOURCES for path in folder.rglob("*.py")):
        sources.update(path.read_bytes())
    return [version, revision, sources.hexdigest()]


def _find(scores: Path, answer: str) -> Path | None:
    """The record with this fingerprint."""
    return next((path for path in scores.glob("nll-*.json") if f'"fingerprint": "{answer}"' in path.read_text()), None)


def _picture_path(files: Sequence[Path]) -> Path:
    """The name of a single record; of several, their plans in one name, cut short where there are many."""
    if len(files) == 1:
        return files[0].with_suffix(".png")
    stems = [path.stem.removeprefix("nll-") for path in files]
    name = "+".join(stems)
    if len(name) > _NAME:
        name = f"{stems[0]}+{len(stems) - 1}-more-{fingerprint({'stems': stems})[:8]}"
    return files[0].with_name(f"nll-{name}.png")
