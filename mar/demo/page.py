"""The page: gradio's controls around two drawings of our own, the board and the player (``*.html``, ``*.js``)."""

from __future__ import annotations

import html
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # no data leaves this machine

import gradio as gr  # pyright: ignore[reportMissingImports]  # an extra
import torch

from mar.core.errors import MarError, UserError
from mar.demo.answers import EMPTY, generate, preview, read_picture, request_of, whole
from mar.demo.session import PAINTED, Request, Session
from orderings.draw import GIVEN_GREY, INK, NOW, PAPER, UNKNOWN, palette

_HERE = Path(__file__).parent
_LARGEST_FILE = "20mb"  # of an upload
_WAITING = 64  # clients; more are told to try again


def serve(session: Session, host: str, port: int, browser: bool) -> None:
    """Serve the page until interrupted.

    Raises:
        UserError: the port is taken, or the host does not exist.
    """
    font, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]  # local fonts only
    theme, blocks = gr.themes.Default(primary_hue="orange", font=font, font_mono=mono), page(session)
    try:
        _, address, _ = blocks.launch(
            server_name=host, server_port=port, inbrowser=browser, share=False, ssr_mode=False, footer_links=[],
            theme=theme, css_paths=_HERE / "page.css", allowed_paths=[str(session.folder)], quiet=True,
            prevent_thread_lock=True, max_file_size=_LARGEST_FILE,
        )  # fmt: skip
    except OSError:
        why = "the port is taken, or the host is none of this machine's"
        raise UserError(f"cannot serve on {host}:{port}: {why}; choose another --port or --host") from None
    print(f"{session.run.folder.path} is at {address} (Ctrl-C ends it)", flush=True)
    blocks.block_thread()


def page(session: Session) -> gr.Blocks:
    """Return the page of a session."""
    run = session.run
    old = (600, 3600)  # every ten minutes, delete uploads of more than an hour
    with gr.Blocks(title="mar demo", analytics_enabled=False, fill_width=True, delete_cache=old) as blocks:
        gr.HTML(_title(session), elem_classes="demo-title")
        picture = gr.State()
        with gr.Row():
            with gr.Column(min_width=320):
                plan = gr.Dropdown(
                    session.presets(), value=run.training_plan, allow_custom_value=True, label="Plan",
                    info="ordering[/partition], chosen or typed, as in mar sample --plan; or painted below",
                )  # fmt: skip
                board = _drawing(
                    "board", {**EMPTY}, scene=preview(session, Request(run.training_plan))[0], ink=_ink(session)
                )
                with gr.Row(elem_classes="line"):
                    number = gr.Number(0, label="Test image", min_width=90)  # checked by request_of
                    pick = gr.Button("Use it", min_width=90)
                    upload = gr.UploadButton("Upload", file_types=["image"], min_width=90)
                order = gr.DownloadButton("Save the painted order", visible=False)
            with gr.Column(min_width=320):
                label = gr.Dropdown(
                    list(zip(session.classes, range(len(session.classes)), strict=True)), value=0, label="Class",
                    visible=bool(session.classes), allow_custom_value=True,
                )  # fmt: skip
                with gr.Row():
                    guidance = gr.Slider(0, 8, 1, step=0.25, label="Guidance", visible=bool(session.classes))
                    temperature = gr.Slider(0, 2, 1, step=0.05, label="Temperature")
                with gr.Row(elem_classes="line"):
                    seed = gr.Number(0, label="Seed", min_width=90)
                    go = gr.Button("Generate", variant="primary", min_width=120)
                    again = gr.Button("Next seed", min_width=120)
                message = gr.HTML(elem_id="message", visible=False)
                player = _drawing("player", None)
        controls = [plan, label, guidance, temperature, seed, board, picture]
        shown, answers = [board, order, message], _Answers(session)
        quick: dict[str, Any] = {"show_progress": "hidden"}
        slow: dict[str, Any] = {"show_progress": "minimal", "concurrency_id": "model"}
        for event in (plan.change, seed.change):
            event(answers.preview, controls, shown, **quick)
        board.input(answers.painted, controls, [plan, *shown], trigger_mode="always_last", **quick)
        pick.click(answers.pick, [number, *controls], [picture, label, *shown], **quick)
        upload.upload(answers.upload, [upload, *controls], [picture, label, *shown], **quick)
        go.click(answers.generate, controls, [player, message], **slow)
        following = again.click(lambda seed: (seed or 0) + 1, seed, seed, **quick)
        following.then(answers.generate, controls, [player, message], **slow)
    return blocks.queue(max_size=_WAITING)  # one generation at a time, the rest in turn


