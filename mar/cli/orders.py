"""``mar orderings`` and ``mar search-order``: list, draw and search orders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mar.cli.options import Budget, Json, Kind, Seed, TrainedRun, gibibytes, grouped, print_tables

if TYPE_CHECKING:
    from orderings import Grid, Plan

app = typer.Typer(no_args_is_help=True)

_GRID = "16x16 (image), 64 (text), 8x8x3 (with channels)."

# Every kind of path once, then partitions of different characters.
GALLERY = (
    *("raster", "reverse", "column", "serpentine", "diagonal", "diagonal:zigzag"),
    *("spiral", "spiral:outward", "spiral:outward:around=corner", "hilbert", "morton", "segments:16"),
    *("blocks:4", "blocks:4:outer=spiral:inner=hilbert", "centre-out", "subsample", "checkerboard", "halton"),
    *("raster/cosine:12", "centre-out/equal:16", "subsample/cosine:12", "random", "random/cosine:12"),
    "blocks:4:outer=random/blocks:4",
)


@app.command("list")
def list_(json: Json = False) -> None:
    """List every ordering, partition and adaptive order with its options, defaults and grids.

    Examples:  mar orderings list   ·   mar orderings list --json
    """
    import json as json_format

    from orderings import ADAPTIVE, ORDERINGS, PARTITIONS, option_grammar

    families, notes = {}, []
    for family, registry in (("orderings", ORDERINGS), ("partitions", PARTITIONS), ("adaptive", ADAPTIVE)):
        families[family], broken = registry.classes()
        notes += broken
    rows = {
        family: [
            {
                "name": name,
                "summary": cls.summary,
                "grids": [f"{n}-D" for n in getattr(cls, "grids", (1, 2, 3))],
                "options": {
                    option: {"values": values, "default": default}
                    for option, (values, default) in option_grammar(cls).items()
                },
            }
            for name, cls in members.items()
        ]
        for family, members in families.items()
    }
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    if json:
        typer.echo(json_format.dumps(rows, indent=2, ensure_ascii=False))
        return
    _tables(rows)


@app.command()
def show(
    plan: Annotated[str, typer.Argument(help="An ordering, or ordering/partition: spiral, hilbert/cosine:12, …")],
    grid: Annotated[str, typer.Option(help=_GRID)] = "16x16",
    partition: Annotated[str, typer.Option(help="A partition, in place of /PARTITION: cosine:12, equal:4, …")] = "",
    out: Annotated[str, typer.Option(help="A .png (rank, step, path) or a .gif (the generation).")] = "",
    seed: Seed = 0,
) -> None:
    """Draw a plan, in the terminal and to a file.

    Examples:  mar orderings show spiral --grid 16x16 --partition cosine:12 --out plan.gif
    ·   mar orderings show "blocks:4:outer=(spiral:outward)/blocks:4" --out plan.png
    """
    import orderings
    from mar.core.errors import UserError
    from orderings import draw

    ordering, cut = orderings.PlanSpec.parse(plan)
    if partition:
        if cut != orderings.parse_partition("singles"):
            raise UserError(f"{plan!r} already names a partition: leave out --partition {partition}")
        cut = orderings.parse_partition(partition)
    lattice = orderings.Grid.parse(grid)
    drawn = _draw(ordering, cut, lattice, seed)
    text = str(orderings.PlanSpec(ordering, cut))
    sizes = drawn.sizes()[0].tolist()
    shown = ", ".join(map(str, sizes[:12])) + (", …" if len(sizes) > 12 else "")
    typer.echo(f"{text} on {lattice}: {len(lattice)} tokens in {len(sizes)} AR steps (sizes {shown})")
    if lattice.ndim < 3 and len(lattice) <= 1024 and lattice.shape[-1] <= 32:
        _print_ranks(drawn, lattice)
    if out:
        typer.echo(f"wrote {draw.save(drawn, lattice, out, title=f'{text}   {lattice}')}")


@app.command()
def gallery(
    plans: Annotated[list[str] | None, typer.Argument(help="Plans; default a selection.")] = None,
    grid: Annotated[str, typer.Option(help=_GRID)] = "16x16",
    out: Annotated[str, typer.Option(help="A .png file.")] = "orderings.png",
    seed: Seed = 0,
) -> None:
    """Draw many plans side by side.

    Examples:  mar orderings gallery --out orderings.png   ·   mar orderings gallery spiral hilbert random/cosine:8
    """
    import orderings
    from mar.core.errors import UserError
    from orderings import draw

    path, lattice = Path(out), orderings.Grid.parse(grid)
    if path.suffix.lower() != ".png":
        raise UserError(f"the gallery is a .png file, not {out!r}")
    drawn = {text: _draw(*orderings.PlanSpec.parse(text), lattice, seed) for text in plans or GALLERY}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw.png(draw.gallery(drawn, lattice)))
    typer.echo(f"wrote {path}")


def _draw(ordering, partition, grid: Grid, seed: int) -> Plan:
    from mar.core.noise import stream
    from orderings import Plan

    return Plan.sample(ordering, partition, grid, 1, stream(seed, "orderings", 1))


def _tables(rows: dict[str, list[dict]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for family, members in rows.items():
        table = Table(title=family, title_justify="left", title_style="bold", box=None, pad_edge=False)
        table.add_column("name", no_wrap=True, style="cyan")
        for column in ("what it does", "grids", "option = default  (values)"):
            table.add_column(column)
        for member in members:
            options = "\n".join(
                f"{option} = {value['default'] or '—'}  ({value['values']})"
                for option, value in member["options"].items()
            )
            table.add_row(member["name"], member["summary"], " ".join(member["grids"]), escape(options))
        console.print(table)
        console.print()


def _print_ranks(plan: Plan, grid: Grid) -> None:
    """Print the ranks in the grid's layout, coloured by AR step."""
    from matplotlib import colormaps
    from rich.console import Console
    from rich.text import Text

    ranks, steps = plan.rank_BL[0].tolist(), plan.step_BL[0].tolist()
    width, digits = grid.shape[-1], len(str(len(grid) - 1))
    last = max(1, max(steps))
    text = Text()
    for token, (rank, step) in enumerate(zip(ranks, steps, strict=True)):
        red, green, blue = (round(255 * c) for c in colormaps["viridis"](step / last)[:3])
        ink = "black" if step > 0.6 * last else "white"
        text.append(f" {rank:>{digits}} ", style=f"{ink} on rgb({red},{green},{blue})")
        if token % width == width - 1:
            text.append("\n")
    Console(soft_wrap=True).print(text, end="")


