"""The page: gradio's controls around two drawings of our own, the board and the player (``*.html``, ``*.js``)."""

from __future__ import annotations

import html
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # no data leaves this machine

import gradio as gr  # pyright: ignore[reportMissingImports]  # an extra
import torch

from mar.core.errors import MarError, UserError
from mar.core.log import logger
from mar.demo.answers import (
    EMPTY,
    Misfit,
    beside,
    film_files,
    link,
    linked,
    preview,
    race,
    read_picture,
    request_of,
    table,
    whole,
)
from mar.demo.session import PAINTED, Request, Session
from orderings.draw import GIVEN_GREY, INK, NOW, PAPER, UNKNOWN, palette

_HERE = Path(__file__).parent
_LARGEST_FILE = "20mb"  # of an upload
_WAITING = 64  # clients; more are told to try again
_EVERY = 0.08  # seconds from one picture of a running generation to the next
_FIELDS = ("plan", "label", "seed", "picture", "rival")  # each with a line for its errors
_WHITE_ON = {"button_primary_background_fill": "#c2410c", "button_primary_background_fill_hover": "#9a3412"}


def serve(session: Session, host: str, port: int, browser: bool) -> None:
    """Serve the page until interrupted.

    Raises:
        UserError: the port is taken, or the host does not exist.
    """
    font, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]  # local fonts only
    theme = gr.themes.Default(primary_hue="orange", font=font, font_mono=mono)
    theme.set(**_WHITE_ON, **{f"{key}_dark": value for key, value in _WHITE_ON.items()})
    answers = _Answers(session)
    try:
        _, address, _ = (blocks := page(answers)).launch(
            server_name=host, server_port=port, inbrowser=browser, share=False, ssr_mode=False, footer_links=[],
            theme=theme, css_paths=_HERE / "page.css", allowed_paths=[str(session.folder)], quiet=True,
            prevent_thread_lock=True, max_file_size=_LARGEST_FILE,
        )  # fmt: skip
    except OSError:
        why = "the port is taken, or the host is none of this machine's"
        raise UserError(f"cannot serve on {host}:{port}: {why}; choose another --port or --host") from None
    logger.info(f"{session.run.folder.path} is at {address} (Ctrl-C ends it)")
    threading.Thread(target=answers.prepare, daemon=True).start()
    blocks.block_thread()


def page(answers: _Answers) -> gr.Blocks:
    """Return the page of a session."""
    session = answers.session
    run, classes = session.run, session.classes
    old = (600, 3600)  # every ten minutes, delete uploads of more than an hour
    with gr.Blocks(title="mar demo", analytics_enabled=False, fill_width=True, delete_cache=old) as blocks:
        gr.HTML(_title(session), elem_classes="demo-title")
        picture, told = gr.State(), {}

        def lines(*fields: str) -> None:
            for field in fields:
                told[field] = gr.HTML(visible=False, elem_id=f"message-{field}", elem_classes="message")

        with gr.Row():
            with gr.Column(min_width=320):
                with gr.Row():
                    plan = gr.Dropdown(
                        session.presets(), value=run.training_plan, allow_custom_value=True, label="Plan", scale=2,
                        info="ordering[/partition], chosen, typed or painted", min_width=180,
                    )  # fmt: skip
                    label = gr.Dropdown(
                        list(zip(classes, range(len(classes)), strict=True)), value=0, label="Class", scale=1,
                        info="condition", visible=bool(classes), allow_custom_value=True, min_width=130,
                    )  # fmt: skip
                lines("plan", "label")
                scene = preview(session, Request(run.training_plan))[0]
                board = _drawing("board", {**EMPTY}, scene=scene, ink=_ink(session))
                with gr.Row(elem_classes="line"):
                    seed = gr.Number(0, label="Seed", min_width=70, precision=0)
                    go = gr.Button("Generate", variant="primary", min_width=90, size="md")
                    again = gr.Button("Next seed", min_width=90, size="md")
                lines("seed")
            with gr.Column(min_width=320):
                player = _drawing("player", None, current="")
                with gr.Row(elem_classes="line"):
                    gif = gr.DownloadButton("Save GIF", visible=False, min_width=90, size="md")
                    png = gr.DownloadButton("Save PNG", visible=False, min_width=90, size="md")
                    order = gr.DownloadButton("Save order", visible=False, min_width=90, size="md")
        with gr.Row():
            with gr.Column(min_width=320):
                with gr.Row(elem_classes="line"):
                    number = gr.Number(0, label="Test image", min_width=90, precision=0)
                    pick = gr.Button("Use it", min_width=80, size="md")
                    upload = gr.UploadButton("Upload", file_types=["image"], min_width=80, size="md")
                lines("picture")
                with gr.Row():
                    guidance = gr.Slider(0, 8, 1, step=0.25, label="Guidance", visible=bool(classes))
                    temperature = gr.Slider(0, 2, 1, step=0.05, label="Temperature")
            with gr.Column(min_width=320):
                with gr.Row(elem_classes="line"):
                    rival = gr.Dropdown(
                        session.presets(), value="raster", allow_custom_value=True, label="Race against", min_width=140
                    )
                    start = gr.Button("Race", min_width=70, size="md")
                    beat = gr.Button("Beat raster", min_width=100, size="md")
                lines("rival")
                standings = gr.HTML(
                    "<p>Beat raster scores the order on 100 test images, beside raster and random.</p>",
                    elem_id="standings",
                )
        controls = [plan, label, guidance, temperature, seed, board, picture]
        messages = [told[field] for field in _FIELDS]
        shown, films = [board, player, order, *messages], [player, gif, png, *messages]
        quick: dict[str, Any] = {"show_progress": "hidden"}
        slow: dict[str, Any] = {"show_progress": "hidden", "concurrency_id": "model"}
        for control in (plan, label, guidance, temperature, seed):
            control.change(answers.preview, controls, shown, trigger_mode="always_last", **quick)
        board.input(answers.painted, controls, [plan, *shown], trigger_mode="always_last", **quick)
        pick.click(answers.pick, [number, *controls], [picture, label, *shown], **quick)
        upload.upload(answers.upload, [upload, *controls], [picture, label, *shown], **quick)
        go.click(answers.generate, controls, films, **slow)
        following = again.click(lambda seed: (seed or 0) + 1, seed, seed, **quick)
        following.then(answers.generate, controls, films, **slow)
        start.click(answers.race, [rival, *controls], films, **slow)
        beat.click(answers.beat, controls, [standings, *messages], **slow)
        opened = blocks.load(answers.open, None, [picture, plan, label, guidance, temperature, seed, *shown], **quick)
        opened.then(answers.generate, controls, films, **slow)
    return blocks.queue(max_size=_WAITING)  # one generation at a time, the rest in turn


