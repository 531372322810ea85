"""A searched order: the search, its files, and the order's test NLL beside raster and random.

L tokens
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mar.core.errors import UserError
from mar.core.files import check_name, check_writable, environment, write_atomic
from mar.core.noise import stream
from mar.core.progress import bar
from mar.core.table import Table
from mar.metrics.base import Units
from mar.metrics.nll import nll_tables
from mar.metrics.statistics import paired_differences
from mar.model.plans import resolve_optimal
from mar.order_search.moves import Evaluator
from mar.order_search.search import Budget, Search, search
from mar.run import Run
from orderings import Partition, Plan, PlanSpec, draw, inverse, parse_partition, to_text
from orderings.user import File

_GREEDY = ("lowest-entropy", "highest-entropy")


@dataclass(frozen=True)
class SearchRequest:
    """What ``mar search-order`` asks for."""

    partition: str  # the sets, as text
    spent: Budget
    n: int  # images that choose among orders
    split: str  # of these images
    starts: tuple[str, ...]  # fixed orderings, or a greedy rule
    test_n: int | None  # test images; None: a default by network
    kind: str | None
    budget: int | None  # bytes of activations
    seed: int
    name: str  # of the files; "": from the partition


def search_order(run: Run, request: SearchRequest) -> tuple[Table, list[str]]:
    """Search as long as the budget lasts, then compare on test images. Write RUN/orders/NAME.*.

    Returns:
        The table of test likelihoods and the lines below it.

    Raises:
        UserError: the run knows one order only, a start is not a fixed order, or the files hold another search.
        Stopped: by Ctrl-C; the order and the search are written.
    """
    if not run.parts.ordering.at(1.0).random:
        raise UserError(
            f"{run.folder.path} was trained along {run.training_plan} alone: an order search takes a model that was "
            "trained in any order, e.g. with ordering=random"
        )
    if request.name:
        check_name(request.name, "--name")
    partition = parse_partition(request.partition)
    text, units = to_text(partition), Units.of_run(run)
    starts = {name: _start(run, name) for name in request.starts}
    file = run.folder.path / "orders" / f"{request.name or 'searched-' + text.replace(':', '').replace('/', '-')}.json"
    check_writable(file)
    found = _search(run, request, resolve_optimal(partition, "random", run.folder.path), text, starts, file)
    named = {name: PlanSpec.parse(name)[0] for name in ("raster", "random", *starts) if name not in _GREEDY}
    plans = {"searched": PlanSpec(File(str(file)), partition)}
    plans |= {name: PlanSpec(ordering, partition) for name, ordering in named.items()}
    test_n = request.test_n
    if test_n is None and not run.model.network.one_pass:
        test_n = 256 if run.device.type == "cpu" else 1000
    likelihoods = {}  # on the same images and noise
    for name, plan in plans.items():
        with bar(f"test NLL {name}") as progress:
            likelihoods[name] = run.nll(
                plan=plan, limit=test_n, seed=request.seed, kind=request.kind, budget=request.budget, progress=progress
            )
    differences, weights = paired_differences(likelihoods, "searched"), "ema" if run.ema else "last"
    record = {
        "plan": str(plans["searched"]),
        "split": "test",
        "weights": weights,
        "likelihoods": {name: likelihood.to_dict() for name, likelihood in likelihoods.items()},
        "minus_searched": {name: asdict(difference) for name, difference in differences.items()},
        "search": asdict(found),
        "seed": request.seed,
        "data": run.data.name,
        "data_fingerprint": run.data.fingerprint,
        "iteration": run.checkpoint.iteration,
        "environment": environment(),
    }
    result = file.with_suffix(".result.json")
    write_atomic(result, json.dumps(record, indent=1))
    title = f"{run.data.name} test, {text}, {weights} weights"
    (table,) = nll_tables(likelihoods, differences, "searched", title, units, {"random"})
    gained = found.starts[found.start] - found.best_nats
    written = ", ".join(path.name for path in (file, file.with_suffix(".png"), result))
    lines = [
        f"{found.proposals} changes tried and {found.accepted} made in {found.seconds / 60.0:.1f} minutes; from "
        f"{found.start}, {gained:.2f} {units.nats} less on the {units.example}s that chose among orders (a biased "
        "figure: quote the test images)",
        f"wrote {written} to {file.parent}; any command takes the plan {plans['searched']!s}",
    ]
    return table, lines


def _start(run: Run, name: str) -> torch.Tensor | None:
    """Return order_L of a fixed ordering; None for the greedy ones. Raise UserError: the ordering is random."""
    if name in _GREEDY:
        return None
    ordering, _ = PlanSpec.parse(name)
    if ordering.random or ordering.learned:
        raise UserError(f"a search starts from one fixed order, not from {name}: e.g. raster, or {_GREEDY[0]}")
    return inverse(ordering.ranks(run.grid, 1, stream(0, "start", 1))[0])


def _search(
    run: Run,
    request: SearchRequest,
    partition: Partition,
    text: str,
    starts: dict[str, torch.Tensor | None],
    file: Path,
) -> Search:
    """Search within the budget; write ``file`` and its neighbours as the search goes."""
    images, labels = run.subset(request.split, request.n)
    evaluator = Evaluator(run.model, images, labels, partition, request.seed, request.kind, request.budget)
    question = {
        "partition": text, "split": request.split, "n": len(images), "seed": request.seed, "kind": request.kind,
        "starts": list(starts), "ema": run.ema, "iteration": run.checkpoint.iteration, "data": run.data.fingerprint,
    }  # fmt: skip
    kept = file.with_suffix(".search.json")

    def keep(state: Search) -> None:
        write_atomic(kept, state.text())
        rank_L = inverse(torch.tensor(state.best))
        write_atomic(file, json.dumps({"ranks": rank_L.reshape(run.grid.shape).tolist()}))

    with bar("order search") as progress:

        def say(state: Search, doing: str) -> None:
            spent = request.spent
            share = state.seconds / (60.0 * spent.minutes) if spent.minutes else 1.0
            if spent.proposals:
                share = max(share, state.proposals / spent.proposals)
            gain = f"{state.best_nats - state.starts[state.start]:+.3f} nats/image, " if state.start else ""
            done = f"{state.accepted} of {state.proposals} changes made, {evaluator.rows:,} rows"
            progress(round(100 * min(share, 1.0)), 100, f"{doing}: {gain}{done}")

        found = search(evaluator, Search.load(kept, question), starts, request.spent, request.seed, keep, say)
    best = Plan(inverse(torch.tensor(found.best))[None], evaluator.steps(torch.tensor(found.best))[None])
    draw.save(best, run.grid, file.with_suffix(".png"), title=f"{file.stem}   {run.recipe.name}, {run.grid}")
    return found
