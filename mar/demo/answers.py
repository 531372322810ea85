"""The values for the scripts of the page's drawings, checked requests, links, films to save, messages beside fields.

L tokens · C, H, W shape of an image
"""

from __future__ import annotations

import base64
import html
import io
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from mar.core.errors import MarError, UserError
from mar.core.files import digest, write_atomic
from mar.data.pictures import as_shown
from mar.demo.session import PAINTED, Generation, Request, Session, Standing
from mar.sampling.output import to_bytes
from orderings import GIVEN
from orderings.draw import GIVEN_GREY, INK, NOW, PAPER, UNKNOWN, palette

Board = dict[str, Any]  # from the board: {"painted": [cell], "given": [cell], "drawn": [[pixel, r, g, b]]}
EMPTY: Board = {"painted": [], "given": [], "drawn": []}
LARGEST = 2**26  # pixels of an upload: a small file may unpack to more than the memory
SIDE, MAP, GAP, FRAMES = 168, 126, 18, 32  # of a film: pixels of an image, of a map and between them; frames
_FILMS = 100  # saved films that are kept, the latest ones


class Misfit(UserError):
    """A value of the request that is refused; the message is shown beside ``field``."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


@contextmanager
def beside(field: str) -> Iterator[None]:
    """Raise errors as Misfits of the field, unless they are of another one already."""
    try:
        yield
    except Misfit:
        raise
    except (MarError, OSError) as error:
        raise Misfit(field, str(error)) from None


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
        "step": None if plan is None else _steps_of_cells(plan.step_BL, session),
        "link": link(session, request),
        "answered": [*map(list, (request.painted, request.given))],
    }
    return scene, message


def race(session: Session, requests: Sequence[Request]) -> Iterator[tuple[dict[str, Any], list[Generation]]]:
    """Draw an image for each request, a step of each in turn; yield the films so far and the generations.

    Raises:
        Misfit: of the plan, or of the second request's.
    """
    films: list[dict[str, Any] | None] = [None] * len(requests)
    runs, made = [session.stream(request) for request in requests], dict[int, Generation]()
    going = set(range(len(runs)))
    while going:
        for k in sorted(going):
            with beside(("plan", "rival")[k]):
                generation = next(runs[k], None)
            if generation is None:
                going.discard(k)
            else:
                films[k], made[k] = _film(session, requests[k], generation, films[k]), generation
        if all(films) and going:
            yield {"key": link(session, requests[0]), "films": films.copy()}, [made[k] for k in range(len(runs))]


def _film(session: Session, request: Request, made: Generation, before: dict[str, Any] | None) -> dict[str, Any]:
    """Return the film so far: frames, the AR step of each cell (null: not chosen yet) and the NLL."""
    frames, entropy = (before["frames"], before["entropy"]) if before else ([], [])
    top = float(made.entropy[0].max()) if made.entropy else 1.0
    return {
        "plan": request.plan.strip(),
        "rows": session.rows,
        "columns": session.columns,
        "after": made.after.copy(),
        "frames": [*frames, *(_uri(x, session) for x in made.frames[len(frames) :])],
        "entropy": [*entropy, *(_bytes(x / max(top, 1e-9)) for x in made.entropy[len(entropy) :])],
        "most": top,
        "step": [None if k == made.n_steps else k for k in _steps_of_cells(made.plan.step_BL, session, made.n_steps)],
        "steps": made.n_steps,
        "tokens": made.tokens.copy(),
        "nats": made.nats and made.nats.copy(),
        "bits": made.bits_per_dim and made.bits_per_dim.copy(),
        "label": session.classes[request.label or 0] if session.classes else None,
        "notes": made.notes,
        "done": made.done,
    }


def table(standings: Sequence[Standing], own: str) -> str:
    """Return the orders compared, best first, as HTML."""
    unit, rows = standings[0].unit, []
    for place, row in enumerate(standings, 1):
        low, high = row.interval
        against = "reference" if low == high == 0 else f"{row.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
        name = f"<b>{html.escape(row.plan)}</b>" if row.plan == own.strip() else html.escape(row.plan)
        cells = (place, name, f"{row.mean:.3f}", against.replace("-", "−"))
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = f"<tr><th></th><th>order</th><th>NLL, {unit}</th><th>against raster, 95 % interval</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def link(session: Session, request: Request) -> str:
    """Return the query that ``linked`` reads: plan, class, seed, sampling, painted and given cells, given pixels."""
    query = {"plan": request.plan.strip(), "class": request.label or 0, "seed": request.seed}
    query |= {name: f"{getattr(request, name):g}" for name in ("guidance", "temperature")}
    if request.painted and request.plan.split("/")[0].strip() == PAINTED:
        query["painted"] = ".".join(map(str, request.painted))
    if request.given:
        picture = torch.zeros(session.picture_shape) if request.picture is None else request.picture
        levels = picture.to(torch.uint8)[:, _pixels(session, request.given)]
        query["given"] = ".".join(map(str, sorted(request.given)))
        query["pixels"] = base64.urlsafe_b64encode(zlib.compress(levels.numpy().tobytes(), 9)).decode().rstrip("=")
    return "?" + urlencode(query, safe="/:.,()=")


def linked(session: Session, query: Mapping[str, str]) -> Request:
    """Return the request of a link; the run's own plan without one.

    Raises:
        Misfit: of the plan; a value that no page has written.
    """
    with beside("plan"):
        last = session.rows * session.columns - 1
        cells = [dict.fromkeys(filter(str.isdecimal, query.get(name, "").split("."))) for name in ("painted", "given")]
        painted, given = ([whole(int(cell[:9]), "a cell", last) for cell in found] for found in cells)
        picture = None
        if given:
            mask, text = _pixels(session, given), query.get("pixels", "")
            picture = torch.zeros(session.picture_shape, dtype=torch.uint8)
            size = picture[:, mask].numel()
            try:
                packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
                levels = np.frombuffer(zlib.decompressobj().decompress(packed, size + 1), np.uint8)
                if len(levels) != size or int(levels.max()) >= session.run.spec.levels:
                    raise ValueError
            except (ValueError, zlib.error):
                raise UserError("the link's pixels are damaged: copy it again") from None
            picture[:, mask] = torch.from_numpy(levels.copy()).reshape(picture.shape[0], -1)
        try:
            numbers = {key: float(query[key]) for key in ("guidance", "temperature") if key in query}
            label, seed = int(query.get("class", 0)), int(query.get("seed", 0))
        except ValueError:
            raise UserError("the link is damaged: copy it again") from None
        plan = query.get("plan", session.run.training_plan)
        request = Request(plan, painted, given, picture, label, seed=seed, **numbers)
        return request_of(session, {**EMPTY, "painted": painted, "given": given}, picture, request)


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
        Misfit: a value that is no number, or out of its range.
    """
    board, last = board or EMPTY, session.rows * session.columns - 1
    for name in ("guidance", "temperature"):
        value = getattr(request, name)
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise Misfit("seed", f"{name} is a number from 0, not {value!r}")
    label, names = request.label or 0, session.classes
    with beside("label"):
        if names:
            label = names.index(label) if label in names else whole(label, "the class", len(names) - 1)
    with beside("seed"):
        seed = whole(request.seed, "the seed")
    with beside("picture"):
        return replace(
            request, label=label, seed=seed, picture=drawn_on(session, picture, board),
            painted=[whole(cell, "a cell", last) for cell in board["painted"]],
            given=[whole(cell, "a cell", last) for cell in board["given"]],
        )  # fmt: skip