class _Answers:
    """The handlers of events; ``chosen`` are the values of the controls, in their order. Each also answers with the
    messages beside the fields: a refusal changes these alone."""

    def __init__(self, session: Session) -> None:
        self.session, self.pictures = session, itertools.count(1)
        self.example: dict[str, Any] = {"key": ""}  # the films of the page as it opens
        self.example_files: tuple[Path, ...] = ()

    def prepare(self) -> None:
        """Draw the image that the page shows when it opens."""
        with suppress(MarError):
            request = linked(self.session, {})
            *_, (example, made) = race(self.session, [request])
            self.example_files = film_files([(request.plan, made[0])], self.session)
            self.example = example

    def open(self, request: gr.Request) -> tuple[Any, ...]:
        """Set the controls as the link says."""

        def answer() -> tuple[Any, ...]:
            query = dict(request.query_params)
            asked = linked(self.session, query)
            fresh = {"restore": next(self.pictures), "board": {**EMPTY, "painted": asked.painted, "given": asked.given}}
            own = asked.label, asked.guidance, asked.temperature, asked.seed
            return asked.picture, asked.plan, *own, *self._previewed(asked, **(fresh if query else {}))

        return _answered(9, answer)

    def preview(self, *chosen: Any) -> tuple[Any, ...]:
        return _answered(3, lambda: self._previewed(self._request(*chosen)))

    def painted(self, plan: str, *others: Any) -> tuple[Any, ...]:
        """Switch the plan to the painted order, with the same partition, at a stroke of the order brush."""
        name, *partition = (plan or "").split("/", 1)
        if others[-2].get("tool") == "order" and name.strip() != PAINTED:
            plan = "/".join([PAINTED, *partition])
        return (plan, *self.preview(plan, *others))

    def generate(self, *chosen: Any) -> Iterator[tuple[Any, ...]]:
        yield from _streamed(3, lambda: self._drawn([self._request(*chosen)]))

    def race(self, rival: str, *chosen: Any) -> Iterator[tuple[Any, ...]]:
        """Draw along the plan and along a rival's, with the same seed."""

        def both() -> Iterator[tuple[Any, ...]]:
            request = self._request(*chosen)
            yield from self._drawn([request, replace(request, plan=rival or "")])

        yield from _streamed(3, both)

    def _drawn(self, requests: list[Request]) -> Iterator[tuple[Any, ...]]:
        """Yield player, GIF and PNG while images are drawn; files at the end."""
        if len(requests) == 1 and link(self.session, requests[0]) == self.example["key"]:
            for file in self.example_files:
                file.touch()  # only the latest films are kept
            yield gr.HTML(value={**self.example, "id": next(self.pictures)}), *_saved(self.example_files)
            return
        before, nothing = 0.0, (gr.DownloadButton(visible=False),) * 2
        number, value, made = next(self.pictures), {}, []
        for value, made in race(self.session, requests):  # noqa: B007 - the last ones are used below
            value["id"] = number
            if time.monotonic() - before >= _EVERY:
                before = time.monotonic()
                yield gr.HTML(value=value), *nothing
        named = [(request.plan.strip(), one) for request, one in zip(requests, made, strict=True)]
        yield gr.HTML(value=value), *_saved(film_files(named, self.session))

    def beat(self, *chosen: Any) -> Iterator[tuple[Any, ...]]:
        """Score the order beside raster and random."""

        def scored() -> Iterator[tuple[Any, ...]]:
            request = self._request(*chosen)
            yield ("<p>scoring 100 test images …</p>",)
            with beside("rival"):
                for rows in self.session.standings(request):
                    yield (table(rows, request.plan) + "<p>scoring …</p>",)
            place = 1 + [row.plan for row in rows].index(request.plan.strip())
            yield (table(rows, request.plan) + f"<p>Your order comes {place} of {len(rows)}.</p>",)

        yield from _streamed(1, scored)

    def pick(self, number: float | None, *chosen: Any) -> tuple[Any, ...]:
        return self._pictured(lambda: self.session.test_image(whole(number, "the test image")), *chosen)

    def upload(self, path: str, *chosen: Any) -> tuple[Any, ...]:
        return self._pictured(lambda: (read_picture(self.session, path), None), *chosen)

    def _pictured(self, read: Callable[[], tuple[torch.Tensor, int | None]], *chosen: Any) -> tuple[Any, ...]:
        """Replace the drawing by a picture; a new number tells the board to clear its strokes."""

        def answer() -> tuple[Any, ...]:
            with beside("picture"):
                picture, its_label = read()
            plan, label, *others, board, _ = chosen
            label = label if its_label is None else its_label
            request = self._request(plan, label, *others, {**board, "drawn": []}, picture)
            return picture, label, *self._previewed(request, fresh=next(self.pictures))

        return _answered(5, answer)

    def _previewed(self, request: Request, **fresh: Any) -> tuple[Any, ...]:
        """Return board, player, saved order and messages."""
        scene, message = preview(self.session, request)
        painted = bool(scene["painted"] and scene["step"])
        file = str(self.session.order_file(request.painted)) if painted else None
        order = gr.DownloadButton(value=file, visible=painted)
        board = gr.HTML(scene={**scene, **fresh}, **({"value": fresh["board"]} if "board" in fresh else {}))
        return board, gr.HTML(current=scene["link"]), order, *_told(plan=message)

    def _request(self, *chosen: Any) -> Request:
        plan, label, guidance, temperature, seed, board, picture = chosen
        request = Request(plan or "", label=label, guidance=guidance, temperature=temperature, seed=seed)
        return request_of(self.session, board, picture, request)


