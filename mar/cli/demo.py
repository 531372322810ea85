"""``mar demo``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

from mar.cli.options import Device, LastWeights, arg, load_run, opt
from mar.core.errors import UserError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")  # addresses that only this machine reaches: plans may name its files


def demo(
    run: Annotated[
        Path | None, arg("A run folder; without one, a small run of Fashion-MNIST that is included.")
    ] = None,
    last_weights: LastWeights = False,
    device: Device = "",
    port: Annotated[int, opt("Port of the page.", min=1, max=65535)] = 7860,
    host: Annotated[str, opt("Address of the page; 0.0.0.0 serves other machines.")] = "127.0.0.1",
    browser: Annotated[bool, opt("Open the page in the browser.", "--open/--no-browser")] = False,
) -> None:
    """Serve a local page: paint an order and watch a run generate.

    Needs a run of images and gradio (pip install 'mar-orderings[demo]'), and no network. Ctrl-C ends it.

    Examples:

        mar demo
        mar demo runs/digits --port 8000 --open
    """
    loaded = None if run is None else load_run(run, last_weights)
    from mar.demo.session import Session, bundled

    with tempfile.TemporaryDirectory(prefix="mar-demo-") as folder:
        session = Session(loaded or bundled(not last_weights), Path(folder), reads_files=host in _LOOPBACK)
        try:
            from mar.demo.page import serve
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise UserError("mar demo needs gradio: pip install 'mar-orderings[demo]'") from None
        serve(session, host, port, browser)
