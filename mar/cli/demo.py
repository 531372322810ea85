"""``mar demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    run: Annotated[Path, typer.Argument(help="A run folder of images.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--open/--no-browser", help="Open the page in the browser.")] = False,
    last_weights: Annotated[bool, typer.Option("--last-weights", help="Not the averaged (EMA) ones.")] = False,
) -> None:
    """A local page: choose or paint an order, give some pixels, and watch the run generate, with the NLL so far.

    Needs gradio (pip install 'mar-orderings[demo]'), and no network. Ctrl-C ends it.

    Examples:

        mar demo runs/digits

        mar demo runs/digits --port 8000 --open
    """
    import tempfile

    from mar.core.errors import UserError
    from mar.demo.session import Session
    from mar.run import load

    with tempfile.TemporaryDirectory(prefix="mar-demo-") as folder:
        session = Session(load(run, ema=not last_weights), Path(folder))
        try:
            from mar.demo.page import serve
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise UserError("mar demo needs gradio: pip install 'mar-orderings[demo]'") from None
        serve(session, host, port, browser)