@grouped
def search_order(
    run: TrainedRun,
    partition: Annotated[str, typer.Option(help="Partition to find an order for: singles, cosine:16.")] = "singles",
    minutes: Annotated[
        float, typer.Option(min=0.0, help="Total search time; 0 reports the order found so far.")
    ] = 10.0,
    evaluations: Annotated[int | None, typer.Option(min=0, help="Total number of changes to try.")] = None,
    n: Annotated[
        int,
        typer.Option("-n", "--n", min=8, help="Images to search on; a quarter of them only choose the final order."),
    ] = 256,
    split: Annotated[Literal["validation", "train"], typer.Option(help="Split of the search images.")] = "validation",
    start: Annotated[
        str, typer.Option(help="Comma-separated fixed orders; lowest-entropy and highest-entropy are found greedily.")
    ] = "lowest-entropy,highest-entropy,raster,fixed-random:0",
    test_n: Annotated[
        int | None,
        typer.Option(
            min=2, help="Test images of the report; default all, or 256 (GPU: 1000) for step-by-step networks."
        ),
    ] = None,
    kind: Kind = None,
    budget: Budget = None,
    seed: Seed = 0,
    name: Annotated[str, typer.Option(help="Name of the files in RUN/orders; default searched-PARTITION.")] = "",
    as_json: Json = False,
) -> None:
    """Find a fixed order that lowers the NLL of a trained any-order model, and test it beside raster and random.

    Writes RUN/orders/NAME.json, an order that every command takes as file:PATH, and NAME.png, NAME.search.json,
    NAME.result.json. Ctrl-C keeps the best order so far; the same command continues, and more minutes search longer.

    Examples:

        mar search-order runs/digits --minutes 20

        mar search-order runs/digits --partition cosine:16 --evaluations 2000

        mar search-order runs/digits --minutes 0
    """
    from mar.metrics.searched import SearchRequest
    from mar.metrics.searched import search_order as search
    from mar.order_search.search import Budget as SearchBudget
    from orderings import text as values

    starts = tuple(text.strip() for text in values.split(start, ",") if text.strip())
    spent = SearchBudget(minutes, evaluations)
    request = SearchRequest(partition, spent, n, split, starts, test_n, kind, gibibytes(budget), seed, name)
    table, lines = search(run.load(), request)
    print_tables([table], as_json, *lines)
