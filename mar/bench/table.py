"""A report as tables for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table

from mar.bench.results import Report


def tables(report: Report) -> Group:
    machine, peak = report.environment, report.matrix_peak_flops_per_second / 1e9
    theirs = "" if report.reference is None else "; reference: {}, {} head steps".format(*report.reference)
    counts = ", ".join(f"{name} {count:,}" for name, count in report.parameters.items())
    head = (
        f"{report.recipe['name']}: {report.tokens} tokens, {report.ar_steps} AR steps, guidance {report.guidance:g}, "
        f"{report.precision}{theirs}\nparameters: {counts}\n{machine['device']}, {machine['threads']} threads, "
        f"torch {machine['packages']['torch']}, {report.clock} clock, matrix peak {peak:.0f} GFLOP/s\n"
        "GFLOP: per image; MiB: peak memory above the weights; × reference: median and range over rounds"
    )
    return Group(
        head,
        _speeds(report),
        *([_shares(report)] if report.shares else []),
        *_scoring(report),
        *_caching(report),
        *_streams(report),
    )


def _speeds(report: Report) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("work", "batch", "contender"):
        table.add_column(column, no_wrap=True)
    for column in ("images/s", "GFLOP", "of peak", "MiB", "× reference"):
        table.add_column(column, justify="right", no_wrap=True)
    for measurement in report.measurements:
        for speed in measurement.speeds:
            memory = "" if speed.peak_bytes is None else f"{speed.peak_bytes / 2**20:.0f}"
            table.add_row(
                measurement.work,
                str(measurement.batch),
                speed.contender,
                f"{speed.images_per_second:.4g}",
                "" if speed.flops_per_image is None else f"{speed.flops_per_image / 1e9:.4g}",
                "" if speed.matrix_peak_share is None else f"{speed.matrix_peak_share:.0%}",
                memory,
                "" if speed.ratio is None else f"{speed.ratio:.2f} ({min(speed.ratios):.2f}–{max(speed.ratios):.2f})",
            )
    return table


def _shares(report: Report) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("sample, s/image", no_wrap=True)
    for column in ("batch", "network", "head", "other"):
        table.add_column(column, justify="right")
    for share in report.shares:
        seconds = (share.network_seconds_per_image, share.head_seconds_per_image, share.other_seconds_per_image)
        table.add_row(share.contender, str(share.batch), *(f"{s:.4g}" for s in seconds))
    return table


def _scoring(report: Report) -> list[str]:
    cost = report.scoring
    if cost is None:
        return []
    peak, budget = cost.peak_bytes / 2**20, cost.budget_bytes / 2**20
    return [
        f"scoring cost: {cost.ratio:.2f} times its {cost.passes_per_image} forward pass(es) an image alone, at their "
        f"best batch of {cost.best_batch}; tensors of at most {peak:.0f} MiB under a budget of {budget:.0f} MiB"
    ]


def _caching(report: Report) -> list[str]:
    gain = report.cache
    if gain is None:
        return []
    seen = "" if gain.measured_steps == gain.steps else f" ({gain.measured_steps} of them measured)"
    return [
        f"cache: a generation of {gain.steps} steps, batch {gain.batch}, is {gain.ratio:.1f} times "
        f"({min(gain.ratios):.1f}–{max(gain.ratios):.1f}) as fast as a full pass for each step{seen}; "
        f"{gain.same_tokens:.3%} of the tokens are the same"
    ]


def _streams(report: Report) -> list[str]:
    return [
        f"{stream.name}: {stream.flops_per_image / 1e9:.4g} GFLOP an example and pass with gradients, "
        f"{stream.cost:.2f} times the seconds of a gpt of equal size"
        for stream in report.streams
    ]