class _Answers:
    """The handlers of events; ``chosen`` are the values of the controls, in their order. A refusal changes the message
    alone."""

    def __init__(self, session: Session) -> None:
        self.session, self.pictures = session, itertools.count(1)

    def preview(self, *chosen: Any) -> tuple[Any, ...]:
        return _answered(2, lambda: self._previewed(self._request(*chosen)))

    def painted(self, plan: str, *others: Any) -> tuple[Any, ...]:
        """Switch the plan to the painted order, with the same partition, at a stroke of the order brush."""
        name, *partition = (plan or "").split("/", 1)
        if others[-2].get("tool") == "order" and name.strip() != PAINTED:
            plan = "/".join([PAINTED, *partition])
        return (plan, *self.preview(plan, *others))

    def generate(self, *chosen: Any) -> tuple[Any, ...]:
        def answer() -> tuple[Any, Any]:
            movie, message = generate(self.session, self._request(*chosen))
            return gr.HTML(value=movie) if movie else gr.skip(), _told(message)

        return _answered(1, answer)

    def pick(self, number: float | None, *chosen: Any) -> tuple[Any, ...]:
        return self._pictured(lambda: self.session.test_image(whole(number or 0, "a test image")), *chosen)

    def upload(self, path: str, *chosen: Any) -> tuple[Any, ...]:
        return self._pictured(lambda: (read_picture(self.session, path), None), *chosen)

    def _pictured(self, read: Callable[[], tuple[torch.Tensor, int | None]], *chosen: Any) -> tuple[Any, ...]:
        """Replace the drawing by a picture; a new number tells the board to clear its strokes."""

        def answer() -> tuple[Any, ...]:
            (picture, its_label), (plan, label, *others, board, _) = read(), chosen
            label = label if its_label is None else its_label
            request = self._request(plan, label, *others, {**board, "drawn": []}, picture)
            return picture, label, *self._previewed(request, fresh=next(self.pictures))

        return _answered(4, answer)

    def _previewed(self, request: Request, **fresh: int) -> tuple[Any, Any, Any]:
        scene, message = preview(self.session, request)
        painted = bool(scene["painted"] and scene["step"])
        file = str(self.session.order_file(request.painted)) if painted else None
        return gr.HTML(scene={**scene, **fresh}), gr.DownloadButton(value=file, visible=painted), _told(message)

    def _request(self, *chosen: Any) -> Request:
        plan, label, guidance, temperature, seed, board, picture = chosen
        request = Request(plan or "", label=label, guidance=guidance, temperature=temperature, seed=seed or 0)
        return request_of(self.session, board, picture, request)


def _answered(n: int, answer: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the answer, or ``n`` outputs left as they are and the reason of the refusal."""
    try:
        return answer()
    except MarError as error:
        return *(gr.skip() for _ in range(n)), _told(str(error))


def _drawing(name: str, value: Any, **props: Any) -> gr.HTML:
    """Return a custom component: NAME.html, drawn by drawing.js and NAME.js."""
    colours = {"palette": palette(64), "now": NOW, "given": GIVEN_GREY, "ink": INK, "paper": PAPER, "unknown": UNKNOWN}
    script = "\n".join((_HERE / file).read_text() for file in ("drawing.js", f"{name}.js"))
    template = (_HERE / f"{name}.html").read_text()
    return gr.HTML(
        value, html_template=template, js_on_load=script, apply_default_css=False, elem_classes=["drawing", name],
        elem_id=name, colours=colours, **props,
    )  # fmt: skip


def _ink(session: Session) -> str:
    """Return the control for the drawing colour: a grey level, or any colour."""
    if session.picture_shape[0] > 1:
        return '<input class="ink" type="color" value="#ffffff">'
    top = session.run.spec.levels - 1
    return f'<input class="ink" type="range" min="0" max="{top}" value="{top}">'


def _title(session: Session) -> str:
    recipe, height, width = session.run.recipe, *session.picture_shape[-2:]
    kinds = f"{height}×{width} {recipe.data.kind}, {recipe.network.kind}, {recipe.head.kind} head"
    said = f"{session.run.folder.path}: {kinds}, trained along {session.run.training_plan}"
    return f"<h1>Any order, one token set at a time</h1><p>{html.escape(said)}</p>"


def _told(message: str) -> Any:
    return gr.HTML(value=f'<p role="alert">{html.escape(message)}</p>' if message else "", visible=bool(message))
