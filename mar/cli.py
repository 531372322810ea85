"""The command line: ``mar COMMAND``. Thin; torch is imported only when a command needs it."""

from __future__ import annotations

import os
import sys

import typer

from mar.commands.ablate import ablate
from mar.commands.bench import bench
from mar.commands.orderings import app as orderings_app
from mar.commands.sample import sample
from mar.commands.score import score
from mar.commands.train import recipes, train
from mar.commands.verify import verify

app = typer.Typer(
    name="mar",
    help="Autoregressive generation in any order and any grouping of tokens: train, sample, score, ablate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)
for command in (train, sample, score, ablate, verify, bench, recipes):
    app.command(no_args_is_help=command in (train, sample, score, ablate))(command)
app.add_typer(orderings_app, name="orderings", help="List, show and draw orderings and partitions.")


def main() -> None:
    """Run a command; the user's errors are one line and exit code 2, an interrupt is 130."""
    try:
        app()
    except KeyboardInterrupt as stop:
        print(f"\nstopped; the same command goes on{'' if stop.args else ' from the last checkpoint'}", file=sys.stderr)
        _leave(143 if stop.args == (15,) else 130)
    except Exception as error:
        if not _is_the_users(error) or os.environ.get("MAR_TRACEBACK"):
            raise
        print(f"mar: {error}", file=sys.stderr)
        _leave(2)


def _is_the_users(error: Exception) -> bool:
    """Errors made to be read; a plain ValueError or KeyError is a bug and keeps its traceback."""
    from mar.errors import InvalidRequest, Unsupported, UserError

    return isinstance(error, UserError | Unsupported | InvalidRequest)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # peers of a process group would otherwise be waited for at exit


if __name__ == "__main__":
    main()
