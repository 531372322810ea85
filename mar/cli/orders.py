"""``mar orderings`` and ``mar search-order``: list, draw and search orders."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mar.cli.options import (
    Budget,
    Json,
    Kind,
    Seed,
    TrainedRun,
    arg,
    gibibytes,
    grouped,
    listed,
    opt,
    print_listing,
    print_tables,
)
from mar.core.errors import UserError
from mar.core.progress import wide_console

if TYPE_CHECKING:
    from rich.console import Console

    from orderings import Grid, Ordering, Partition, Plan

GridOption = Annotated[str, opt("16x16 (image), 64 (text), 8x8x3 (with channels), t4x16x16 (frames).")]

# Every kind of path once, then partitions of different characters.
GALLERY = (
    *("raster", "reverse", "column", "serpentine", "diagonal", "diagonal:zigzag"),
    *("spiral", "spiral:outward", "spiral:outward:around=corner", "hilbert", "morton", "segments:16"),
    *("blocks:4", "blocks:4:outer=spiral:inner=hilbert", "centre-out", "subsample", "checkerboard", "halton"),
    *("raster/cosine:12", "centre-out/equal:16", "subsample/cosine:12", "random", "random/cosine:12"),
    *("blocks:4:outer=random/blocks:4", "hilbert:rot90=1", "locality/cosine:12", "nar", "par", "gtr"),
)
# Colours of the AR steps in the terminal, from the first to the last: viridis.
_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def list_(json: Json = False) -> None:
    """List every ordering, partition and adaptive order with its options, defaults and grids, and plans of papers.

    Examples:

        mar orderings list --json
    """
    from orderings import ADAPTIVE, ORDERINGS, PARTITIONS, option_grammar
    from orderings.registry import PLANS

    rows: dict[str, list[dict[str, Any]]] = {}
    for family, registry in (("orderings", ORDERINGS), ("partitions", PARTITIONS), ("adaptive", ADAPTIVE)):
        classes, notes = registry.classes()
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        rows[family] = [
            {
                "name": name,
                "summary": cls.summary,
                "grids": [f"{n}-D" for n in getattr(cls, "grids", (1, 2, 3))],
                "options": {
                    key: {"values": found, "default": own} for key, (found, own) in option_grammar(cls).items()
                },
            }
            for name, cls in classes.items()
        ]

    def text(row: dict[str, Any]) -> str:
        grids = "" if len(row["grids"]) == 3 else f" ({', '.join(row['grids'])})"
        options = [f"{key} = {one['default'] or '—'} ({one['values']})" for key, one in row["options"].items()]
        return "\n".join([row["summary"] + grids, *(option.replace("|", " | ") for option in options)])

    if json:
        print(dumps(rows | {"plans": PLANS}, indent=2, ensure_ascii=False))
        return
    listing = {family: [(row["name"], text(row)) for row in members] for family, members in rows.items()}
    print_listing(listing | {"plans of papers": list(PLANS.items())})
    print("Every ordering of an image also takes flip=h|v|hv, transpose=true, rot90=1|2|3: raster:flip=h")


def show(
    plan: Annotated[str, arg("An ordering, or ordering/partition: spiral, hilbert/cosine:12, …")],
    grid: GridOption = "16x16",
    partition: Annotated[str, opt("A partition, in place of /PARTITION: cosine:12, equal:4, …")] = "",
    out: Annotated[Path | None, opt("A .png (rank, step, path) or a .gif (the generation).")] = None,
    seed: Seed = 0,
) -> None:
    """Draw a plan, in the terminal and to a file.

    Examples:

        mar orderings show spiral --grid 16x16 --partition cosine:12 --out plan.gif
        mar orderings show "blocks:4:outer=(spiral:outward)/blocks:4" --out plan.png
    """
    import orderings

    ordering, cut = orderings.PlanSpec.parse(plan)
    if partition:
        if cut != orderings.parse_partition("singles"):
            raise UserError(f"{plan!r} already names a partition: leave out --partition {partition}")
        cut = orderings.parse_partition(partition)
    lattice = orderings.Grid.parse(grid)
    drawn = _drawn(ordering, cut, lattice, seed)
    text = str(orderings.PlanSpec(ordering, cut))
    sizes = drawn.sizes()[0].tolist()
    shown = ", ".join(map(str, sizes[:12])) + (", …" if len(sizes) > 12 else "")
    print(f"{text} on {lattice}: {len(lattice)} tokens in {len(sizes)} AR steps (sizes {shown})")
    if lattice.frame.ndim < 3 and len(lattice) <= 1024 and lattice.shape[-1] <= 32:
        _print_ranks(drawn, lattice, wide_console())
    if out is not None:
        from orderings import draw

        print(f"wrote {draw.save(drawn, lattice, out, title=f'{text}   {lattice}')}")


def gallery(
    plans: Annotated[list[str] | None, arg("Plans; default a selection.")] = None,
    grid: GridOption = "16x16",
    out: Annotated[Path, opt("A .png file.")] = Path("orderings.png"),
    seed: Seed = 0,
) -> None:
    """Draw many plans side by side.

    Examples:

        mar orderings gallery --out orderings.png
        mar orderings gallery spiral hilbert random/cosine:8
    """
    import orderings
    from orderings import draw

    if out.suffix.lower() != ".png":
        raise UserError(f"the gallery is a .png file, not {str(out)!r}")
    lattice = orderings.Grid.parse(grid)
    specs = {text: orderings.PlanSpec.parse(text) for text in plans or GALLERY}
    drawn = {text: _drawn(spec.ordering, spec.partition, lattice, seed) for text, spec in specs.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(draw.png(draw.gallery(drawn, lattice)))
    print(f"wrote {out}")


def _drawn(ordering: Ordering, partition: Partition, grid: Grid, seed: int) -> Plan:
    from mar.core.noise import stream
    from orderings import Plan

    return Plan.sample(ordering, partition, grid, 1, stream(seed, "orderings", 1))


def _print_ranks(plan: Plan, grid: Grid, console: Console) -> None:
    """Print the ranks in the grid's layout, coloured by AR step; in a narrow terminal the colours alone."""
    from rich.text import Text

    ranks, steps = plan.rank_BL[0].tolist(), plan.step_BL[0].tolist()
    width, digits, text = grid.shape[-1], len(str(len(grid) - 1)), Text()
    fits = width * (digits + 2) <= console.width
    for token, (rank, step) in enumerate(zip(ranks, steps, strict=True)):
        place = step / max(1, max(steps)) * (len(_VIRIDIS) - 1)
        low, high = _VIRIDIS[int(place)], _VIRIDIS[min(int(place) + 1, len(_VIRIDIS) - 1)]
        colour = ",".join(str(round(a + (b - a) * (place % 1.0))) for a, b in zip(low, high, strict=True))
        ink = "black" if step > 0.6 * max(1, max(steps)) else "white"
        text.append(f" {rank:>{digits}} " if fits else "  ", style=f"{ink} on rgb({colour})")
        text.append("\n" if token % width == width - 1 else "")
        text.append("\n" if grid.time and (token + 1) % len(grid.frame) == 0 and token + 1 < len(grid) else "")
    console.print(text, end="", soft_wrap=True)
    said = ["down: row", "across: column"] if grid.ndim == 2 else []
    said += ["number: rank"] * fits + ["colour: AR step, dark first, light last"] * console.is_terminal
    print(", ".join(said))


