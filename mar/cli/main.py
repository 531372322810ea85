"""The command line: ``mar COMMAND``. Only the module of the command that runs is imported, and torch only by need."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import Parameter, getdoc, signature
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

import mar
from mar.cli.help import name_values, page
from mar.cli.options import checked
from mar.core.errors import MarError, PeerFailed, Stopped, UserError

# panel of the help -> command -> module of mar.cli and function, or the help and the commands of a group
COMMANDS: dict[str, dict[str, Any]] = {
    "Start": {
        "recipes": "train.recipes", "train": "train.train", "sample": "sample.sample",
        "score": (
            "Score runs: likelihood, FID, costs of sets, exposure, order consistency.",
            {
                "nll": "score.nll", "fid": "fid.fid", "sets": "score.sets", "exposure": "score.exposure",
                "consistency": "score.consistency", "matrix": "score.matrix",
            },
        ),
        "status": "ablate.status", "demo": "demo.demo",
    },
    "Experiments": {
        "ablate": "ablate.ablate", "reproduce": "ablate.reproduce", "report": "report.report",
        "generate": "sample.generate", "fid": "fid.fid", "fid-stats": "fid.fid_stats",
    },
    "Orders": {
        "orderings": (
            "List, show and draw orderings and partitions.",
            {"list": "orders.list_", "show": "orders.show", "gallery": "orders.gallery"},
        ),
        "search-order": "orders.search_order",
    },
    "Data": {
        "data": ("Look at data sets.", {"check": "data.check"}),
        "tokenizer": (
            "Train and score autoencoders of images.", {"train": "tokenizer.train", "score": "tokenizer.score"},
        ),
        "cache": "tokenizer.cache",
    },
    "Check and share": {
        "verify": "verify.verify", "bench": "bench.bench", "export": "weights.export", "import": "weights.import_",
    },
}  # fmt: skip

# Options of earlier versions of mar sample and mar bench -> the option now.
_RENAMED = {
    "--top-k": "--head top_k=K", "--top-p": "--head top_p=P", "--greedy": "--head greedy=true",
    "--solver": "--head solver=NAME", "--head-steps": "--head steps=N", "--sampling": "--head KEY=VALUE",
}  # fmt: skip


class _Page:
    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(page(self, ctx))


class _Command(_Page, TyperCommand):
    """A command with the project's help page."""


class _Group(_Page, TyperGroup):
    """Commands by name; ``commands`` holds where a command is until the command is asked for."""

    def __init__(self, panels: Mapping[str, Mapping[str, Any]] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.panels = {name: title for title, names in (panels or COMMANDS).items() for name in names}
        self.commands = {name: found for names in (panels or COMMANDS).values() for name, found in names.items()}

    def panel(self, name: str) -> str:
        """The title above a command in the help."""
        return self.panels[name]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found: Any = self.commands.get(cmd_name)
        if isinstance(found, str):
            self.commands[cmd_name] = found = _load(cmd_name, found)
        elif isinstance(found, tuple):
            self.commands[cmd_name] = found = _Group({"Commands": found[1]}, name=cmd_name, help=found[0])
            found.no_args_is_help = True
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Refuse ``mar score RUN --nll`` with the spelling that replaced it."""
        if self.name == "score" and args[0] not in self.commands:
            flag = next((text for text in args if text.startswith("--") and text[2:] in self.commands), "")
            if not flag and "/" not in args[0]:
                return super().resolve_command(ctx, args)
            words = ["mar score", flag[2:] or "|".join(self.commands), *(text for text in args if text != flag)]
            raise UserError(f"mar score {' '.join(args)} is now written: {' '.join(words)}")
        return super().resolve_command(ctx, args)


def _load(name: str, target: str) -> Any:
    """Import ``module.function`` of mar.cli and return its command."""
    module, _, function = target.partition(".")
    command = getattr(import_module(f"mar.cli.{module}"), function)
    hints = command.__annotations__ = get_type_hints(command, include_extras=True)  # evaluated once, for typer too
    needs_arguments = any(parameter.default is Parameter.empty for parameter in signature(command).parameters.values())
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name, cls=_Command, help=getdoc(command), no_args_is_help=needs_arguments)(checked(command))
    made = typer.main.get_command(alone)
    name_values(made.params, hints)
    return made


def _print_version(asked: bool) -> None:
    if asked:
        print(f"mar {mar.__version__}")
        raise typer.Exit


app = typer.Typer(
    name="mar",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


@app.callback()
def _mar(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Autoregressive generation in any order and any grouping of tokens. Every COMMAND --help has examples."""


class _Announcement:
    """A finder of no module, which says on a terminal that torch is loaded: it takes seconds."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torch":
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            typer.secho("loading torch …", err=True, dim=True)


def main() -> None:
    """Run a command. A user's error is one line and exit code 2; a signal is 128 and its number."""
    if sys.stderr.isatty() and os.environ.get("LOCAL_RANK", "0") == "0":
        sys.meta_path.insert(0, _Announcement())  # type: ignore[arg-type]
    try:
        refuse_renamed(sys.argv[1:])
        code = app(prog_name="mar", standalone_mode=False)
    except Exception as error:
        line, code = describe_error(error)
        if code is None or os.environ.get("MAR_TRACEBACK"):
            raise
        if line and not _printed_by_peer():
            typer.echo(line, err=True)
        exit_now(code)
    sys.exit(code if isinstance(code, int) else 0)


def refuse_renamed(arguments: Sequence[str]) -> None:
    """Raise UserError if an option has another name now; the message names it."""
    for option in (word.partition("=")[0] for word in arguments[1:]):
        if arguments[0] in ("sample", "bench") and option in _RENAMED:
            raise UserError(f"mar {arguments[0]} {option} is now written: mar {arguments[0]} {_RENAMED[option]}")


def describe_error(error: Any) -> tuple[str, int | None]:
    """Return the line to print and the exit code; code None marks a bug, which keeps its traceback."""
    if isinstance(error, PeerFailed):
        return "", error.code
    if isinstance(error, Stopped):
        return "mar: stopped, checkpoint saved. Run the same command again to resume.", 128 + error.signal
    if hasattr(error, "format_message"):  # a usage error of typer, whose class moves between its versions
        if type(error).__name__ == "NoArgsIsHelpError":
            return error.ctx.get_help(), error.exit_code
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
