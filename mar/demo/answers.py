"""The values for the scripts of the page's two drawings, and messages in place of errors.

L tokens · C, H, W shape of an image
"""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mar.core.errors import MarError, UserError
from mar.demo.session import PAINTED, Generation, Request, Session
from mar.sampling.output import to_bytes
from orderings import ABSENT, Plan

Board = dict[str, Any]  # from the board: {"painted": [cell], "given": [cell], "drawn": [[pixel, r, g, b]]}
EMPTY: Board = {"painted": [], "given": [], "drawn": []}


def preview(session: Session, request: Request) -> tuple[dict[str, Any], str]:
    """Return scene and message: the board's grid, picture and the AR step of each cell (null: adaptive order)."""
    try:
        plan, message = session.plan(request), ""
    except MarError as error:
        plan, message = None, str(error)
    height, width = session.picture_shape[-2:]
    picture = torch.zeros(session.picture_shape) if request.picture is None else request.picture
    scene = {
        "rows": session.rows,
        "columns": session.columns,
        "height": height,
        "width": width,
        "picture": _uri(picture[None], session),
        "painted": request.plan.split("/")[0].strip() == PAINTED,
        "steps": 0 if plan is None else int(plan.n_steps_B),
        "step": None if plan is None else _steps_of_cells(plan, session),
    }
    return scene, message


def generate(session: Session, request: Request) -> tuple[dict[str, Any] | None, str]:
    """Return movie and message: frames, the AR step of each cell and the NLL so far; None and the reason if refused."""
    try:
        made = session.generate(request)
    except MarError as error:
        return None, str(error)
    return _movie(session, made, request), ""


def drawn_on(session: Session, picture: torch.Tensor | None, board: Board) -> torch.Tensor:
    """Return (C, H, W) levels: the picture (None: all 0) with the pixels drawn on the board."""
    x = torch.zeros(session.picture_shape, dtype=torch.uint8) if picture is None else picture.clone()
    for pixel, *colour in board["drawn"]:
        value = to_levels(np.array(colour, dtype=np.uint8).reshape(1, 1, 3), session)
        x.flatten(1)[:, pixel] = value[:, 0, 0]
    return x


def to_levels(pixels: np.ndarray, session: Session) -> torch.Tensor:
    """Return (C, H, W) levels of a picture (H, W, 3) of bytes; exact for pictures made by ``to_bytes``."""
    if session.picture_shape[0] == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    scaled = torch.from_numpy(pixels.copy()).float() * ((session.run.spec.levels - 1) / 255.0)
    return scaled.round().to(torch.uint8).permute(2, 0, 1)


def read_picture(session: Session, path: str | Path) -> torch.Tensor:
    """Return (C, H, W) levels of an uploaded picture, scaled to the model's size.

    Raises:
        UserError: the file cannot be read.
    """
    height, width = session.picture_shape[-2:]
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    except (OSError, ValueError):
        raise UserError(f"cannot read the picture {Path(path).name}") from None
    return to_levels(pixels, session)


def request_of(session: Session, board: Board | None, picture: torch.Tensor | None, request: Request) -> Request:
    """Return ``request`` with the content of the board."""
    board = board or EMPTY
    return replace(request, painted=board["painted"], given=board["given"], picture=drawn_on(session, picture, board))


def _movie(session: Session, made: Generation, request: Request) -> dict[str, Any]:
    return {
        "rows": session.rows,
        "columns": session.columns,
        "frames": [_uri(frame, session) for frame in made.frames],
        "shown": made.shown,
        "step": _steps_of_cells(made.plan, session),
        "steps": int(made.plan.n_steps_B),
        "tokens": made.plan.sizes()[0].cumsum(0).tolist(),
        "nats": made.nats,
        "bits": made.bits_per_dim,
        "label": session.classes[request.label or 0] if session.classes else None,
        "notes": made.notes,
    }


def _steps_of_cells(plan: Plan, session: Session) -> list[int]:
    """Return for each cell the AR step after which all its tokens are known; -1: given."""
    step_L = torch.where(plan.step_BL[0] < ABSENT, plan.step_BL[0], 0).cpu()
    return step_L.reshape(-1, session.channels).amax(1).tolist()


def _uri(x_1CHW: torch.Tensor, session: Session) -> str:
    """Return a PNG of the image's own size as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(to_bytes(x_1CHW, session.run.spec.levels)[0].numpy()).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
