"""The command line: ``mar COMMAND``. Commands import torch only when they need it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mar.cli.ablate import ablate, reproduce, status
from mar.cli.bench import bench
from mar.cli.data import app as data_app
from mar.cli.demo import demo
from mar.cli.fid import fid, fid_stats
from mar.cli.orders import app as orderings_app
from mar.cli.orders import search_order
from mar.cli.report import report
from mar.cli.sample import generate, sample
from mar.cli.score import app as score_app
from mar.cli.tokenizer import app as tokenizer_app
from mar.cli.tokenizer import cache
from mar.cli.train import recipes, train
from mar.cli.verify import verify
from mar.cli.weights import export, import_

app = typer.Typer(
    name="mar",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)
for command in (train, sample, generate, fid, fid_stats, search_order, ablate, status, report, cache, demo, export):
    app.command(no_args_is_help=True)(command)
for command in (verify, bench, recipes, reproduce):
    app.command()(command)
app.command("import", no_args_is_help=True)(import_)
app.add_typer(
    score_app,
    name="score",
    help="Score a run: likelihood, FID, set costs, exposure bias, or a matrix of runs and plans.",
)
app.add_typer(data_app, name="data", help="Look at data sets.")
app.add_typer(orderings_app, name="orderings", help="List, show and draw orderings and partitions.")
app.add_typer(tokenizer_app, name="tokenizer", help="Train and score autoencoders of images.")

# (command, option of an earlier version) -> the option now
_RENAMED = {
    ("sample", "--top-k"): "--head top_k=K",
    ("sample", "--top-p"): "--head top_p=P",
    ("sample", "--greedy"): "--head greedy=true",
    ("sample", "--solver"): "--head solver=NAME",
    ("sample", "--head-steps"): "--head steps=N",
    ("bench", "--solver"): "--head solver=NAME",
    ("bench", "--head-steps"): "--head steps=N --head bound_steps=N",
    ("bench", "--sampling"): "--head KEY=VALUE",
}


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"mar {version('mar-orderings')}")
        raise typer.Exit


@app.callback()
def mar(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Autoregressive generation in any order and any grouping of tokens: train, sample, score, ablate.

    Every COMMAND --help has examples. Shell completion: `mar --install-completion`, then open a new shell.
    """


def main() -> None:
    """Run a command. A user's error is one line and exit code 2; a signal is 128 and its number."""
    try:
        refuse_renamed(sys.argv[1:])
        code = app(prog_name="mar", standalone_mode=False)
    except Exception as error:
        line, code = describe_error(error)
        if code is None or os.environ.get("MAR_TRACEBACK"):
            raise
        if line and not _printed_by_peer():
            print(line, file=sys.stderr)
        exit_now(code)
    sys.exit(code if isinstance(code, int) else 0)


def refuse_renamed(arguments: Sequence[str]) -> None:
    """Raise UserError if an option has another name now; the message names it."""
    from mar.core.errors import UserError

    for word in arguments[1:]:
        option = word.partition("=")[0]
        if new := _RENAMED.get((arguments[0], option)):
            raise UserError(f"mar {arguments[0]} {option} is now written: mar {arguments[0]} {new}")


def describe_error(error: Any) -> tuple[str, int | None]:
    """Return the line to print and the exit code; code None marks a bug, which keeps its traceback."""
    from mar.core.errors import MarError, PeerFailed, Stopped

    if isinstance(error, PeerFailed):
        return "", error.code
    if isinstance(error, Stopped):
        return "mar: stopped, checkpoint saved. Run the same command again to resume.", 128 + error.signal
    if hasattr(error, "format_message"):  # a usage error of typer, whose class moves between its versions
        if type(error).__name__ == "NoArgsIsHelpError":
            return "", error.exit_code
        text = " ".join(error.format_message().replace("Value error, ", "").split())
        command = error.ctx.command_path if getattr(error, "ctx", None) else "mar"
        return f"mar: {text} (see {command} --help)", error.exit_code
    if isinstance(error, typer.Abort):
        return "mar: aborted", 1
    return f"mar: {error}", 2 if isinstance(error, MarError) else None


def _printed_by_peer() -> bool:
    """True before the processes of a launch are connected, in all but one of each machine: they meet the same error."""
    connected = "torch" in sys.modules and sys.modules["torch"].distributed.is_initialized()
    return not connected and os.environ.get("LOCAL_RANK", "0") != "0"


def exit_now(code: int) -> None:
    """Exit without waiting for peers of the process group."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
