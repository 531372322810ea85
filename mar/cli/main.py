"""The command line: ``mar COMMAND``. Only the module of the command that runs is imported, and torch only by need."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import Parameter, getdoc, signature
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mar.cli.options import checked

# command -> module of mar.cli and function; a group -> its help and its commands
COMMANDS: dict[str, Any] = {
    "train": "train.train", "sample": "sample.sample", "generate": "sample.generate", "fid": "fid.fid",
    "fid-stats": "fid.fid_stats", "search-order": "orders.search_order", "ablate": "ablate.ablate",
    "status": "ablate.status", "report": "report.report", "cache": "tokenizer.cache", "demo": "demo.demo",
    "export": "weights.export", "verify": "verify.verify", "bench": "bench.bench", "recipes": "train.recipes",
    "reproduce": "ablate.reproduce", "import": "weights.import_",
    "score": (
        "Score a run: likelihood, FID, set costs, exposure bias, or a matrix of runs and plans.",
        {"nll": "score.nll", "fid": "fid.fid", "sets": "score.sets", "exposure": "score.exposure", "matrix": "score.matrix"},
    ),
    "orderings": (
        "List, show and draw orderings and partitions.",
        {"list": "orders.list_", "show": "orders.show", "gallery": "orders.gallery"},
    ),
    "data": ("Look at data sets.", {"check": "data.check"}),
    "tokenizer": (
        "Train and score autoencoders of images.", {"train": "tokenizer.train", "score": "tokenizer.score"},
    ),
}  # fmt: skip

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


class _Group(TyperGroup):
    """Commands by name; ``commands`` holds where a command is until the command is asked for."""

    def __init__(self, commands: Mapping[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = dict(commands or COMMANDS)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found: Any = self.commands.get(cmd_name)
        if isinstance(found, str):
            self.commands[cmd_name] = found = _load(cmd_name, found)
        elif isinstance(found, tuple):
            self.commands[cmd_name] = found = _Group(
                name=cmd_name, help=found[0], commands=dict(found[1]), no_args_is_help=True
            )
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Refuse ``mar score RUN --nll`` with the spelling that replaced it."""
        if self.name == "score" and args[0] not in self.commands:
            from mar.core.errors import UserError

            flag = next((text for text in args if text.startswith("--") and text[2:] in self.commands), "")
            words = ["mar score", flag[2:] or "|".join(self.commands), *(text for text in args if text != flag)]
            raise UserError(f"mar score {' '.join(args)} is now written: {' '.join(words)}")
        return super().resolve_command(ctx, args)


def _load(name: str, target: str) -> Any:
    """Import ``module.function`` of mar.cli and return its command."""
    module, _, function = target.partition(".")
    command = getattr(import_module(f"mar.cli.{module}"), function)
    needs_arguments = any(parameter.default is Parameter.empty for parameter in signature(command).parameters.values())
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    alone.command(name, help=_one_example_a_line(getdoc(command) or ""), no_args_is_help=needs_arguments)(
        checked(command)
    )
    return typer.main.get_command(alone)


def _one_example_a_line(text: str) -> str:
    """Return Markdown in which indented lines are lines of their own, and no block of code."""
    return re.sub(r"(\S)\n {4}(?=\S)", r"\1  \n", text).replace("\n\n    ", "\n\n")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"mar {version('mar-orderings')}")
        raise typer.Exit


app = typer.Typer(
    name="mar",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)


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