@grouped
def search_order(
    run: TrainedRun,
    partition: Annotated[str, opt("Partition to find an order for: singles, cosine:16.")] = "singles",
    minutes: Annotated[float, opt("Total search time; 0 reports the order found so far.", min=0.0)] = 10.0,
    evaluations: Annotated[int | None, opt("Total number of changes to try.", min=0)] = None,
    n: Annotated[int, opt("Search images; a quarter only choose the final order.", "-n", "--n", min=8)] = 256,
    split: Annotated[Literal["validation", "train"], opt("Split of the search images.")] = "validation",
    start: Annotated[
        str, opt("Comma-separated fixed orders; lowest-entropy and highest-entropy are found greedily.")
    ] = "lowest-entropy,highest-entropy,raster,fixed-random:0",
    test_n: Annotated[
        int | None, opt("Test images; default all, or 256 (GPU: 1000) if every AR step needs a pass.", min=2)
    ] = None,
    kind: Kind = None,
    budget: Budget = None,
    seed: Seed = 0,
    name: Annotated[str, opt("Name of the files in RUN/orders; default searched-PARTITION.")] = "",
    as_json: Json = False,
) -> None:
    """Find a fixed order of low NLL for a trained any-order model.

    Tests it beside raster and random. Writes RUN/orders/NAME.json, an order that every command takes as file:PATH, and
    NAME.png, NAME.search.json, NAME.result.json. Ctrl-C keeps the best order so far; the same command resumes, and more
    minutes search longer.

    Examples:

        mar search-order runs/digits --partition cosine:16 --minutes 20
    """
    loaded = run.load()

    from mar.metrics import searched
    from mar.order_search.search import Budget as SearchBudget

    spent, starts = SearchBudget(minutes, evaluations), tuple(listed(start))
    request = searched.SearchRequest(partition, spent, n, split, starts, test_n, kind, gibibytes(budget), seed, name)
    table, lines = searched.search_order(loaded, request)
    print_tables([table], as_json, *lines)