def whole(value: Any, name: str, last: int = 2**63 - 1) -> int:
    """Return a whole number from 0 to ``last``. Raises UserError if ``value`` is none."""
    if isinstance(value, int | float) and math.isfinite(value) and value == int(value) and 0 <= value <= last:
        return int(value)
    raise UserError(f"{name} is a whole number from 0 to {last}, not {'empty' if value is None else repr(value)}")


def film_files(made: Sequence[tuple[str, Generation]], session: Session) -> tuple[Path, Path]:
    """Write the generations as a GIF and their end as a PNG into the session's folder; a name holds until 100 later."""
    shares = [k / (FRAMES - 1) for k in range(FRAMES)]
    gif, png = io.BytesIO(), io.BytesIO()
    pictures = [film_frame(made, session, share) for share in shares]
    pictures[-1].save(png, "PNG")
    save_gif(pictures, shares, gif)
    stem = f"film-{digest(gif.getvalue(), digits=8)}"
    paths = session.folder / f"{stem}.gif", session.folder / f"{stem}.png"
    for path, content in zip(paths, (gif, png), strict=True):
        write_atomic(path, lambda aside, content=content: aside.write_bytes(content.getvalue()))
        for old in sorted(session.folder.glob(f"film-*{path.suffix}"), key=lambda p: p.stat().st_mtime_ns)[:-_FILMS]:
            old.unlink(missing_ok=True)
    return paths


def save_gif(pictures: Sequence[Image.Image], shares: Sequence[float], out: Any) -> None:
    """Write frames as a GIF that rests at its end (share 1). One palette holds every colour and grey that they have."""
    greys = [f"#{k:02x}{k:02x}{k:02x}" for k in range(1, 255, 2)]
    colours = [*palette(64), NOW, UNKNOWN, GIVEN_GREY, INK, PAPER, "#000000", *greys]
    entry_NC = np.array([list(bytes.fromhex(colour[1:])) for colour in colours])
    frames = []
    for picture in pictures:
        packed = (np.asarray(picture).astype(int) * (65536, 256, 1)).sum(-1)
        found, place = np.unique(packed, return_inverse=True)
        found_NC = np.stack([found >> 16, found >> 8 & 255, found & 255], -1)
        nearest = np.square(found_NC[:, None] - entry_NC).sum(-1).argmin(1).astype(np.uint8)
        frames.append(Image.fromarray(nearest[place.reshape(packed.shape)], "P"))
        frames[-1].putpalette(entry_NC.astype(np.uint8).tobytes())
    times = [2500 if share == 1.0 else 110 for share in shares]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)


