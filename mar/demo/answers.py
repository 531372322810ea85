"""The values for the scripts of the page's two drawings, checked requests, and messages in place of errors.

L tokens · C, H, W shape of an image
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mar.core.errors import MarError, UserError
from mar.data.pictures import as_shown
from mar.demo.session import PAINTED, Request, Session
from mar.sampling.output import to_bytes
from orderings import ABSENT, Plan

Board = dict[str, Any]  # from the board: {"painted": [cell], "given": [cell], "drawn": [[pixel, r, g, b]]}
EMPTY: Board = {"painted": [], "given": [], "drawn": []}
LARGEST = 2**26  # pixels of an upload: a small file may unpack to more than the memory


def preview(session: Session, request: Request) -> tuple[dict[str, Any], str]:
    """Return scene and message: the board's grid, picture and the AR step of each cell (null: adaptive order)."""
    try:
        plan, message = session.plan(request), ""
    except (MarError, OSError) as error:
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
    except (MarError, OSError) as error:
        return None, str(error)
    movie = {
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
    return movie, ""


def drawn_on(session: Session, picture: torch.Tensor | None, board: Board) -> torch.Tensor:
    """Return (C, H, W) levels: the picture (None: all 0) with the pixels drawn on the board."""
    x = torch.zeros(session.picture_shape, dtype=torch.uint8) if picture is None else picture.clone()
    last = math.prod(session.picture_shape[-2:]) - 1
    for pixel, *colour in board["drawn"]:
        rgb = [whole(value, "a colour", 255) for value in colour]
        value = to_levels(np.array(rgb, dtype=np.uint8).reshape(1, 1, 3), session)
        x.flatten(1)[:, whole(pixel, "a pixel", last)] = value[:, 0, 0]
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
        UserError: the file cannot be read, or holds more than ``LARGEST`` pixels.
    """
    height, width = session.picture_shape[-2:]
    try:
        with Image.open(path) as picture:
            if math.prod(picture.size) > LARGEST:
                raise ValueError(f"{picture.width}×{picture.height} pixels are more than {LARGEST:,}")
            shown = as_shown(picture, Path(path).name).convert("RGB")
            pixels = np.asarray(shown.resize((width, height), Image.Resampling.LANCZOS))
    except Exception as error:  # Pillow raises many types on damaged files
        raise UserError(f"cannot read the picture {Path(path).name}: {error}") from None
    return to_levels(pixels, session)


def request_of(session: Session, board: Board | None, picture: torch.Tensor | None, request: Request) -> Request:
    """Return ``request`` with the content of the board. Clients send any value: each is checked.

    Raises:
        UserError: a value that is no number, or out of its range.
    """
    board, last = board or EMPTY, session.rows * session.columns - 1
    for name in ("guidance", "temperature"):
        value = getattr(request, name)
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UserError(f"{name} is a number from 0, not {value!r}")
    label, names = request.label or 0, session.classes
    if names:
        label = names.index(label) if label in names else whole(label, "the class", len(names) - 1)
    return replace(
        request, label=label, seed=whole(request.seed, "the seed"), picture=drawn_on(session, picture, board),
        painted=[whole(cell, "a cell", last) for cell in board["painted"]],
        given=[whole(cell, "a cell", last) for cell in board["given"]],
    )  # fmt: skip


def whole(value: Any, name: str, last: int = 2**63 - 1) -> int:
    """Return a whole number from 0 to ``last``. Raises UserError if ``value`` is none."""
    if isinstance(value, int | float) and math.isfinite(value) and value == int(value) and 0 <= value <= last:
        return int(value)
    raise UserError(f"{name} is a whole number from 0 to {last}, not {value!r}")


def _steps_of_cells(plan: Plan, session: Session) -> list[int]:
    """Return for each cell the AR step after which all its tokens are known; -1: given."""
    step_L = torch.where(plan.step_BL[0] < ABSENT, plan.step_BL[0], 0).cpu()
    return step_L.reshape(-1, session.channels).amax(1).tolist()


def _uri(x_1CHW: torch.Tensor, session: Session) -> str:
    """Return a PNG of the image's own size as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(to_bytes(x_1CHW, session.run.spec.levels)[0].numpy()).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
