"""The command line: ``mar COMMAND``. Thin; torch is imported only when a command needs it."""

from __future__ import annotations

import os
import sys

import typer

from mar.cli.ablate import ablate, status
from mar.cli.bench import bench
from mar.cli.cache import cache
from mar.cli.demo import demo
from mar.cli.export import export
from mar.cli.fid import fid
from mar.cli.fid_stats import fid_stats
from mar.cli.generate import generate
from mar.cli.import_ import import_
from mar.cli.orderings import app as orderings_app
from mar.cli.reproduce import reproduce
from mar.cli.sample import sample
from mar.cli.score import score
from mar.cli.search_order import search_order
from mar.cli.tokenizer import app as tokenizer_app
from mar.cli.train import recipes, train
from mar.cli.verify import verify

app = typer.Typer(
    name="mar",
    help="Autoregressive generation in any order and any grouping of tokens: train, sample, score, ablate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)
for command in (train, sample, generate, score, fid, fid_stats, search_order, ablate, status, cache, demo):
    app.command(no_args_is_help=True)(command)
for command in (verify, bench, recipes, reproduce):
    app.command()(command)
app.command("import", no_args_is_help=True)(import_)
app.command(no_args_is_help=True)(export)
app.add_typer(orderings_app, name="orderings", help="List, show and draw orderings and partitions.")
app.add_typer(tokenizer_app, name="tokenizer", help="Train and score autoencoders of images.")


def main() -> None:
    """Run a command. The user's errors are one line and exit code 2; a signal is 128 and its number."""
    try:
        app()
    except Exception as error:
        line, code = _said(error)
        if code is None or os.environ.get("MAR_TRACEBACK"):
            raise
        if line and not _said_by_another():
            print(line, file=sys.stderr)
        _leave(code)


def _said(error: Exception) -> tuple[str, int | None]:
    """What to print and the exit code; None for what is not the user's to mend: a bug keeps its traceback."""
    from mar.core.errors import MarError, PeerFailed, Stopped

    if isinstance(error, PeerFailed):
        return "", error.code
    if isinstance(error, Stopped):
        return "mar: stopped and saved; the same command goes on", 128 + error.signal
    return f"mar: {error}", 2 if isinstance(error, MarError) else None


def _said_by_another() -> bool:
    """Processes that have not met yet all come to the same error: the first one of each machine says it."""
    met = "torch" in sys.modules and sys.modules["torch"].distributed.is_initialized()
    return not met and os.environ.get("LOCAL_RANK", "0") != "0"


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # peers of a process group would otherwise be waited for at exit


if __name__ == "__main__":
    main()
