"""``mar verify``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from mar.cli.options import Json, arg, opt, print_tables
from mar.core.table import Column, Table, fields

if TYPE_CHECKING:
    from rich.console import Console

    from mar.verification.verdict import Verdict


def verify(
    targets: Annotated[
        list[str] | None, arg("Or module:Class; default every registered class.", metavar="FILE.py:Class")
    ] = None,
    whole: Annotated[bool, opt("Every combination of parts, not every pair alone.", "--all")] = False,
    json: Json = False,
) -> None:
    """Test that orderings, networks and heads keep their contracts.

    No leak, probabilities that sum to 1, samples that follow the likelihood, cached generation that equals the full
    forward pass, permutations, covers, determinism. A network or head of your own is made with the options in its
    `test_options`, an ordering or partition with its defaults. Exits with 1 if a claim does not hold, with 2 on a bad path.

    Examples:

        mar verify my_order.py:Zigzag
        mar verify my_models.py:MyNetwork mar.networks.made:Made
        mar verify --all
    """
    import torch
    from rich.console import Console

    from mar.verification import registry

    torch.set_num_threads(1)  # the tensors are tiny: threads only wait for each other
    console = Console(stderr=json)
    if targets:
        classes = [registry.load(target) for target in targets]
        verdicts = [verdict for cls in classes for verdict in registry.verify(cls)]
    else:
        verdicts = []
        with console.status("verifying the registry") as status:
            for found in registry.verify_registry(whole):
                verdicts += found
                status.update(f"{len(verdicts)} verdicts, last of {found[-1].subject}")
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if json:
        columns = fields(subject="subject", claim="claim", passed="passed", detail="detail")
        print_tables([Table(columns, verdicts)], json)
    else:
        (_print_each if targets else _print_by_claim)(console, verdicts)
        count = f"{len(verdicts)} verdicts, {len(failed)} failed" if failed else f"all {len(verdicts)} claims hold"
        console.print(count)
    if failed:
        raise typer.Exit(1)


def _print_each(console: Console, verdicts: Iterable[Verdict]) -> None:
    """Print each subject's claims with their evidence or failure."""
    from rich.padding import Padding
    from rich.text import Text

    subject = None
    for verdict in verdicts:
        if verdict.subject != subject:
            subject = verdict.subject
            console.print(Text(f"\n{subject}", style="bold"))
        mark, style = (("✓ ", "green"), "dim") if verdict.passed else (("✗ ", "bold red"), "red")
        console.print(Text.assemble(mark, verdict.claim))
        console.print(Padding(Text(verdict.detail, style=style), (0, 0, 0, 4)))


def _print_by_claim(console: Console, verdicts: Iterable[Verdict]) -> None:
    """Print one line a claim, then every failure."""
    by_claim: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_claim.setdefault(verdict.claim, []).append(verdict)
    failed = {claim: [verdict for verdict in found if not verdict.passed] for claim, found in by_claim.items()}
    columns = [
        Column[str]("claim", str, words=True),
        Column[str]("checked", lambda claim: len(by_claim[claim])),
        Column[str]("failed", lambda claim: len(failed[claim]), "lower"),
    ]
    console.print(Table(columns, list(by_claim)))
    _print_each(console, [verdict for found in failed.values() for verdict in found])