def _answered(n: int, answer: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the answer; or ``n`` outputs left as they are and the refusal beside its field."""
    try:
        return answer()
    except MarError as error:
        return *(gr.skip() for _ in range(n)), *_refused(error)


def _streamed(n: int, answers: Callable[[], Iterator[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
    """Yield ``n`` outputs at a time, without messages; or the refusal beside its field."""
    try:
        for outputs in answers():
            yield *outputs, *_told()
    except MarError as error:
        yield *(gr.skip() for _ in range(n)), *_refused(error)


def _saved(files: Iterable[Path]) -> tuple[Any, ...]:
    return tuple(gr.DownloadButton(value=str(file), visible=True) for file in files)


def _refused(error: MarError) -> tuple[Any, ...]:
    """Return the line of every field: the error beside its own, the others as they are."""
    own = error.field if isinstance(error, Misfit) else "plan"
    told = dict(zip(_FIELDS, _told(**{own: str(error)}), strict=True))
    return tuple(told[field] if field == own else gr.skip() for field in _FIELDS)


def _told(**messages: str) -> tuple[Any, ...]:
    """Return the line of every field: its error, or nothing."""
    found = [messages.get(field, "") for field in _FIELDS]
    return tuple(
        gr.HTML(value=f'<p role="alert">{html.escape(text)}</p>' if text else "", visible=bool(text)) for text in found
    )


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
    kinds = f"{height}×{width} {session.run.about.name}, {recipe.network.kind}, {recipe.head.kind} head"
    said = f"{session.run.folder.path.name}: {kinds}, trained along {session.run.training_plan}"
    return f"<h1>Any order, one token set at a time</h1><p>{html.escape(said)}</p>"