def film_frame(made: Sequence[tuple[str, Generation]], session: Session, share: float) -> Image.Image:
    """A picture of generations after a share of their steps: plan, step map, image, step and NLL, side by side."""
    large, small = ImageFont.load_default(size=15), ImageFont.load_default(size=13)
    width, height = GAP + len(made) * (SIDE + GAP), MAP + SIDE + 4 * GAP + 24
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, (plan, one) in enumerate(made):
        shown = min(len(one.frames) - 1, round(share * (len(one.frames) - 1)))
        done, left = one.after[shown], GAP + column * (SIDE + GAP)
        draw.text((left + SIDE // 2, GAP), plan, INK, large, "mm")
        canvas.paste(_step_map(one, session, done), (left + (SIDE - MAP) // 2, 2 * GAP))
        canvas.paste(_known(one, session, shown), (left, 3 * GAP + MAP))
        said = f"step {done} of {one.n_steps}" + (
            f"   {one.nats[done - 1] if done else 0:.0f} nats" if one.nats else ""
        )
        draw.text((left + SIDE // 2, height - GAP), said, INK, small, "mm")
    return canvas


def _step_map(made: Generation, session: Session, done: int) -> Image.Image:
    """The cells of the first ``done`` steps in their colours, the latest in red; numbered where there is room."""
    colours, side = palette(made.n_steps), max(1, MAP // max(session.rows, session.columns))
    picture = Image.new("RGB", (side * session.columns, side * session.rows), UNKNOWN)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=max(8, side * 0.55))
    for cell, step in enumerate(_steps_of_cells(made.plan.step_BL, session)):
        x, y = cell % session.columns * side, cell // session.columns * side
        if step < done:
            colour = GIVEN_GREY if step < 0 else NOW if step == done - 1 and done < made.n_steps else colours[step]
            draw.rectangle((x, y, x + side - 1, y + side - 1), colour)
            if side >= 14 and step >= 0:
                dark = colour != NOW and step / made.n_steps > 0.6
                draw.text((x + side / 2, y + side / 2), str(step + 1), INK if dark else PAPER, font, "mm")
    return picture.resize((MAP, MAP), Image.Resampling.NEAREST)


def _known(made: Generation, session: Session, shown: int) -> Image.Image:
    """A frame with unknown cells blank."""
    pixels = torch.from_numpy(np.array(_picture(made.frames[shown], session)))
    known = torch.tensor(_steps_of_cells(made.plan.step_BL, session)) < made.after[shown]
    known = known[_cell_of_pixel(session)].reshape(*pixels.shape[:2], 1)
    blank = torch.tensor(list(bytes.fromhex(UNKNOWN[1:])), dtype=torch.uint8)
    drawn = torch.where(known, pixels, blank)
    return Image.fromarray(drawn.numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def _cell_of_pixel(session: Session) -> torch.Tensor:
    """(H W,) the cell of every pixel."""
    height, width = session.picture_shape[-2:]
    row, column = torch.arange(height) * session.rows // height, torch.arange(width) * session.columns // width
    return (row[:, None] * session.columns + column).flatten()


def _pixels(session: Session, cells: Sequence[int]) -> torch.Tensor:
    """(H, W) bool, the pixels of some cells."""
    return torch.isin(_cell_of_pixel(session), torch.tensor(cells)).reshape(session.picture_shape[-2:])


def _steps_of_cells(step_BL: torch.Tensor, session: Session, last: int = 2**30) -> list[int]:
    """Return for each cell the AR step after which all its tokens are known; -1: given; ``last``: not chosen yet."""
    step_L = torch.where(step_BL[0] == GIVEN, -1, step_BL[0].clamp(max=last)).cpu()
    return step_L.reshape(-1, session.channels).amax(1).tolist()


def _bytes(share: torch.Tensor) -> str:
    """Numbers from 0 to 1 as bytes, in base64."""
    return base64.b64encode((share.clamp(0, 1) * 255).round().byte().numpy().tobytes()).decode()


def _picture(x_1CHW: torch.Tensor, session: Session) -> Image.Image:
    return Image.fromarray(to_bytes(x_1CHW, session.run.spec.levels)[0].numpy())


def _uri(x_1CHW: torch.Tensor, session: Session) -> str:
    """Return a PNG of the image's own size as a data URI."""
    buffer = io.BytesIO()
    _picture(x_1CHW, session).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
